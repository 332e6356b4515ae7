/** What Linux tells of block devices: `fstat` has no length for them. */
import { BlockError, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { readFile } from "node:fs/promises";
import type { NamedFile } from "./file-error.js";
import { type NativeFs, SEEK } from "./native.js";

/** Major and minor number of a device. */
export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

/** Splits a device number the way the C library packs it: 12 + 20 bits each, interleaved. */
export function deviceNumberOf(packed: bigint): DeviceNumber {
  return {
    major: Number(((packed >> 8n) & 0xfffn) | ((packed >> 32n) & 0xfffff000n)),
    minor: Number((packed & 0xffn) | ((packed >> 12n) & 0xffffff00n)),
  };
}

/**
 * The length of a block device, by seeking to its end, or else from sysfs.
 *
 * @throws BlockError `ENOTSUP` where neither works
 */
export async function deviceLengthBytes(
  fd: number,
  device: DeviceNumber,
  native: NativeFs | undefined,
  file: NamedFile,
): Promise<number> {
  const end = native?.seek(fd, 0, SEEK.end) ?? -1;
  if (end >= 0) return end;
  const sectors = await readSysfsNumber(device, "size");
  if (sectors !== undefined) return sectors * SECTOR_SIZE_BYTES;
  throw new BlockError("ENOTSUP", `Could not open '${file.filename}': its length cannot be found`, {
    op: "open",
    node: file.nodeName,
  });
}

/** The block size that the device works in; 512 where it does not say. */
export async function logicalBlockBytes(device: DeviceNumber): Promise<number> {
  const own = await readSysfsNumber(device, "queue/logical_block_size");
  // A partition has no queue of its own; its disk is the directory above.
  return own ?? (await readSysfsNumber(device, "../queue/logical_block_size")) ?? SECTOR_SIZE_BYTES;
}

async function readSysfsNumber(device: DeviceNumber, name: string): Promise<number | undefined> {
  try {
    const text = await readFile(`/sys/dev/block/${device.major}:${device.minor}/${name}`, "latin1");
    const value = Number.parseInt(text, 10);
    return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  } catch {
    return undefined;
  }
}
