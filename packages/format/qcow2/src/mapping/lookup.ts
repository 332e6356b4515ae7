/**
 * Where a guest range is: one run of one kind, from tables that are in memory.
 *
 * Above: read, status, cow, the fast path of a write. Below: L1 table, L2 cache, subclusters.
 *
 * 1. `lookup` never waits and makes nothing: it answers into a Mapping that the caller keeps.
 * 2. A run stays within one L2 slice, or spans L1 entries without L2 tables. It ends where the kind
 *    changes: between clusters, or between subclusters where entries are extended.
 * 3. An answer counts until the next await, unless the image lock is held. That of `lookupSlow` is used where it is
 *    found: nobody has to know in what order turns of the event loop follow.
 *
 * Source: the qcow2 specification, "Cluster mapping" and "Extended L2 Entries".
 */
import { CorruptImageError, hex } from "@blocklayer/bytes";
import {
  COPIED_HIGH,
  EXTENDED_ENTRY_BYTES,
  ENTRY_KIND,
  type EntryKind,
  entryKind,
  externalOffsetOf,
  type GuestOffset,
  type HostOffset,
  hostOffsetOf,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { subclusterKind, subclustersAlike } from "./subclusters.js";

/** Stands for "no table" in a Mapping that has none. */
const NO_VIEW = new DataView(new ArrayBuffer(0));

/** The answer to a lookup. Made once, filled in many times. */
export class Mapping {
  kind: EntryKind = ENTRY_KIND.unallocated;
  /** Of the first byte that was asked for. Kinds normal, zeroAllocated and unallocatedHosted only. */
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
  out.index = entryIndex - sliceNumber * l2.entriesPerTable;
  out.view = table.view;
  out.copied = l1High >= COPIED_HIGH;
  if (geometry.subclusters === 1) mapClusters(image, sliceOffset, inCluster, maxBytes, out);
  else mapSubclusters(image, sliceOffset, inCluster, maxBytes, out);
  if (geometry.externalData) refuseForeignPlace(image, sliceOffset, guestOffset, out);
  return true;
}

/** Answers from entries of 8 bytes. The entry is that of `out.index` in `out.view`. */
function mapClusters(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  inCluster: number,
  maxBytes: number,
  out: Mapping,
): void {
  const { geometry } = image;
  const { view, index } = out;
  const high = view.getUint32(index * 8);
  const low = view.getUint32(index * 8 + 4);
  const kind = entryKind(high, low, geometry);
  out.kind = kind;
  if (high < COPIED_HIGH) out.copied = false;
  out.lengthBytes = geometry.clusterSize - inCluster;
  let host = 0;
  if (kind === ENTRY_KIND.normal || kind === ENTRY_KIND.zeroAllocated) {
    host = hostOffsetOf(high, low);
    if (image.badClusterOffset(host)) throw badHost(image, sliceOffset, index, host);
    out.hostOffset = host + inCluster;
  } else if (kind === ENTRY_KIND.invalid) {
    throw invalidEntry(image, sliceOffset, index);
  }
  if (out.lengthBytes < maxBytes) extendRun(image, maxBytes, host, out);
  else out.lengthBytes = maxBytes;
}

/** Answers from extended entries. The entry is that of `out.index` in `out.view`. */
function mapSubclusters(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  inCluster: number,
  maxBytes: number,
  out: Mapping,
): void {
  const { subclusterBits, subclusters } = image.geometry;
  const { view, index } = out;
  const at = index * EXTENDED_ENTRY_BYTES;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const zeroes = view.getUint32(at + 8);
  const allocated = view.getUint32(at + 12);
  const first = inCluster >>> subclusterBits;
  const { geometry } = image;
  const kind = subclusterKind(high, low, zeroes, allocated, first, geometry.externalData);
  if (kind === ENTRY_KIND.invalid) throw invalidEntry(image, sliceOffset, index);
  out.kind = kind;
  if (high < COPIED_HIGH) out.copied = false;
  let host = 0;
  if (isHosted(kind)) {
    host = hostOffsetOf(high, low);
    if (image.badClusterOffset(host)) throw badHost(image, sliceOffset, index, host);
    out.hostOffset = host + inCluster;
  }
  const end = first + subclustersAlike(kind, zeroes, allocated, first);
  out.lengthBytes = (end << subclusterBits) - inCluster;
  if (out.lengthBytes >= maxBytes) out.lengthBytes = maxBytes;
  else if (end === subclusters) extendSubclusterRun(image, maxBytes, host, out);
  if (out.lengthBytes > maxBytes) out.lengthBytes = maxBytes;
}

/** An external data file has each cluster at its guest offset, and nothing compressed. */
export function refuseForeignPlace(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  guestOffset: GuestOffset,
  { kind, hostOffset, index }: Pick<Mapping, "kind" | "hostOffset" | "index">,
): void {
  if (kind === ENTRY_KIND.compressed) {
    throw badEntry(image, sliceOffset, index, "compressed, which external data cannot be");
  }
  if (!isHosted(kind) || hostOffset === externalOffsetOf(guestOffset)) return;
  const what = `${hex(hostOffset)}: external data lies at its guest offset`;
  throw badEntry(image, sliceOffset, index, what);
}

/** Whether a run of this kind has a host offset. */
function isHosted(kind: EntryKind): boolean {
  return (
    kind === ENTRY_KIND.normal ||
    kind === ENTRY_KIND.zeroAllocated ||
    kind === ENTRY_KIND.unallocatedHosted
  );
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
  const contiguous = isHosted(kind);
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

/** As `extendRun`, for extended entries: up to the first subcluster that is of another kind. */
function extendSubclusterRun(
  image: Qcow2Image,
  maxBytes: number,
  firstHost: number,
  out: Mapping,
): void {
  const { clusterSize, subclusterBits, subclusters, externalData } = image.geometry;
  const { view, kind } = out;
  const viewEnd = view.byteLength;
  let expected = firstHost;
  let at = out.index * EXTENDED_ENTRY_BYTES;
  for (let end: number = subclusters; end === subclusters && out.lengthBytes < maxBytes; ) {
    at += EXTENDED_ENTRY_BYTES;
    if (at >= viewEnd) return;
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const zeroes = view.getUint32(at + 8);
    const allocated = view.getUint32(at + 12);
    if (subclusterKind(high, low, zeroes, allocated, 0, externalData) !== kind) return;
    if (isHosted(kind)) {
      expected += clusterSize;
      if (hostOffsetOf(high, low) !== expected) return;
      if (high < COPIED_HIGH) out.copied = false;
    }
    end = subclustersAlike(kind, zeroes, allocated, 0);
    out.lengthBytes += end << subclusterBits;
  }
}

/**
 * As `lookup`, reading the slice under the image lock if it is not in memory.
 *
 * Suspends: yes.
 *
 * @param use - starts what follows from the answer; called while the slice is pinned and the lock is held. Afterwards
 *   the mapping has no view any more
 */
export async function lookupSlow(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  maxBytes: number,
  out: Mapping,
  use: () => void,
  signal?: AbortSignal,
): Promise<void> {
  const lease = await image.lock.acquire(signal === undefined ? undefined : { signal });
  try {
    if (lookup(image, guestOffset, maxBytes, out)) {
      use();
      return;
    }
    const table = await image.l2.get(out.missing);
    try {
      lookup(image, guestOffset, maxBytes, out);
      use();
    } finally {
      image.l2.release(table);
    }
  } finally {
    out.view = NO_VIEW;
    lease.release();
  }
}

/** The error of an L2 entry that breaks a rule. */
export function badEntry(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  index: number,
  what: string,
): CorruptImageError {
  return new CorruptImageError({
    structure: "L2 table",
    hostOffset: sliceOffset + index * image.geometry.l2EntrySize,
    rule: `the entry is ${what}`,
  });
}

/** The error of an L2 entry whose host offset is not that of a cluster. */
export function badHost(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  index: number,
  host: HostOffset,
): CorruptImageError {
  return badEntry(image, sliceOffset, index, `${hex(host)}: no cluster`);
}

/** The error of an L2 entry of kind invalid. */
export function invalidEntry(
  image: Qcow2Image,
  sliceOffset: HostOffset,
  index: number,
): CorruptImageError {
  const what =
    image.geometry.subclusters === 1
      ? "the zero flag, which version 2 does not have"
      : "a bitmap with subclusters that are allocated and zero, or allocated nowhere";
  return badEntry(image, sliceOffset, index, what);
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
