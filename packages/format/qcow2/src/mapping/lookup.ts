/**
 * Where a guest range is: one run of one kind, from tables that are in memory.
 *
 * Above: read, status, cow, the fast path of a write. Below: L1 table, L2 cache.
 *
 * 1. `lookup` never waits and makes nothing: it answers into a Mapping that the caller keeps.
 * 2. A run stays within one L2 slice, or spans L1 entries without L2 tables.
 * 3. An answer counts until the next await, unless the image lock is held or an epoch of
 *    refcount/inflight.ts was entered before it.
 *
 * Source: the qcow2 specification, "Cluster mapping".
 */
import { CorruptImageError, hex } from "@blocklayer/bytes";
import {
  COPIED_HIGH,
  ENTRY_KIND,
  type EntryKind,
  entryKind,
  type GuestOffset,
  type HostOffset,
  hostOffsetOf,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { Epoch } from "../refcount/inflight.js";

/** Stands for "no table" in a Mapping that has none. */
const NO_VIEW = new DataView(new ArrayBuffer(0));

/** The answer to a lookup. Made once, filled in many times. */
export class Mapping {
  kind: EntryKind = ENTRY_KIND.unallocated;
  /** Of the first byte that was asked for. Kinds normal and zeroAllocated only. */
  hostOffset: HostOffset = 0;
  /** Length of the run from the first byte that was asked for, at most what was asked for. */
  lengthBytes = 0;
  /** Whether every entry of the run, and its L1 entry, may be written in place. */
  copied = false;
  /** The slice that the run lies in: valid until the next await. */
  view: DataView = NO_VIEW;
  /** Index in `view` of the run's first entry. */
  index = 0;
  /** Host offset of the slice that is not in memory, after a lookup that returned false. */
  missing: HostOffset = 0;
}

/**
 * Finds the run that starts at a guest offset.
 *
 * Requires: `guestOffset` lies on the disk, `maxBytes > 0`.
 *
 * @returns false when the slice is not in memory: `out.missing` says which
 * @throws CorruptImageError
 */
export function lookup(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  maxBytes: number,
  out: Mapping,
): boolean {
  const l1Index = Math.floor(guestOffset * image.perL2Coverage);
  const halves = image.l1.halves;
  const l1High = halves[2 * l1Index] as number;
  const tableOffset = hostOffsetOf(l1High, halves[2 * l1Index + 1] as number);
  if (tableOffset === 0) {
    mapUnallocatedTables(image, guestOffset, maxBytes, l1Index, out);
    return true;
  }
  const { geometry, l2 } = image;
  const cluster = Math.floor(guestOffset * image.perCluster);
  const inCluster = guestOffset - cluster * geometry.clusterSize;
  const entryIndex = cluster - l1Index * geometry.l2Entries;
  const sliceNumber = entryIndex >>> image.sliceBits;
  const sliceOffset = tableOffset + sliceNumber * l2.tableSizeBytes;
  if (image.badL2Offset(tableOffset)) throw badTable(image, l1Index, tableOffset);
  const table = l2.peek(sliceOffset);
  if (table === undefined) {
    out.missing = sliceOffset;
    return false;
  }
  const index = entryIndex - sliceNumber * l2.entriesPerTable;
  const view = table.view;
  const high = view.getUint32(index * 8);
  const low = view.getUint32(index * 8 + 4);
  const kind = entryKind(high, low, geometry);
  out.kind = kind;
  out.view = view;
  out.index = index;
  out.copied = l1High >= COPIED_HIGH && high >= COPIED_HIGH;
  out.lengthBytes = geometry.clusterSize - inCluster;
  let host = 0;
  if (kind === ENTRY_KIND.normal || kind === ENTRY_KIND.zeroAllocated) {
    host = hostOffsetOf(high, low);
    if (image.badClusterOffset(host))
      throw badEntry(sliceOffset, index, `${hex(host)}: no cluster`);
    if (geometry.externalData && host !== guestOffset - inCluster)
      throw badEntry(sliceOffset, index, `${hex(host)}: external data lies at its guest offset`);
    out.hostOffset = host + inCluster;
  } else if (kind === ENTRY_KIND.compressed && geometry.externalData) {
    throw badEntry(sliceOffset, index, "compressed, which external data cannot be");
  } else if (kind === ENTRY_KIND.invalid) {
    throw badEntry(sliceOffset, index, "the zero flag, which version 2 does not have");
  }
  if (out.lengthBytes < maxBytes) extendRun(image, maxBytes, host, out);
  else out.lengthBytes = maxBytes;
  return true;
}

/** No L2 table: the run goes on to the next L1 entry that has one. */
function mapUnallocatedTables(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  maxBytes: number,
  l1Index: number,
  out: Mapping,
): void {
  const coverage = image.geometry.l2CoverageBytes;
  const last = Math.floor((guestOffset + maxBytes - 1) * image.perL2Coverage);
  const next = image.l1.nextAllocated(l1Index + 1, last + 1);
  out.kind = ENTRY_KIND.unallocated;
  out.copied = false;
  out.view = NO_VIEW;
  out.lengthBytes = Math.min(maxBytes, next * coverage - guestOffset);
}

/** Adds the entries behind the first one, as long as they are of its kind and contiguous. */
function extendRun(image: Qcow2Image, maxBytes: number, firstHost: number, out: Mapping): void {
  const { geometry } = image;
  const { clusterSize } = geometry;
  const { view, kind } = out;
  const end = view.byteLength;
  const contiguous = kind === ENTRY_KIND.normal || kind === ENTRY_KIND.zeroAllocated;
  let expected = firstHost;
  let lengthBytes = out.lengthBytes;
  for (let at = (out.index + 1) * 8; at < end && lengthBytes < maxBytes; at += 8) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (entryKind(high, low, geometry) !== kind) break;
    if (contiguous) {
      expected += clusterSize;
      if (hostOffsetOf(high, low) !== expected) break;
      if (high < COPIED_HIGH) out.copied = false;
    }
    lengthBytes += clusterSize;
  }
  out.lengthBytes = Math.min(lengthBytes, maxBytes);
}

/**
 * As `lookup`, reading the slice under the image lock if it is not in memory.
 *
 * Suspends: yes.
 *
 * @returns an epoch that was entered before the answer: `settle()` it once the I/O has begun
 */
export async function lookupSlow(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  maxBytes: number,
  out: Mapping,
  signal?: AbortSignal,
): Promise<Epoch> {
  const lease = await image.lock.acquire(signal === undefined ? undefined : { signal });
  try {
    if (!lookup(image, guestOffset, maxBytes, out)) {
      const table = await image.l2.get(out.missing);
      try {
        lookup(image, guestOffset, maxBytes, out);
      } finally {
        image.l2.release(table);
      }
    }
    return image.inFlight.enter();
  } finally {
    lease.release();
  }
}

/** The error of an L2 entry that breaks a rule. */
export function badEntry(sliceOffset: HostOffset, index: number, what: string): CorruptImageError {
  return new CorruptImageError({
    structure: "L2 table",
    hostOffset: sliceOffset + index * 8,
    rule: `the entry is ${what}`,
  });
}

/** The error of an L1 entry that names no place for an L2 table. */
export function badTable(
  image: Qcow2Image,
  l1Index: number,
  tableOffset: HostOffset,
): CorruptImageError {
  return new CorruptImageError({
    structure: "L1 table",
    hostOffset: image.l1.hostOffset + l1Index * 8,
    rule: `entry ${l1Index} is ${hex(tableOffset)}: not the offset of a cluster`,
  });
}
