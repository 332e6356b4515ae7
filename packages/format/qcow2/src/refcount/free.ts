/**
 * Giving host clusters back.
 *
 * Above: mapping and compressed/write say what they dropped; writeback/flush.ts makes it so.
 * Below: refcount cache, inflight.ts, order.ts.
 *
 * 1. A dropped reference is first noted (`DeferredFrees`). Its refcount is lowered only after the L2
 *    entry that dropped it is durable [C3]; so a cluster can never be taken again, or discarded,
 *    while the file still shows it to an old owner [C1, D2]. One sync serves all that are noted.
 * 2. The notes are bounded: who has noted too many calls `lowerFreed` before it goes on.
 * 3. A cluster whose refcount falls to 0 leaves the caches, ends the compressed cursor [D4], and cools
 *    while requests in flight may touch it [D1].
 * 4. A discard goes to the file only for clusters that are still free and cool.
 *
 * Locking: the image lock is held throughout.
 */
import { hex } from "@blocklayer/bytes";
import type { ClusterIndex, HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { refcountsWillChange } from "../writeback/dirty-bit.js";
import { refcountsWaitForL2 } from "../writeback/order.js";
import { DamageError } from "./damage.js";
import { getRefcountBlock } from "./stored.js";

/** Ranges that may be noted before they are worked off. */
const MAX_NOTED = 8192;
/** Ranges that wait to be discarded; above this the oldest are forgotten: a discard is a hint. */
const MAX_DISCARDS = 8192;

/** Why a cluster is dropped: decides whether it is discarded in the file. */
export type DropReason = "request" | "snapshot" | "other" | "never";

/** Whether the file is told of clusters that are free now, by reason. */
export interface DiscardPolicy {
  request: boolean;
  snapshot: boolean;
  other: boolean;
}

/** A range of host bytes; every cluster that it touches counts. */
export interface Drop {
  hostOffset: HostOffset;
  lengthBytes: number;
  readonly reason: DropReason;
}

/** References that were dropped, and discards that wait. */
export class DeferredFrees {
  policy: DiscardPolicy;
  #drops: Drop[] = [];
  #discards: Drop[] = [];

  constructor(policy: DiscardPolicy) {
    this.policy = policy;
  }

  get empty(): boolean {
    return this.#drops.length === 0 && this.#discards.length === 0;
  }

  get full(): boolean {
    return this.#drops.length >= MAX_NOTED;
  }

  /** Notes that one reference to each cluster of a range was dropped from an L2 or L1 entry. */
  note(hostOffset: HostOffset, lengthBytes: number, reason: DropReason, clusterSize: number): void {
    const last = this.#drops.at(-1);
    if (
      last !== undefined &&
      last.reason === reason &&
      last.hostOffset + last.lengthBytes === hostOffset &&
      hostOffset % clusterSize === 0
    ) {
      last.lengthBytes += lengthBytes;
    } else this.#drops.push({ hostOffset, lengthBytes, reason });
  }

  takeDrops(): readonly Drop[] {
    const drops = this.#drops;
    this.#drops = [];
    return drops;
  }

  /** Puts drops back that could not be worked off. */
  restore(drops: readonly Drop[]): void {
    this.#drops = [...drops, ...this.#drops];
  }

  noteDiscard(hostOffset: HostOffset, lengthBytes: number, reason: DropReason): void {
    if (reason === "never" || !this.policy[reason]) return;
    const last = this.#discards.at(-1);
    if (last !== undefined && last.hostOffset + last.lengthBytes === hostOffset) {
      last.lengthBytes += lengthBytes;
      return;
    }
    if (this.#discards.length >= MAX_DISCARDS) this.#discards.shift();
    this.#discards.push({ hostOffset, lengthBytes, reason });
  }

  takeDiscards(): readonly Drop[] {
    const discards = this.#discards;
    this.#discards = [];
    return discards;
  }
}

/**
 * Lowers the refcounts of everything noted so far, after its drop is durable.
 *
 * Suspends: when anything is noted. Requires: no table is pinned.
 *
 * **After failure:** what was not lowered is noted again.
 */
export async function lowerFreed(image: Qcow2Image): Promise<void> {
  const drops = image.frees.takeDrops();
  if (drops.length === 0) return;
  let done = 0;
  try {
    await refcountsWaitForL2(image);
    for (; done < drops.length; done++) await lowerNow(image, drops[done] as Drop);
  } catch (error) {
    image.frees.restore(drops.slice(done));
    throw error;
  }
}

/**
 * Lowers the refcount of every cluster that a range touches.
 *
 * Requires: nothing on disk names the clusters for this reference any more.
 *
 * @param drop - what is left of it shrinks as refcounts are lowered, so that a failure can be resumed
 * @throws DamageError when one is 0 already
 */
export async function lowerNow(image: Qcow2Image, drop: Drop): Promise<void> {
  const { geometry, refcounts } = image;
  const { clusterSize, refcountBlockEntries: entries } = geometry;
  const byteEnd = drop.hostOffset + drop.lengthBytes;
  await image.event("cluster_free");
  await refcountsWillChange(image);
  const end = Math.floor((byteEnd - 1) / clusterSize) + 1;
  for (let cluster = Math.floor(drop.hostOffset / clusterSize); cluster < end; ) {
    const blockStart = cluster - (cluster % entries);
    const stop = Math.min(end, blockStart + entries);
    const block = await getRefcountBlock(image, cluster);
    if (block === undefined) throw alreadyFree(cluster, clusterSize);
    const emptied: ClusterIndex[] = [];
    try {
      for (; cluster < stop; cluster++) {
        const count = refcounts.getRefcount(block, cluster - blockStart);
        if (count === 0) throw alreadyFree(cluster, clusterSize);
        refcounts.setRefcount(block, cluster - blockStart, count - 1);
        if (count === 1) emptied.push(cluster);
      }
    } finally {
      refcounts.release(block);
      drop.hostOffset = cluster * clusterSize;
      drop.lengthBytes = Math.max(0, byteEnd - drop.hostOffset);
      for (const one of emptied) becameFree(image, one, drop.reason);
    }
  }
}

/**
 * As `lowerNow`, for what was replaced already: a failure does not undo that, and the next flush goes on
 * with what is left.
 *
 * @throws DamageError
 */
export async function lowerReplaced(image: Qcow2Image, drop: Drop): Promise<void> {
  try {
    await lowerNow(image, drop);
  } catch (error) {
    if (error instanceof DamageError) throw error;
    image.frees.restore([drop]);
  }
}

/** Gives back what was taken a moment ago, after a failure, which is what counts: one more leaves a leak. */
export async function lowerAfterFailure(
  image: Qcow2Image,
  hostOffset: HostOffset,
  lengthBytes: number,
): Promise<void> {
  try {
    if (lengthBytes > 0) await lowerNow(image, { hostOffset, lengthBytes, reason: "never" });
  } catch {
    // A leak, which a check finds.
  }
}

function alreadyFree(cluster: ClusterIndex, clusterSize: number): DamageError {
  return new DamageError({
    structure: "refcount block",
    rule: `a table names the cluster at ${hex(cluster * clusterSize)}, and its refcount is 0`,
  });
}

/** What a refcount of 0 means to the rest of the image. Requires: no table of the cluster is pinned. */
export function becameFree(image: Qcow2Image, cluster: ClusterIndex, reason: DropReason): void {
  const { clusterSize } = image.geometry;
  const { allocator } = image;
  const at = cluster * clusterSize;
  image.l2.drop(at, clusterSize);
  image.refcounts.drop(at, clusterSize);
  image.compressedCache?.drop(at);
  image.overlap.removeCluster(cluster);
  if (Math.floor(allocator.compressedCursor / clusterSize) === cluster) {
    allocator.compressedCursor = 0;
  }
  image.inFlight.freed(cluster);
  image.frees.noteDiscard(at, clusterSize, reason);
}

/** Discards in the file what is still free and cool; keeps what cools for the next flush. */
export async function passDiscards(image: Qcow2Image): Promise<void> {
  const { clusterSize, refcountBlockEntries: entries } = image.geometry;
  for (const { hostOffset, lengthBytes, reason } of image.frees.takeDiscards()) {
    const end = (hostOffset + lengthBytes) / clusterSize;
    for (let start = hostOffset / clusterSize; start < end; ) {
      const stop = Math.min(end, start - (start % entries) + entries);
      for (const run of await freeRuns(image, start, stop, reason)) {
        await discardInFile(image, run.start * clusterSize, run.end * clusterSize);
      }
      start = stop;
    }
  }
}

/** The runs of free and cool clusters in a range that one refcount block counts. */
async function freeRuns(
  image: Qcow2Image,
  start: ClusterIndex,
  end: ClusterIndex,
  reason: DropReason,
): Promise<{ start: ClusterIndex; end: ClusterIndex }[]> {
  const { refcounts, inFlight, frees, geometry } = image;
  const { clusterSize, refcountBlockEntries } = geometry;
  const runs: { start: ClusterIndex; end: ClusterIndex }[] = [];
  const block = await getRefcountBlock(image, start);
  if (block === undefined) return [{ start, end }];
  try {
    for (let cluster = start; cluster < end; cluster++) {
      if (inFlight.isCooling(cluster)) {
        frees.noteDiscard(cluster * clusterSize, clusterSize, reason);
        continue;
      }
      if (refcounts.getRefcount(block, cluster % refcountBlockEntries) !== 0) continue;
      const last = runs.at(-1);
      if (last?.end === cluster) last.end++;
      else runs.push({ start: cluster, end: cluster + 1 });
    }
  } finally {
    refcounts.release(block);
  }
  return runs;
}

async function discardInFile(image: Qcow2Image, start: HostOffset, end: HostOffset): Promise<void> {
  const length = Math.min(end, image.file.lengthBytes) - start;
  if (length <= 0 || !image.file.capabilities.discard) return;
  try {
    await image.file.discard(start, length);
  } catch {
    // A hint that the file did not take. The clusters are free all the same.
  }
}
