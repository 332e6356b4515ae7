/**
 * Changing refcounts where they lie.
 *
 * Above: repair.ts. Below: planned-file.ts, the counters of a check.
 *
 * 1. Raising and lowering are two passes: a repair raises first, and lowers when nothing names the clusters any more.
 * 2. A block is read, changed and written; a crash within leaves some counts old and some new, all of which are
 *    between the old and the new.
 * 3. `stored` follows what the file has, so that a later pass sees what an earlier one did.
 */
import { viewOf, writeU64 } from "@blocklayer/bytes";
import { writeRefcount } from "@blocklayer/metadata-cache";
import { CHUNK_LENGTH } from "../check/counters.js";
import type { References } from "../check/references.js";
import type { StoredRefcounts } from "../check/stored-refcounts.js";
import type { Geometry } from "../geometry.js";
import type { PlannedFile } from "./planned-file.js";

/** What is compared, and where it is written. */
export interface RefcountParts {
  readonly geometry: Geometry;
  readonly references: References;
  readonly stored: StoredRefcounts;
  readonly plan: PlannedFile;
}

/** Hears of every cluster before its refcount changes. */
export type RefcountNote = (cluster: number, refcount: number, references: number) => void;

/** Which refcounts a pass changes. */
export type Direction = "raise" | "lower";

/**
 * Gives every cluster of the file the refcount that its references ask for, if that means going in this direction.
 *
 * Requires: every block that counts a cluster to be changed lies in the file, and nothing else lies there.
 *
 * @returns how many refcounts were changed, all of them durably
 */
export async function changeRefcounts(
  parts: RefcountParts,
  direction: Direction,
  note: RefcountNote,
): Promise<number> {
  const { geometry, references, stored, plan } = parts;
  const { refcountBlockEntries: entries, clusterSize } = geometry;
  let changed = 0;
  for (const { index, hostOffset } of stored.entries) {
    const first = index * entries;
    const end = Math.min(first + entries, references.clusterCount);
    if (first >= end || stored.isUnknown(index)) continue;
    const clusters = differences(parts, first, end, direction);
    if (clusters.length === 0) continue;
    const block = await plan.readWritten(hostOffset, clusterSize);
    for (const cluster of clusters) {
      const count = references.counters.get(cluster);
      note(cluster, stored.counters.get(cluster), count);
      setRefcount(geometry, block, cluster - first, count);
      stored.counters.set(cluster, count);
    }
    await plan.writeThrough(hostOffset, block);
    changed += clusters.length;
  }
  if (changed > 0) await plan.file.flush();
  return changed;
}

/** Sets one refcount of a block, also a wide one. */
export function setRefcount(
  { refcountBits }: Geometry,
  block: Uint8Array,
  at: number,
  count: number,
): void {
  if (refcountBits === 64) writeU64(viewOf(block), at * 8, count);
  else writeRefcount(block, refcountBits, at, count);
}

/** The clusters of one block that differ, at most as many as the block counts. */
function differences(
  { references, stored }: RefcountParts,
  first: number,
  end: number,
  direction: Direction,
): number[] {
  const clusters: number[] = [];
  for (let start = first; start < end; ) {
    const chunk = Math.floor(start / CHUNK_LENGTH);
    const stop = Math.min(end, (chunk + 1) * CHUNK_LENGTH);
    const has = stored.counters.chunk(chunk);
    const wants = references.counters.chunk(chunk);
    if (has !== undefined || wants !== undefined) {
      const base = chunk * CHUNK_LENGTH;
      for (let cluster = start; cluster < stop; cluster++) {
        const stays = has?.[cluster - base] ?? 0;
        const comes = wants?.[cluster - base] ?? 0;
        if (direction === "raise" ? stays < comes : stays > comes) clusters.push(cluster);
      }
    }
    start = stop;
  }
  return clusters;
}
