/**
 * Another width of refcounts: a second refcount structure beside the first.
 *
 * Above: amend.ts, with the node drained and everything flushed. Below: refcount table and cache, the header.
 *
 * 1. The new blocks and their table lie behind everything that is in use, and count what the old ones count, the old ones
 *    too, and themselves. They are durable before the header names them [C6].
 * 2. Table, length of the table and width change in one write of one sector: after a crash one structure counts, whole.
 * 3. The old structure is free afterwards, by the new counts.
 *
 * Only blocks that count something are made. Memory: one block, and a number for each.
 *
 * Locking: the image lock is held throughout.
 */
import { alignUp, BlockError, CorruptImageError, divideRoundUp, hex } from "@blocklayer/bytes";
import { writeRefcount } from "@blocklayer/metadata-cache";
import {
  type ClusterIndex,
  ENTRY_BYTES,
  type Geometry,
  geometryOf,
  MAX_REFCOUNT_TABLE_BYTES,
} from "../geometry.js";
import { encodeHeader } from "../header/encode.js";
import type { Qcow2Header } from "../header/header.js";
import type { Qcow2Image } from "../image.js";
import { type Drop, lowerReplaced } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { getRefcountBlock } from "../refcount/stored.js";
import { RefcountTable } from "../refcount/table.js";

/** The header's fields from the refcount table's place to the refcount width, in one sector. */
const HEADER_FROM = 48;
const HEADER_TO = 100;

/** Told how far it is, in clusters. */
export type AmendProgress = (done: number, total: number) => void;

/**
 * Gives an image refcounts of another width.
 *
 * Requires: version 3; the caches are written and clean.
 *
 * @returns the image to go on with: what the old one has in memory is of the old width
 * @throws BlockError `EINVAL` when a count does not fit, before anything is written; `EFBIG`
 */
export async function changeRefcountWidth(
  image: Qcow2Image,
  refcountOrder: number,
  progress: AmendProgress,
): Promise<Qcow2Image> {
  const geometry = geometryOf({ ...image.header, refcountOrder });
  const used = await usedClusters(image, geometry);
  const plan = planArea(image, geometry, used);
  const table = new RefcountTable(
    plan.tableCluster * geometry.clusterSize,
    new Uint32Array((plan.tableClusters * geometry.clusterSize * 2) / ENTRY_BYTES),
    geometry,
  );
  for (const [i, index] of plan.blocks.entries()) {
    const offset = (plan.start + i) * geometry.clusterSize;
    const block = await blockOf(image, geometry, index, plan);
    await image.writeTable(offset, block, 0);
    table.set(index, offset);
    progress(i + 1, plan.blocks.length);
  }
  await image.writeTable(table.hostOffset, table.encode(), 0);
  await image.sync();
  const header: Qcow2Header = {
    ...image.header,
    refcountOrder,
    refcountTableOffset: table.hostOffset,
    refcountTableClusters: plan.tableClusters,
  };
  await switchHeader(image, header);
  const next = image.withTables({ header, l1: image.l1, refcountTable: table });
  try {
    await freeOldStructure(image, next);
  } catch (cause) {
    // The old image counts in a structure that counts no more.
    image.fail(cause);
    throw cause;
  }
  return next;
}

/**
 * Refuses a width that some count does not fit into. Reads only.
 *
 * @throws BlockError `EINVAL`; CorruptImageError
 */
export async function refuseLargeCounts(image: Qcow2Image, refcountOrder: number): Promise<void> {
  await usedClusters(image, geometryOf({ ...image.header, refcountOrder }));
}

/** What the old structure counts. */
interface UsedClusters {
  /** One past the last cluster whose count is not 0. */
  readonly end: ClusterIndex;
  /** Indices of new blocks that count something, ascending. */
  readonly blocks: readonly number[];
}

/** @throws BlockError `EINVAL` when a count is too large for the new width; CorruptImageError */
async function usedClusters(image: Qcow2Image, geometry: Geometry): Promise<UsedClusters> {
  const { refcountTable, refcounts } = image;
  const { clusterSize, refcountBlockEntries: entries } = image.geometry;
  const blocks: number[] = [];
  const seen = new Set<number>();
  const entryCount = refcountTable.usedEntries();
  let end = 0;
  for (let index = 0; index < entryCount; index++) {
    const offset = refcountTable.blockOffset(index);
    if (offset === 0) continue;
    if (seen.has(offset)) throw twice(image, index);
    seen.add(offset);
    const block = await getRefcountBlock(image, index * entries);
    if (block === undefined) continue;
    try {
      for (let i = 0; i < entries; i++) {
        const count = refcounts.getRefcount(block, i);
        if (count === 0) continue;
        const cluster = index * entries + i;
        if (count > geometry.maxRefcount) throw tooLarge(geometry, cluster * clusterSize, count);
        const newIndex = Math.floor(cluster / geometry.refcountBlockEntries);
        if (blocks.at(-1) !== newIndex) blocks.push(newIndex);
        end = cluster + 1;
      }
    } finally {
      refcounts.release(block);
    }
  }
  return { end, blocks };
}

