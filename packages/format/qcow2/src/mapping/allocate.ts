/**
 * Finding room for a write, and linking it when the bytes are there [C9, C10, C11].
 *
 * Above: write.ts, compressed/write.ts. Below: l2-tables, refcount/allocate, pending.
 *
 * A write is cut into chunks. A chunk is contiguous in the file: clusters that may be written in
 * place, then clusters that are taken right behind them, as far as both go. The order of the steps is
 * QEMU's, since it decides the layout.
 *
 * 1. A chunk never reaches into an allocation in flight; what begins in one waits for it.
 * 2. Each allocation of a chunk lies in one L2 slice.
 * 3. A write gives data to the subclusters that it touches, and to those between them and others with data
 *    where a new cluster takes the place of an old one. The rest of a cluster stays unallocated, or zero.
 * 4. Where all that is needed is in memory, nothing waits a turn: the lock is held the shorter.
 *
 * Locking: the image lock is held throughout.
 */
import { alignDown, alignUp } from "@blocklayer/bytes";
import {
  COMPRESSED_HIGH,
  compressedLengthOf,
  compressedOffsetOf,
  externalOffsetOf,
  type GuestOffset,
  guestOffsetOf,
  type HostOffset,
  hostOffsetOf,
  isCopied,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters, allocateClustersAt } from "../refcount/allocate.js";
import { lowerAfterFailure } from "../refcount/free.js";
import type { Epoch } from "../refcount/inflight.js";
import { l2WaitsForData, l2WaitsForRefcounts } from "../writeback/order.js";
import { L2Entry, storeEntry } from "./l2-entry.js";
import { entriesLeft, l2ForWrite, type L2Position } from "./l2-tables.js";
import { PendingAllocation } from "./pending.js";
import { highestOf, lowestOf, touchedSubclusters } from "./subclusters.js";

/** A part of a write that is contiguous in the file. */
export interface WriteChunk {
  readonly guestOffset: GuestOffset;
  readonly hostOffset: HostOffset;
  readonly lengthBytes: number;
  /** To be linked after the data is written. Empty: all of it is written in place. */
  readonly allocations: readonly PendingAllocation[];
  /**
   * Keeps clusters that are written in place from being taken again before they are written [D1]:
   * `settle()` it when the data is written.
   */
  readonly epoch: Epoch;
}

/** The clusters that one step adds to a chunk. */
interface Step {
  readonly hostOffset: HostOffset;
  readonly clusters: number;
  readonly allocation: PendingAllocation | undefined;
}

/** What a write still needs: whole clusters from `at` on, and in them the guest bytes `[start, end)`. */
interface Wish {
  /** Start of a cluster. */
  readonly at: GuestOffset;
  readonly start: GuestOffset;
  readonly end: GuestOffset;
}

/**
 * Finds room for as much of a write as is contiguous.
 *
 * Requires: no allocation in flight overlaps the first cluster.
 *
 * **After failure:** nothing is taken.
 */
export async function buildChunk(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  lengthBytes: number,
): Promise<WriteChunk> {
  const { clusterSize } = image.geometry;
  const inCluster = guestOffset % clusterSize;
  const first = guestOffset - inCluster;
  const clash = image.pending.firstOverlapping(first, guestOffset + lengthBytes);
  const end = clash === undefined ? guestOffset + lengthBytes : clash.guestStart;
  const allocations: PendingAllocation[] = [];
  let hostStart = -1;
  let at = first;
  try {
    while (at < end) {
      const expected = hostStart < 0 ? -1 : hostStart + (at - first);
      const wish = { at, start: Math.max(at, guestOffset), end };
      const step = await nextStep(image, wish, expected);
      if (step === undefined) break;
      if (hostStart < 0) hostStart = step.hostOffset;
      if (step.allocation !== undefined) {
        allocations.push(step.allocation);
        image.pending.add(step.allocation);
      }
      at += step.clusters * clusterSize;
    }
  } catch (error) {
    await abandon(image, allocations);
    throw error;
  }
  return {
    guestOffset,
    hostOffset: hostStart + inCluster,
    lengthBytes: Math.min(at, end) - guestOffset,
    allocations,
    epoch: image.inFlight.enter(),
  };
}

/**
 * The clusters from `at` on that can be written in place, or those that must be taken.
 *
 * @param expected - the host offset that keeps the chunk contiguous, or -1
 * @returns undefined when the clusters are elsewhere, or no cluster is free there
 */
