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
 *
 * Locking: the image lock is held throughout.
 */
import {
  ENTRY_KIND,
  type EntryKind,
  entryKind,
  externalOffsetOf,
  type GuestOffset,
  guestOffsetOf,
  type HostOffset,
  hostOffsetOf,
  isCopied,
  standardEntryHigh,
  standardEntryLow,
  compressedLengthOf,
  compressedOffsetOf,
} from "../geometry.js";
import { hex } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { allocateClusters, allocateClustersAt } from "../refcount/allocate.js";
import { lowerAfterFailure } from "../refcount/free.js";
import type { Epoch } from "../refcount/inflight.js";
import { l2WaitsForData, l2WaitsForRefcounts } from "../writeback/order.js";
import { entriesLeft, l2ForWrite, type L2Position } from "./l2-tables.js";
import { badEntry } from "./lookup.js";
import { PendingAllocation } from "./pending.js";

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
      const step = await nextStep(image, at, end, expected);
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
  at: GuestOffset,
  end: GuestOffset,
  expected: HostOffset,
): Promise<Step | undefined> {
  const { clusterSize, externalData } = image.geometry;
  const position = await l2ForWrite(image, at);
  try {
    const wanted = Math.ceil((end - at) / clusterSize);
    const limit = Math.min(wanted, entriesLeft(image, position.index));
    const entry = readEntry(image, position, 0);
    if (entry.inPlace) {
      if (expected >= 0 && entry.hostOffset !== expected) return undefined;
      const clusters = countInPlace(image, position, entry, limit);
      if (entry.kind === ENTRY_KIND.normal) {
        return { hostOffset: entry.hostOffset, clusters, allocation: undefined };
      }
      return step(at, entry.hostOffset, clusters, clusterSize, true);
    }
    let clusters = 1;
    while (clusters < limit && !readEntry(image, position, clusters).inPlace) clusters++;
    // An external data file has a place for every cluster: as if it had been set aside.
    if (externalData) return step(at, externalOffsetOf(at), clusters, clusterSize, true);
    if (expected < 0) {
      return step(at, await allocateClusters(image, clusters), clusters, clusterSize, false);
    }
    const taken = await allocateClustersAt(image, expected, clusters);
    return taken === 0 ? undefined : step(at, expected, taken, clusterSize, false);
  } finally {
    image.l2.release(position.table);
  }
}

function step(
  at: GuestOffset,
  hostOffset: HostOffset,
  clusters: number,
  clusterSize: number,
  inPlace: boolean,
): Step {
  const end = at + clusters * clusterSize;
  return { hostOffset, clusters, allocation: new PendingAllocation(at, end, hostOffset, inPlace) };
}

/** What a writer needs to know of an entry. */
interface WriteEntry {
  readonly kind: EntryKind;
  readonly hostOffset: HostOffset;
  /** It has a cluster that nobody shares. */
  readonly inPlace: boolean;
}

function readEntry(image: Qcow2Image, position: L2Position, ahead: number): WriteEntry {
  const { l2, geometry } = image;
  const index = position.index + ahead;
  const high = l2.entryHigh(position.table, index);
  const low = l2.entryLow(position.table, index);
  const kind = entryKind(high, low, geometry);
  if (kind === ENTRY_KIND.invalid) {
    const what = "the zero flag, which version 2 does not have";
    throw badEntry(position.table.hostOffset, index, what);
  }
  if (kind !== ENTRY_KIND.normal && kind !== ENTRY_KIND.zeroAllocated) {
    return { kind, hostOffset: 0, inPlace: false };
  }
  const hostOffset = hostOffsetOf(high, low);
  if (image.badClusterOffset(hostOffset)) {
    throw badEntry(position.table.hostOffset, index, `${hex(hostOffset)}: no cluster`);
  }
  return { kind, hostOffset, inPlace: isCopied(high) };
}

/** How many entries go on as the first one: same kind, in place, side by side in the file. */
function countInPlace(
  image: Qcow2Image,
  position: L2Position,
  first: WriteEntry,
  limit: number,
): number {
  let count = 1;
  for (; count < limit; count++) {
    const entry = readEntry(image, position, count);
    const expected = first.hostOffset + count * image.geometry.clusterSize;
    if (!entry.inPlace || entry.kind !== first.kind || entry.hostOffset !== expected) break;
  }
  return count;
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
  const position = await l2ForWrite(image, allocation.guestStart);
  try {
    if (!allocation.inPlace) await l2WaitsForRefcounts(image);
    l2WaitsForData(image);
    const clusters = allocation.lengthBytes / geometry.clusterSize;
    for (let i = 0; i < clusters; i++) {
      const index = position.index + i;
      if (!allocation.inPlace) {
        dropEntry(image, l2.entryHigh(position.table, index), l2.entryLow(position.table, index));
      }
      const hostOffset = allocation.hostOffset + i * geometry.clusterSize;
      const high = standardEntryHigh(hostOffset, true);
      l2.setEntry(position.table, index, high, standardEntryLow(hostOffset));
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
  switch (entryKind(high, low, geometry)) {
    case ENTRY_KIND.normal:
    case ENTRY_KIND.zeroAllocated: {
      const hostOffset = hostOffsetOf(high, low);
      if (geometry.externalData) {
        if (reason !== "never" && frees.policy[reason]) {
          image.externalData?.noteDropped(guestOffsetOf(hostOffset), clusterSize);
        }
        break;
      }
      // A corrupt entry that straddles two clusters owns neither: counting them down could free a neighbour's.
      if (!image.badClusterOffset(hostOffset)) {
        frees.note(hostOffset, clusterSize, reason, clusterSize);
      }
      break;
    }
    case ENTRY_KIND.compressed: {
      const offset = compressedOffsetOf(geometry, high, low);
      const length = compressedLengthOf(geometry, high, low);
      frees.note(offset, length, reason, clusterSize);
      image.readCache.invalidate();
      break;
    }
    default:
  }
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
