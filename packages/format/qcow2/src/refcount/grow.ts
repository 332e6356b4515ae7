/**
 * Moving the refcount table to a longer place.
 *
 * Above: raise.ts. Below: refcount cache and table, order.ts.
 *
 * When the table has no entry left for a new block, a new table and the blocks that count it go to the
 * start of the next range that no block covers, all of them counted there, and the header is switched
 * at once. Placement and sizes are QEMU's, so that files are the same byte for byte. But a table never becomes longer
 * than QEMU opens: where half as much again would be too long, it gets all the length that there is.
 *
 * Order on disk [C6]: blocks and table, sync, header, sync; then the old table is free at once, since
 * nothing names it any more.
 *
 * Locking: the image lock is held throughout.
 */
import { assert, BlockError, divideRoundUp, viewOf, writeU64 } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import {
  type ClusterIndex,
  ENTRY_BYTES,
  type HostOffset,
  MAX_REFCOUNT_TABLE_BYTES,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { headerWaitsForTable } from "../writeback/order.js";
import { lowerReplaced } from "./free.js";
import { OVERLAP } from "./overlap.js";

/** Where `refcount_table_offset` and `refcount_table_clusters` lie in the header, side by side. */
const HEADER_TABLE_POSITION = 48;

/**
 * Moves the refcount table to the start of a range that no block covers yet.
 *
 * @param firstRange - index of that range, which is the index of its block
 * @param newIndex - index of the block that had no entry
 * @param newBlock - where that block lies
 */
export async function growTable(
  image: Qcow2Image,
  firstRange: number,
  newIndex: number,
  newBlock: HostOffset,
): Promise<void> {
  const { clusterSize, refcountBlockEntries, maxHostClusters } = image.geometry;
  const start = firstRange * refcountBlockEntries;
  await image.event("reftable_grow");
  const blockTotal = countBlocks(image, start);
  const entriesPerCluster = clusterSize / ENTRY_BYTES;
  const roomy = divideRoundUp(blockTotal + divideRoundUp(blockTotal, 2), entriesPerCluster);
  const tableClusters = Math.min(roomy, MAX_REFCOUNT_TABLE_BYTES / clusterSize);
  const entryCount = tableClusters * entriesPerCluster;
  const old = image.refcountTable;
  const missing: number[] = [];
  for (let index = firstRange; index < blockTotal; index++) {
    if (index !== newIndex && old.blockOffset(index) === 0) missing.push(index);
  }
  const tableStart = start + missing.length;
  const end = tableStart + tableClusters;
  if (blockTotal > entryCount || end > maxHostClusters) {
    throw new BlockError("EFBIG", `${image.nodeName}: the refcount table cannot grow any further`);
  }
  assert(entryCount > old.entryCount, "a refcount table grows");
  const table = old.grown(tableStart * clusterSize, entryCount);
  table.set(newIndex, newBlock);
  missing.forEach((index, i) => table.set(index, (start + i) * clusterSize));
  const body = table.encode();
  try {
    await image.event("refblock_alloc_write_blocks");
    for (const index of missing) {
      await writeSelfCounting(image, table.blockOffset(index), index, start, end);
    }
    await image.event("refblock_alloc_write_table");
    await image.writeTable(table.hostOffset, body, 0);
    await headerWaitsForTable(image);
  } catch (error) {
    // Nothing names the new area: it is as free as it was.
    image.refcounts.drop(start * clusterSize, missing.length * clusterSize);
    throw error;
  }
  await switchHeader(image, table.hostOffset, tableClusters);
  for (const index of missing) {
    image.overlap.add(OVERLAP.refcountBlock, table.blockOffset(index), clusterSize);
  }
  image.overlap.add(OVERLAP.refcountTable, table.hostOffset, body.length);
  image.overlap.remove(OVERLAP.refcountTable, old.hostOffset);
  image.refcountTable = table;
  const oldClusters = old.entryCount / entriesPerCluster;
  await lowerReplaced(image, {
    hostOffset: old.hostOffset,
    lengthBytes: oldClusters * clusterSize,
    reason: "other",
  });
}

/** A block of the new area: it counts the clusters of `[start, end)` that lie in its range. */
async function writeSelfCounting(
  image: Qcow2Image,
  blockOffset: HostOffset,
  index: number,
  start: ClusterIndex,
  end: ClusterIndex,
): Promise<void> {
  const { refcounts, geometry } = image;
  const entries = geometry.refcountBlockEntries;
  const block: Table = await refcounts.getEmpty(blockOffset);
  try {
    refcounts.markDirty(block);
    const rangeStart = index * entries;
    const stop = Math.min(end - rangeStart, entries);
    for (let i = Math.max(0, start - rangeStart); i < stop; i++) {
      refcounts.setRefcount(block, i, 1);
    }
  } finally {
    refcounts.release(block);
  }
}

/**
 * How many refcount blocks an image needs in all, so that they count everything below `clusters`, one
 * another, and their table; with some room for the table to be longer.
 */
function countBlocks(image: Qcow2Image, clusters: number): number {
  const { clusterSize, refcountBlockEntries } = image.geometry;
  const settle = (base: number): { blocks: number; tableClusters: number } => {
    let blocks = 0;
    let tableClusters = 0;
    for (;;) {
      const total = base + blocks + tableClusters;
      const nextBlocks = divideRoundUp(total, refcountBlockEntries);
      const nextTable = divideRoundUp(nextBlocks, clusterSize / ENTRY_BYTES);
      if (nextBlocks === blocks && nextTable === tableClusters) return { blocks, tableClusters };
      blocks = nextBlocks;
      tableClusters = nextTable;
    }
  };
  const { tableClusters } = settle(clusters);
  return settle(clusters + divideRoundUp(tableClusters, 2)).blocks;
}

/** Points the header at the new table. A failure leaves it unknown which one counts: the node fails. */
async function switchHeader(
  image: Qcow2Image,
  tableOffset: HostOffset,
  tableClusters: number,
): Promise<void> {
  const field = new Uint8Array(12);
  const view = viewOf(field);
  writeU64(view, 0, tableOffset);
  view.setUint32(8, tableClusters);
  try {
    await image.event("refblock_alloc_switch_table");
    await image.writeTable(HEADER_TABLE_POSITION, field, OVERLAP.header);
    await image.sync();
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
  image.changeHeader({ refcountTableOffset: tableOffset, refcountTableClusters: tableClusters });
}