async function nextStep(
  image: Qcow2Image,
  wish: Wish,
  expected: HostOffset,
): Promise<Step | undefined> {
  const { clusterSize } = image.geometry;
  const got = l2ForWrite(image, wish.at);
  const position = got instanceof Promise ? await got : got;
  try {
    const wanted = Math.ceil((wish.end - wish.at) / clusterSize);
    const limit = Math.min(wanted, entriesLeft(image, position.index));
    const entry = new L2Entry().loadSound(image, position.table, position.index, wish.at);
    if (entry.inPlace) {
      if (expected >= 0 && entry.hostOffset !== expected) return undefined;
      return inPlaceStep(image, position, entry, limit, wish);
    }
    let clusters = 1;
    const next = new L2Entry();
    while (clusters < limit) {
      const at = wish.at + clusters * clusterSize;
      if (next.loadSound(image, position.table, position.index + clusters, at).inPlace) break;
      clusters++;
    }
    // An external data file has a place for every cluster: as if it had been set aside.
    const { externalData } = image.geometry;
    let hostOffset = externalData ? externalOffsetOf(wish.at) : expected;
    if (externalData) {
      // Nothing is taken.
    } else if (expected < 0) hostOffset = await allocateClusters(image, clusters);
    else clusters = await allocateClustersAt(image, expected, clusters);
    if (clusters === 0) return undefined;
    next.load(image, position.table, position.index + clusters - 1);
    const step = { hostOffset, clusters, inPlace: externalData };
    return newStep(image, step, wish, entry, next);
  } finally {
    image.l2.release(position.table);
  }
}

/**
 * Clusters that go on as the first one: in place, side by side in the file, and all with data wherever the
 * write goes, or all without somewhere.
 */
function inPlaceStep(
  image: Qcow2Image,
  { table, index }: L2Position,
  first: L2Entry,
  limit: number,
  wish: Wish,
): Step {
  const { clusterSize } = image.geometry;
  const { hostOffset } = first;
  const complete = isComplete(image, first, wish, 0);
  let fresh = hasNothing(image, first, wish, 0);
  let last = first;
  let clusters = 1;
  for (; clusters < limit; clusters++) {
    const at = wish.at + clusters * clusterSize;
    const next = new L2Entry().loadSound(image, table, index + clusters, at);
    if (!next.inPlace || next.hostOffset !== hostOffset + clusters * clusterSize) break;
    if (isComplete(image, next, wish, clusters) !== complete) break;
    if (!hasNothing(image, next, wish, clusters)) fresh = false;
    last = next;
  }
  if (complete) return { hostOffset, clusters, allocation: undefined };
  const { subclusterSize } = image.geometry;
  const end = wish.at + clusters * clusterSize;
  const dataStart = hasDataAt(image, first, wish.start)
    ? wish.start
    : alignDown(wish.start, subclusterSize);
  const dataEnd = Math.min(wish.end, end);
  const data = {
    dataStart,
    dataEnd: hasDataAt(image, last, dataEnd - 1) ? dataEnd : alignUp(dataEnd, subclusterSize),
    fresh,
  };
  const allocation = new PendingAllocation(wish.at, end, hostOffset, true, data);
  return { hostOffset, clusters, allocation };
}

/** The subclusters of the wish's cluster `ahead` that the write touches. */
function touchedBy(image: Qcow2Image, { at, start, end }: Wish, ahead: number): number {
  const clusterStart = at + ahead * image.geometry.clusterSize;
  return touchedSubclusters(image.geometry, clusterStart, start, end);
}

/** Whether every subcluster that the write touches has data in the host cluster. */
function isComplete(image: Qcow2Image, entry: L2Entry, wish: Wish, ahead: number): boolean {
  return (touchedBy(image, wish, ahead) & ~entry.allocated) === 0;
}

/** Whether no subcluster that the write touches has data in the host cluster. */
function hasNothing(image: Qcow2Image, entry: L2Entry, wish: Wish, ahead: number): boolean {
  return (touchedBy(image, wish, ahead) & entry.allocated) === 0;
}

function hasDataAt(image: Qcow2Image, entry: L2Entry, guestOffset: GuestOffset): boolean {
  const { clusterSize, subclusterBits } = image.geometry;
  return (entry.allocated & (1 << ((guestOffset % clusterSize) >>> subclusterBits))) !== 0;
}