function twice({ refcountTable }: Qcow2Image, index: number): CorruptImageError {
  return new CorruptImageError({
    structure: "refcount table",
    hostOffset: refcountTable.hostOffset + index * ENTRY_BYTES,
    rule: `entry ${index} names a refcount block that another one names, too`,
  });
}

function tooLarge(geometry: Geometry, hostOffset: number, count: number): BlockError {
  const message =
    `Cannot decrease refcount entry width to ${geometry.refcountBits} bits: ` +
    `Cluster at offset ${hex(hostOffset)} has a refcount of ${count}`;
  return new BlockError("EINVAL", message, { op: "amend" });
}

/** Where the new structure lies: its blocks one behind the other, then the table. */
interface Area {
  readonly start: ClusterIndex;
  readonly blocks: readonly number[];
  readonly tableCluster: ClusterIndex;
  readonly tableClusters: number;
  readonly end: ClusterIndex;
}

function planArea(image: Qcow2Image, geometry: Geometry, used: UsedClusters): Area {
  const { clusterSize, refcountBlockEntries: entries } = geometry;
  const start = Math.max(used.end, divideRoundUp(image.file.lengthBytes, clusterSize));
  let blocks = used.blocks;
  for (;;) {
    const tableEntries = (blocks.at(-1) ?? 0) + 1;
    const tableClusters = divideRoundUp(tableEntries * ENTRY_BYTES, clusterSize);
    const tableCluster = start + blocks.length;
    const end = tableCluster + tableClusters;
    if (tableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES || end > geometry.maxHostClusters) {
      throw new BlockError("EFBIG", `${image.nodeName}: the refcount table would be too long`);
    }
    const planned = new Set(blocks);
    const missing: number[] = [];
    for (let index = Math.floor(start / entries); index * entries < end; index++) {
      if (!planned.has(index)) missing.push(index);
    }
    if (missing.length === 0) return { start, blocks, tableCluster, tableClusters, end };
    blocks = [...blocks, ...missing].toSorted((a, b) => a - b);
  }
}

/** The bytes of a new block: the old counts, and one for each cluster of the new structure. */
async function blockOf(
  image: Qcow2Image,
  geometry: Geometry,
  index: number,
  area: Area,
): Promise<Uint8Array> {
  const { refcountBits, refcountBlockEntries: entries, clusterSize } = geometry;
  const { refcounts } = image;
  const oldEntries = image.geometry.refcountBlockEntries;
  const bytes = new Uint8Array(clusterSize);
  const first = index * entries;
  for (let cluster = first; cluster < first + entries; ) {
    const stop = Math.min(first + entries, alignUp(cluster + 1, oldEntries));
    const block = await getRefcountBlock(image, cluster);
    if (block !== undefined) {
      try {
        for (let at = cluster; at < stop; at++) {
          const count = refcounts.getRefcount(block, at % oldEntries);
          if (count !== 0) writeRefcount(bytes, refcountBits, at - first, count);
        }
      } finally {
        refcounts.release(block);
      }
    }
    cluster = stop;
  }
  const areaEnd = Math.min(area.end, first + entries);
  for (let cluster = Math.max(area.start, first); cluster < areaEnd; cluster++) {
    writeRefcount(bytes, refcountBits, cluster - first, 1);
  }
  return bytes;
}

/** Should its fate be unknown, nobody knows which structure counts: the node fails. */
async function switchHeader(image: Qcow2Image, header: Qcow2Header): Promise<void> {
  const fields = encodeHeader(header).slice(HEADER_FROM, HEADER_TO);
  try {
    await image.writeTable(HEADER_FROM, fields, OVERLAP.header);
    await image.sync();
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
}

async function freeOldStructure(old: Qcow2Image, next: Qcow2Image): Promise<void> {
  const { clusterSize } = old.geometry;
  const table = old.refcountTable;
  const drops: Drop[] = [];
  const entryCount = table.usedEntries();
  for (let index = 0; index < entryCount; index++) {
    const hostOffset = table.blockOffset(index);
    if (hostOffset !== 0) drops.push({ hostOffset, lengthBytes: clusterSize, reason: "other" });
  }
  const lengthBytes = table.entryCount * ENTRY_BYTES;
  drops.push({ hostOffset: table.hostOffset, lengthBytes, reason: "other" });
  for (const drop of drops) await lowerReplaced(next, drop);
}
