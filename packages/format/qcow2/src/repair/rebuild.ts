/**
 * Building the refcount table and its blocks anew, apart from the old ones.
 *
 * Above: repair.ts. Below: planned-file.ts, the counters of a check.
 *
 * 1. The new structure lies where the old refcounts and the references both say that nothing is: behind the end of
 *    the file, or in a free run when the file cannot grow. It counts itself.
 * 2. Its counts are the largest of the old ones, where they are known, the references as planned, and those that the file
 *    has until the plan is written: nothing is lowered here.
 * 3. Order: blocks and table, sync, header, sync. Before the header the old structure counts, behind it the new one;
 *    both name every cluster in use that the old one named.
 * 4. Memory: one block at a time, and the table.
 */
import { assert, BlockError, divideRoundUp, viewOf, writeU64 } from "@blocklayer/bytes";
import type { Examination } from "../check/check.js";
import { CHUNK_LENGTH, type Counters } from "../check/counters.js";
import { ENTRY_BYTES, type HostOffset, MAX_REFCOUNT_TABLE_BYTES } from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import { type RefcountParts, setRefcount } from "./refcounts.js";

/** Where `refcount_table_offset` and `refcount_table_clusters` lie in the header, side by side. */
const HEADER_TABLE_POSITION = 48;

/**
 * Whether refcounts cannot be mended where they lie. As for QEMU, a refcount of 0 where there is a reference says that
 * the refcounts cannot be trusted to tell what is free.
 *
 * @param oldClusters - clusters behind these were appended just now, and are not counted yet
 */
export function needsRebuild(
  { geometry, references, stored }: Examination,
  header: Qcow2Header,
  oldClusters: number = references.clusterCount,
): boolean {
  const { clusterSize, refcountBlockEntries: entries } = geometry;
  const tableEnd = header.refcountTableOffset / clusterSize + header.refcountTableClusters;
  if (tableEnd > references.clusterCount) return true;
  const known = new Set<number>();
  for (const { index } of stored.entries) if (!stored.isUnknown(index)) known.add(index);
  return references.counters.chunkIndices().some((chunk) => {
    const end = Math.min((chunk + 1) * CHUNK_LENGTH, references.clusterCount);
    for (let cluster = chunk * CHUNK_LENGTH; cluster < end; cluster++) {
      if (references.counters.get(cluster) === 0) continue;
      if (!known.has(Math.floor(cluster / entries))) return true;
      if (cluster < oldClusters && stored.counters.get(cluster) === 0) return true;
    }
    return false;
  });
}

/** Whether something else lies on the refcount table, or may: more references than can be counted hide which. */
export function isTableShared({ geometry, references }: Examination, header: Qcow2Header): boolean {
  const first = header.refcountTableOffset / geometry.clusterSize;
  for (let cluster = first; cluster < first + header.refcountTableClusters; cluster++) {
    if (cluster < references.clusterCount && references.counters.get(cluster) > 1) return true;
  }
  return references.hasOverflow;
}

/** What is counted anew. */
export interface RebuildParts extends RefcountParts {
  /** References of the tables that are in the file still. */
  readonly before: Counters;
}

/** Where the new structure goes: the table, then its blocks. */
interface Structure {
  readonly start: number;
  readonly tableClusters: number;
  /** Index of each block in the table, ascending. */
  readonly blocks: readonly number[];
}

/**
 * Builds the refcounts of an image anew and switches the header to them.
 *
 * Requires: all that the plan appended is durable.
 *
 * @returns the header as it is on the disk now
 * @throws BlockError `EFBIG` when the table would be too long, `ENOSPC` when there is no room
 */
export async function rebuildRefcounts(
  parts: RebuildParts,
  header: Qcow2Header,
): Promise<Qcow2Header> {
  const { geometry, plan } = parts;
  const { clusterSize } = geometry;
  const structure = place(parts);
  const { start, tableClusters, blocks } = structure;
  const table = new Uint8Array(tableClusters * clusterSize);
  for (const [i, index] of blocks.entries()) {
    const hostOffset = (start + tableClusters + i) * clusterSize;
    writeU64(viewOf(table), index * ENTRY_BYTES, hostOffset);
    await plan.writeThrough(hostOffset, blockOf(parts, structure, index));
  }
  const tableOffset = start * clusterSize;
  await plan.writeThrough(tableOffset, table);
  await plan.file.flush();
  await switchHeader(parts, tableOffset, tableClusters);
  return {
    ...header,
    refcountTableOffset: tableOffset,
    refcountTableClusters: tableClusters,
  };
}

