/**
 * Where a file has holes.
 *
 * Above: FileDriver. Below: lseek(2) with SEEK_DATA and SEEK_HOLE, or else the number of blocks.
 * A hole reads as zeroes for certain; what is called data may be zeroes too.
 */
import { type BigIntStatsFs, statfs } from "node:fs";
import { promisify } from "node:util";
import type { BlockStatus } from "@blocklayer/block-api";
import type { FileExtent } from "./extent-cache.js";
import { hostPath } from "./host-path.js";
import type { HostFile } from "./host-file.js";
import { type NativeFs, SEEK } from "./native.js";

/**
 * File systems (by their magic numbers) whose block count includes what is still on its way to disk. On others
 * "no blocks" may just mean "not written yet", or that nobody counts.
 */
const COUNTING_FILE_SYSTEMS: ReadonlySet<bigint> = new Set([
  0xef53n, // ext2, ext3, ext4
  0x58465342n, // XFS
  0x01021994n, // tmpfs
]);

const statfsAsync: (path: string | Buffer) => Promise<BigIntStatsFs> = (path) =>
  promisify(statfs)(path, { bigint: true });

/**
 * The extent at `offset`, by seeking. One or two system calls, on the calling thread: they take about a
 * microsecond each.
 *
 * @returns `undefined` where seeking does not tell
 */
export function seekExtent(
  file: HostFile,
  native: NativeFs,
  offset: number,
): FileExtent | undefined {
  const cached = file.extents.find(offset);
  if (cached !== undefined) return cached;
  const found = lookUp(file.fd, native, offset, file.lengthBytes);
  if (found !== undefined) file.extents.keep(found);
  return found;
}

function lookUp(
  fd: number,
  native: NativeFs,
  offset: number,
  lengthBytes: number,
): FileExtent | undefined {
  const data = native.seek(fd, offset, SEEK.data);
  if (data === -NO_SUCH_ADDRESS) {
    // Nothing but hole from here to the end.
    return lengthBytes > offset ? { start: offset, end: lengthBytes, data: false } : undefined;
  }
  if (data < 0) return undefined;
  if (data > offset) return { start: offset, end: data, data: false };
  const hole = native.seek(fd, offset, SEEK.hole);
  // A file that became shorter meanwhile has no answer; to call it data is safe.
  return hole > offset ? { start: offset, end: hole, data: true } : undefined;
}

/** ENXIO: lseek's word for "nothing of that kind from there on". */
const NO_SUCH_ADDRESS = 6;

/**
 * Whether the file has no block at all, on a file system that counts them truly.
 * Requires: a regular file.
 */
export async function isOneHole(file: HostFile): Promise<boolean> {
  const { blocks } = await file.stat();
  if (blocks !== 0) return false;
  try {
    return COUNTING_FILE_SYSTEMS.has((await statfsAsync(hostPath(file.filename))).type);
  } catch {
    return false;
  }
}

/** A status of this layer: a byte store is all there is, so everything is allocated. */
export function statusOf(data: boolean, offset: number, lengthBytes: number): BlockStatus {
  return {
    lengthBytes,
    allocated: true,
    data,
    zero: !data,
    compressed: false,
    hostOffset: offset,
  };
}
