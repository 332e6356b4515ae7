/**
 * Raising refcounts, and adding the refcount blocks that this needs.
 *
 * Above: allocate.ts. Below: search.ts, stored.ts, grow.ts, order.ts.
 *
 * A new block takes the next free cluster, but none of its run in front of its own range, as in QEMU, which has
 * counted those by then. It counts itself when its cluster lies in its own range;
 * otherwise the block that is responsible counts it, and must exist first: the two functions call each
 * other, at most three deep, since some block in the chain counts itself.
 *
 * Order on disk [C6]: block, sync, table entry.
 *
 * Locking: the image lock is held throughout.
 */
import { assert, divideRoundUp } from "@blocklayer/bytes";
import { type ClusterIndex, ENTRY_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { refcountsWillChange } from "../writeback/dirty-bit.js";
import { refcountTableWaitsForBlock } from "../writeback/order.js";
import { lowerAfterFailure } from "./free.js";
import { growTable } from "./grow.js";
import { OVERLAP } from "./overlap.js";
import { findFree } from "./search.js";
import { getRefcountBlock } from "./stored.js";
import { RefcountTable } from "./table.js";

/**
 * Counts each cluster of a run once more.
 *
 * @returns false when a refcount block had to be added: nothing was counted, and the block may lie
 *   where the caller wanted to go, so it searches again
 *
 * **After failure:** nothing was counted.
 */
export async function raiseRefcounts(
  image: Qcow2Image,
  first: ClusterIndex,
  count: number,
): Promise<boolean> {
  const marked = refcountsWillChange(image);
  if (marked instanceof Promise) await marked;
  const { refcounts, geometry, refcountTable } = image;
  const entries = geometry.refcountBlockEntries;
  for (let index = Math.floor(first / entries); index * entries < first + count; index++) {
    if (refcountTable.blockOffset(index) !== 0) continue;
    try {
      await addRefcountBlock(image, Math.max(first, index * entries), first);
    } finally {
      image.allocator.mayReuse(first);
    }
    return false;
  }
  let cluster = first;
  try {
    while (cluster < first + count) {
      const got = getRefcountBlock(image, cluster);
      const block = got instanceof Promise ? await got : got;
      assert(block !== undefined, "the refcount block was there a moment ago");
      const blockStart = cluster - (cluster % entries);
      const end = Math.min(first + count, blockStart + entries);
      try {
        for (; cluster < end; cluster++) {
          const value = refcounts.getRefcount(block, cluster - blockStart);
          refcounts.setRefcount(block, cluster - blockStart, value + 1);
        }
      } finally {
        refcounts.release(block);
      }
    }
  } catch (error) {
    const { clusterSize } = geometry;
    await lowerAfterFailure(image, first * clusterSize, (cluster - first) * clusterSize);
    throw error;
  }
  return true;
}

/**
 * Adds the refcount block that counts a cluster. Does nothing more than a part of that when another
 * block had to be added first: the caller searches again in either case.
 *
 * @param runStart - the caller's run begins here: what lies between this and the cluster is not for the block
 *
 * **After failure:** the block's cluster is free again and the cache has forgotten it; but when the file may
 * name it, it stays taken for as long as the image is open.
 */
async function addRefcountBlock(
  image: Qcow2Image,
  cluster: ClusterIndex,
  runStart: ClusterIndex,
): Promise<void> {
  const { geometry, refcounts } = image;
  const { clusterSize, refcountBlockEntries } = geometry;
  const tableIndex = Math.floor(cluster / refcountBlockEntries);
  await image.event("refblock_alloc");
  let newCluster = await findFree(image, 1);
  if (newCluster >= runStart && newCluster < cluster) {
    image.allocator.cursor = cluster;
    newCluster = await findFree(image, 1);
  }
  const blockOffset = newCluster * clusterSize;
  const countsItself = Math.floor(newCluster / refcountBlockEntries) === tableIndex;
  if (!countsItself && !(await raiseRefcounts(image, newCluster, 1))) return;
  try {
    const block = await refcounts.getEmpty(blockOffset);
    try {
      refcounts.markDirty(block);
      if (countsItself) refcounts.setRefcount(block, newCluster % refcountBlockEntries, 1);
    } finally {
      refcounts.release(block);
    }
    await image.event("refblock_alloc_write");
    await refcountTableWaitsForBlock(image);
    if (tableIndex >= image.refcountTable.entryCount) {
      const used = Math.max(cluster + 1, newCluster);
      const firstRange = divideRoundUp(used, refcountBlockEntries);
      await growTable(image, firstRange, tableIndex, blockOffset);
    }
  } catch (error) {
    if (image.refcountTable.blockOffset(tableIndex) !== blockOffset) {
      refcounts.drop(blockOffset, clusterSize);
      if (countsItself) image.allocator.mayReuse(newCluster);
      else await lowerAfterFailure(image, blockOffset, clusterSize);
    }
    throw error;
  }
  if (image.refcountTable.blockOffset(tableIndex) !== blockOffset) {
    const at = image.refcountTable.hostOffset + tableIndex * ENTRY_BYTES;
    try {
      await image.event("refblock_alloc_hookup");
      await image.writeTable(at, RefcountTable.encodeEntry(blockOffset), OVERLAP.refcountTable);
    } catch (error) {
      image.allocator.lost.add(newCluster);
      throw error;
    }
    image.refcountTable.set(tableIndex, blockOffset);
  }
  image.overlap.add(OVERLAP.refcountBlock, blockOffset, clusterSize);
}
