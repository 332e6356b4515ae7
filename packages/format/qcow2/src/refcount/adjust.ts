/**
 * Raising and lowering the refcounts of many clusters at once, each by a number of its own.
 *
 * Above: snapshot/. Below: the refcount cache, free.ts.
 *
 * 1. What could go wrong is found before anything is changed: `refuseRaise`, `refuseLower`. A failure after that is
 *    one of the file.
 * 2. Clusters are worked off from the lowest up, block by block, so that a failure leaves a number: all below it are
 *    changed, the others not.
 *
 * Locking: the image lock is held throughout.
 */
import { CorruptImageError, hex } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import { CHUNK_LENGTH, type Counters } from "../check/counters.js";
import type { ClusterIndex } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { refcountsWillChange } from "../writeback/dirty-bit.js";
import { becameFree, type DropReason } from "./free.js";
import { OVERLAP } from "./overlap.js";
import { getRefcountBlock } from "./stored.js";

/** Structures that belong to a disk or a snapshot, and go with it. */
const GUEST_KINDS = OVERLAP.activeL2 | OVERLAP.inactiveL1 | OVERLAP.inactiveL2;

/** How far a change came: every cluster below is done. */
export interface Progress {
  done: ClusterIndex;
}

/** What to do with one cluster. `index`: of its count in the block; `count`: how many references it is about. */
type Visit = (block: Table, index: number, cluster: ClusterIndex, count: number) => void;

/**
 * Makes sure that refcounts can be raised.
 *
 * @param full - the error to throw for a cluster whose refcount has no room
 * @throws CorruptImageError when a refcount is 0 though a table names the cluster
 */
export async function refuseRaise(
  image: Qcow2Image,
  counts: Counters,
  full: (cluster: ClusterIndex) => Error,
): Promise<void> {
  const { maxRefcount } = image.geometry;
  await eachCounted(image, counts, Infinity, (block, index, cluster, count) => {
    const stored = image.refcounts.getRefcount(block, index);
    if (stored === 0) throw inUseAndFree(image, cluster);
    if (stored + count > maxRefcount) throw full(cluster);
  });
}

/**
 * Makes sure that refcounts can be lowered.
 *
 * @param raised - by how much they will have been raised before
 * @throws CorruptImageError when one is too small for that
 */
export async function refuseLower(
  image: Qcow2Image,
  counts: Counters,
  raised?: Counters,
): Promise<void> {
  await eachCounted(image, counts, Infinity, (block, index, cluster, count) => {
    const stored = image.refcounts.getRefcount(block, index) + (raised?.get(cluster) ?? 0);
    if (stored < count) throw inUseAndFree(image, cluster, stored);
    if (stored === count) refuseFreeingMetadata(image, cluster);
  });
}

/** Tables that lie about what they name must not free what the image stands on. */
function refuseFreeingMetadata(image: Qcow2Image, cluster: ClusterIndex): void {
  const { clusterSize } = image.geometry;
  const at = cluster * clusterSize;
  const structure = image.overlap.structureAt(at, clusterSize, GUEST_KINDS);
  if (structure === undefined) return;
  const rule = "an L1 or L2 table names it as a table or data of the guest";
  throw new CorruptImageError({ structure, hostOffset: at, rule });
}

/** Raises refcounts. Requires: `refuseRaise` did not throw, and nothing changed since. */
export async function raiseBy(
  image: Qcow2Image,
  counts: Counters,
  progress: Progress,
): Promise<void> {
  const { refcounts } = image;
  await refcountsWillChange(image);
  await eachCounted(image, counts, Infinity, (block, index, cluster, count) => {
    refcounts.setRefcount(block, index, refcounts.getRefcount(block, index) + count);
    progress.done = cluster + 1;
  });
}

/**
 * Lowers refcounts; clusters that nobody names any more are free.
 *
 * Requires: nothing on disk names the clusters for these references any more; `refuseLower` did not throw.
 *
 * @param end - clusters from here on are left alone
 */
export async function lowerBy(
  image: Qcow2Image,
  counts: Counters,
  reason: DropReason,
  end: ClusterIndex = Infinity,
): Promise<void> {
  const { refcounts } = image;
  await refcountsWillChange(image);
  let emptied: ClusterIndex[] = [];
  // A block is let go before what it emptied is forgotten, which may be the block itself.
  const settle = (): void => {
    for (const cluster of emptied) becameFree(image, cluster, reason);
    emptied = [];
  };
  await eachCounted(
    image,
    counts,
    end,
    (block, index, cluster, count) => {
      const stored = refcounts.getRefcount(block, index);
      if (stored < count) throw inUseAndFree(image, cluster, stored);
      refcounts.setRefcount(block, index, stored - count);
      if (stored === count) emptied.push(cluster);
    },
    settle,
  );
}

/** Visits the counted clusters below `end` in order, with their blocks pinned; `released` after each block. */
async function eachCounted(
  image: Qcow2Image,
  counts: Counters,
  end: ClusterIndex,
  visit: Visit,
  released: () => void = () => undefined,
): Promise<void> {
  const entries = image.geometry.refcountBlockEntries;
  for (const chunk of counts.chunkIndices()) {
    const numbers = counts.chunk(chunk);
    if (numbers === undefined) continue;
    const base = chunk * CHUNK_LENGTH;
    const step = Math.min(entries, CHUNK_LENGTH);
    for (let start = 0; start < CHUNK_LENGTH && base + start < end; start += step) {
      const part = numbers.subarray(start, start + step);
      const first = part.findIndex((count) => count !== 0);
      if (first < 0) continue;
      const block = await getRefcountBlock(image, base + start);
      if (block === undefined) throw inUseAndFree(image, base + start + first);
      try {
        for (let i = first; i < part.length && base + start + i < end; i++) {
          const count = part[i] as number;
          const cluster = base + start + i;
          if (count !== 0) visit(block, cluster % entries, cluster, count);
        }
      } finally {
        image.refcounts.release(block);
        released();
      }
    }
  }
}

function inUseAndFree(image: Qcow2Image, cluster: ClusterIndex, stored = 0): CorruptImageError {
  const { clusterSize, refcountBlockEntries } = image.geometry;
  const at = cluster * clusterSize;
  return new CorruptImageError({
    structure: "refcount block",
    hostOffset: image.refcountTable.blockOffset(Math.floor(cluster / refcountBlockEntries)),
    rule: `tables name the cluster at ${hex(at)} more often than its refcount of ${stored} says`,
    offset: at,
  });
}
