/** Images with subclusters in memory, and what their L2 entries say. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../../src/index.js";
import { createInMemory } from "./images.js";

/** Cluster of the images here; 32 subclusters of 512 bytes. */
export const CLUSTER = 16_384;
export const SUBCLUSTER = 512;

/** An image that is open, and what is under it. */
export interface ExtendedDisk {
  readonly memory: MemoryDriver;
  readonly disk: Qcow2Driver;
  write(offset: number, length: number, value: number): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** Makes an image of 64 clusters and opens it. */
export async function openExtended(
  given: {
    readonly backing?: BlockChild;
    readonly file?: (memory: MemoryDriver) => BlockChild;
  } = {},
): Promise<ExtendedDisk> {
  const image = await createInMemory({
    size: 64 * CLUSTER,
    cluster_size: CLUSTER,
    extended_l2: "on",
    ...(given.backing === undefined ? {} : { backing_file: "base", backing_fmt: "raw" }),
  });
  const memory = openMemory({ bytes: image.bytes });
  const disk = await openQcow2({
    file: given.file?.(memory) ?? directChild(memory),
    ...(given.backing === undefined ? {} : { backing: given.backing }),
  });
  return {
    memory,
    disk,
    async write(offset, length, value) {
      await disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value)));
    },
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      await disk.readv(offset, IoVector.of(bytes));
      return bytes;
    },
  };
}

/** A backing file full of one byte. */
export function fullBacking(lengthBytes: number, value = 9): BlockChild {
  return directChild(openMemory({ bytes: new Uint8Array(lengthBytes).fill(value) }));
}

/** Where the entry of a guest cluster lies in the file. */
export async function entryAt(memory: MemoryDriver, cluster: number): Promise<number> {
  const { l1TableOffset } = await readHeader(directChild(memory));
  return viewOf(memory.bytes).getUint32(l1TableOffset + 4) + cluster * 16;
}

/** Both words of an entry as hexadecimal digits, after a flush: descriptor, then zeroes and allocated. */
export async function entryOf(
  { memory, disk }: Pick<ExtendedDisk, "memory" | "disk">,
  cluster: number,
): Promise<readonly [string, string]> {
  await disk.flushToOs();
  const at = await entryAt(memory, cluster);
  const view = viewOf(memory.bytes);
  const hex = (word: number): string =>
    view
      .getBigUint64(at + 8 * word)
      .toString(16)
      .padStart(16, "0");
  return [hex(0), hex(1)];
}

/** What a check of the closed image finds. */
export async function findingsOf(memory: MemoryDriver): Promise<string[]> {
  const file = directChild(memory);
  const { findings } = await checkQcow2(file, await readHeader(file));
  return findings.map(({ message }) => message);
}