/**
 * Clusters that are new. What the old ones hold beside the write is copied, from the first subcluster that has
 * data to the last; what they hold nothing of stays as it is, unallocated or zero.
 */
function newStep(
  image: Qcow2Image,
  { hostOffset, clusters, inPlace }: Pick<Step, "hostOffset" | "clusters"> & { inPlace: boolean },
  wish: Wish,
  first: L2Entry,
  last: L2Entry,
): Step {
  const { clusterSize, subclusterSize, subclusters } = image.geometry;
  const end = wish.at + clusters * clusterSize;
  let dataStart = alignDown(wish.start, subclusterSize);
  if (first.compressed) dataStart = wish.at;
  else if (first.allocated !== 0) {
    dataStart = Math.min(dataStart, wish.at + lowestOf(first.allocated) * subclusterSize);
  }
  let dataEnd = Math.min(end, alignUp(wish.end, subclusterSize));
  if (last.compressed) dataEnd = end;
  else if (last.allocated !== 0) {
    const behind = subclusters - 1 - highestOf(last.allocated);
    dataEnd = Math.max(dataEnd, end - behind * subclusterSize);
  }
  const data = { dataStart, dataEnd, fresh: true };
  const allocation = new PendingAllocation(wish.at, end, hostOffset, inPlace, data);
  return { hostOffset, clusters, allocation };
}

/**
 * Shows the data of an allocation: sets its L2 entries, and notes what they named before.
 *
 * Requires: guest data and copied data are written [C10].
 */
export async function linkAllocation(
  image: Qcow2Image,
  allocation: PendingAllocation,
): Promise<void> {
  const { l2, geometry } = image;
  const got = l2ForWrite(image, allocation.guestStart);
  const position = got instanceof Promise ? await got : got;
  try {
    const edge = allocation.inPlace ? undefined : l2WaitsForRefcounts(image);
    if (edge instanceof Promise) await edge;
    l2WaitsForData(image);
    const clusters = allocation.lengthBytes / geometry.clusterSize;
    const entry = new L2Entry();
    for (let i = 0; i < clusters; i++) {
      const ahead = i * geometry.clusterSize;
      const index = position.index + i;
      if (allocation.inPlace) {
        entry.loadSound(image, position.table, index, allocation.guestStart + ahead);
      } else {
        entry.load(image, position.table, index);
        dropEntry(image, entry.high, entry.low);
      }
      const { dataStart, dataEnd } = allocation;
      const clusterStart = allocation.guestStart + ahead;
      const filled = touchedSubclusters(geometry, clusterStart, dataStart, dataEnd);
      storeEntry(image, position.table, index, {
        hostOffset: allocation.hostOffset + ahead,
        copied: true,
        allocated: allocation.inPlace ? entry.allocated | filled : filled,
        zeroes: entry.zeroes & ~filled,
      });
    }
  } finally {
    l2.release(position.table);
  }
}

/** Notes that an L2 entry no longer names what it did. */
export function dropEntry(
  image: Qcow2Image,
  high: number,
  low: number,
  reason: "request" | "never" = "never",
): void {
  const { geometry, frees } = image;
  const { clusterSize } = geometry;
  if ((high & COMPRESSED_HIGH) !== 0) {
    const offset = compressedOffsetOf(geometry, high, low);
    const length = compressedLengthOf(geometry, high, low);
    frees.note(offset, length, reason, clusterSize);
    image.readCache.invalidate();
    return;
  }
  const hostOffset = hostOffsetOf(high, low);
  if (geometry.externalData) {
    const named = (hostOffset !== 0 || isCopied(high)) && reason !== "never";
    if (!named || !frees.policy[reason]) return;
    image.externalData?.noteDropped(guestOffsetOf(hostOffset), clusterSize);
    return;
  }
  // A corrupt entry that straddles two clusters owns neither: counting them down could free a neighbour's.
  if (hostOffset === 0 || image.badClusterOffset(hostOffset)) return;
  frees.note(hostOffset, clusterSize, reason, clusterSize);
}

/** Gives back what was taken for data that could not be written, and lets the waiters go on. */
export async function abandon(
  image: Qcow2Image,
  allocations: readonly PendingAllocation[],
): Promise<void> {
  for (const one of allocations) {
    if (!one.inPlace) await lowerAfterFailure(image, one.hostOffset, one.lengthBytes);
  }
  for (const one of allocations) image.pending.remove(one);
}