async function switchHeader(
  { plan }: RefcountParts,
  tableOffset: HostOffset,
  tableClusters: number,
): Promise<void> {
  const field = new Uint8Array(12);
  writeU64(viewOf(field), 0, tableOffset);
  viewOf(field).setUint32(8, tableClusters);
  await plan.writeThrough(HEADER_TABLE_POSITION, field);
  await plan.file.flush();
}

function countOf({ references, stored, before }: RebuildParts, cluster: number): number {
  return Math.max(references.counters.get(cluster), stored.get(cluster) ?? 0, before.get(cluster));
}

/** Finds room for the table and its blocks, which count each other. */
function place(parts: RebuildParts): Structure {
  const { geometry, plan } = parts;
  const { clusterSize, refcountBlockEntries: entries } = geometry;
  const used = usedBlocks(parts);
  const growing = plan.file.capabilities.truncate;
  let length = 1;
  for (;;) {
    const start = growing ? plan.roomFor(length, clusterSize) : freeRun(parts, length);
    const blocks = new Set(used);
    for (let index = Math.floor(start / entries); index * entries < start + length; index++) {
      blocks.add(index);
    }
    const sorted = [...blocks].sort((a, b) => a - b);
    const last = sorted.at(-1);
    assert(last !== undefined, "the structure counts itself");
    const tableClusters = divideRoundUp((last + 1) * ENTRY_BYTES, clusterSize);
    if (tableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
      throw new BlockError("EFBIG", "repair: the refcount table would be too long", {
        op: "check",
      });
    }
    const needed = tableClusters + sorted.length;
    if (needed <= length) return { start, tableClusters, blocks: sorted };
    length = needed;
  }
}

/** Indices of the blocks that count a cluster in use. */
function usedBlocks(parts: RebuildParts): Set<number> {
  const { references, stored, before, geometry } = parts;
  const entries = geometry.refcountBlockEntries;
  const used = new Set<number>();
  for (const counters of [references.counters, stored.counters, before]) {
    for (const chunk of counters.chunkIndices()) {
      const end = Math.min((chunk + 1) * CHUNK_LENGTH, references.clusterCount);
      for (let cluster = chunk * CHUNK_LENGTH; cluster < end; ) {
        const index = Math.floor(cluster / entries);
        if (used.has(index)) cluster = (index + 1) * entries;
        else if (counters.get(cluster) > 0) used.add(index);
        else cluster++;
      }
    }
  }
  return used;
}

/** The first run of clusters that are free by both counts. */
function freeRun(parts: RebuildParts, length: number): number {
  let free = 0;
  const whole = parts.references.wholeClusterCount;
  for (let cluster = 1; cluster < whole; cluster++) {
    free = countOf(parts, cluster) === 0 ? free + 1 : 0;
    if (free === length) return cluster - length + 1;
  }
  throw new BlockError(
    "ENOSPC",
    `repair: the new refcounts need ${length} free clusters in a row; '${parts.plan.file.nodeName}' has none and cannot grow`,
    { op: "check" },
  );
}

function blockOf(parts: RebuildParts, structure: Structure, index: number): Uint8Array {
  const { geometry, references } = parts;
  const entries = geometry.refcountBlockEntries;
  const block = new Uint8Array(geometry.clusterSize);
  const first = index * entries;
  const end = Math.min(first + entries, references.clusterCount);
  for (let cluster = first; cluster < end; cluster++) {
    const count = countOf(parts, cluster);
    if (count > 0) setRefcount(geometry, block, cluster - first, count);
  }
  const { start, tableClusters, blocks } = structure;
  const structureEnd = start + tableClusters + blocks.length;
  const stop = Math.min(structureEnd, first + entries);
  for (let cluster = Math.max(first, start); cluster < stop; cluster++) {
    setRefcount(geometry, block, cluster - first, 1);
  }
  return block;
}
