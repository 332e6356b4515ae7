/**
 * Making the image file shorter, after the disk became shorter.
 *
 * Above: mapping/truncate.ts, with the node drained. Below: refcount cache and table.
 *
 * 1. A refcount block that counts nothing but itself leaves the refcount table; the entry is durable before the block's own
 *    count, where another block holds it, is lowered [C3].
 * 2. The file is cut behind its last cluster in use, after everything that freed the others is durable [D2].
 *
 * Locking: the image lock is held throughout.
 */
import { assert } from "@blocklayer/bytes";
import { type ClusterIndex, ENTRY_BYTES, type HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { lowerReplaced } from "./free.js";
import { OVERLAP } from "./overlap.js";
import { getRefcount, getRefcountBlock } from "./stored.js";
import { RefcountTable } from "./table.js";

/** A refcount block that may go. */
interface EmptyBlock {
  readonly index: number;
  readonly hostOffset: HostOffset;
}

/**
 * Gives up refcount blocks that count nothing, and cuts the file. Requires: the caches were written.
 *
 * **After failure:** the file is as long as it was, or there are leaks.
 */
export async function reclaimFileEnd(image: Qcow2Image): Promise<void> {
  const empty = await emptyBlocks(image);
  if (empty.length > 0) {
    for (const block of empty) await unhook(image, block);
    await image.refcounts.flush();
    await image.sync();
    for (const block of empty) await forget(image, block);
  }
  await image.refcounts.flush();
  await image.sync();
  // A block that the file may name although memory does not know it: nobody can say what else lies there.
  if (image.allocator.lost.size > 0) return;
  const { file } = image;
  const end = await usedFileEnd(image);
  if (!file.capabilities.truncate || end >= file.lengthBytes) return;
  await file.truncate(end);
  image.fileBecameShorter();
}

/** From the last to the first: blocks lie in front of those that count them less often than behind. */
async function emptyBlocks(image: Qcow2Image): Promise<readonly EmptyBlock[]> {
  const { refcountTable, geometry } = image;
  const empty: EmptyBlock[] = [];
  for (let index = refcountTable.usedEntries() - 1; index > 0; index--) {
    const hostOffset = refcountTable.blockOffset(index);
    if (hostOffset === 0) continue;
    const own = hostOffset / geometry.clusterSize - index * geometry.refcountBlockEntries;
    if (await countsNothingBut(image, index, own)) empty.push({ index, hostOffset });
  }
  return empty;
}

async function countsNothingBut(image: Qcow2Image, index: number, own: number): Promise<boolean> {
  const { refcounts, geometry } = image;
  const entries = geometry.refcountBlockEntries;
  const block = await getRefcountBlock(image, index * entries);
  assert(block !== undefined, "the block is in the table");
  try {
    for (let i = 0; i < entries; i++) {
      if (i !== own && refcounts.getRefcount(block, i) !== 0) return false;
    }
    return own < 0 || own >= entries || refcounts.getRefcount(block, own) === 1;
  } finally {
    refcounts.release(block);
  }
}

async function unhook(image: Qcow2Image, { index }: EmptyBlock): Promise<void> {
  const at = image.refcountTable.hostOffset + index * ENTRY_BYTES;
  try {
    await image.writeTable(at, RefcountTable.encodeEntry(0), OVERLAP.refcountTable);
  } catch (cause) {
    // Should the file no longer name the block, what it counts from now on would be lost.
    image.fail(cause);
    throw cause;
  }
  image.refcountTable.set(index, 0);
}

/** Lowers the count of a block's own cluster where another block holds it. */
async function forget(image: Qcow2Image, { index, hostOffset }: EmptyBlock): Promise<void> {
  const { clusterSize, refcountBlockEntries } = image.geometry;
  const cluster = hostOffset / clusterSize;
  if (Math.floor(cluster / refcountBlockEntries) !== index) {
    await lowerReplaced(image, { hostOffset, lengthBytes: clusterSize, reason: "other" });
    return;
  }
  image.refcounts.drop(hostOffset, clusterSize);
  image.overlap.removeCluster(cluster);
  image.allocator.mayReuse(cluster);
}

/** Where the last cluster of the file that is in use ends. The header's cluster is in use. */
export async function usedFileEnd(image: Qcow2Image): Promise<HostOffset> {
  const { file, geometry } = image;
  const entries = geometry.refcountBlockEntries;
  // What the refcount table does not reach is not in use, and can be most of a long sparse file.
  const counted = image.refcountTable.usedEntries() * entries;
  const clusters = Math.ceil(file.lengthBytes / geometry.clusterSize);
  let cluster: ClusterIndex = Math.min(clusters, counted) - 1;
  while (cluster > 0) {
    const index = Math.floor(cluster / entries);
    if (image.refcountTable.blockOffset(index) === 0) cluster = index * entries - 1;
    else if ((await getRefcount(image, cluster)) === 0) cluster--;
    else break;
  }
  return (Math.max(0, cluster) + 1) * geometry.clusterSize;
}
