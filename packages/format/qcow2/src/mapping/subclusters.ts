/**
 * What an extended L2 entry says of each subcluster: arithmetic of bitmaps, without I/O.
 *
 * Above: lookup, l2-entry, allocate, zero. Below: geometry.
 *
 * A bitmap is two 32-bit words: `zeroes` (bits 32 to 63 on disk) and `allocated` (bits 0 to 31). Bit x of
 * each stands for subcluster x. Where clusters have no subclusters the same words have one bit, for the
 * cluster itself: writers so treat both forms of image alike.
 *
 * 1. An entry is invalid as a whole when a subcluster has both bits [C14], or is allocated while the entry
 *    names no host cluster.
 * 2. Neither bit 0 of the descriptor nor the bitmap of a compressed cluster is looked at: both are
 *    reserved, and QEMU does not look at them either.
 * 3. Masks are unsigned: they compare equal when their bits do.
 *
 * Source: the qcow2 specification, "Extended L2 Entries".
 */
import {
  COMPRESSED_HIGH,
  COPIED_HIGH,
  ENTRY_KIND,
  type EntryKind,
  EXTENDED_SUBCLUSTERS,
  type Geometry,
  type GuestOffset,
  OFFSET_HIGH_MASK,
  OFFSET_LOW_MASK,
} from "../geometry.js";

/**
 * What an extended entry says of one subcluster.
 *
 * @param externalData - offset 0 is a place too, and bit 63 tells whether the entry names it
 */
export function subclusterKind(
  high: number,
  low: number,
  zeroes: number,
  allocated: number,
  subcluster: number,
  externalData = false,
): EntryKind {
  if ((high & COMPRESSED_HIGH) !== 0) return ENTRY_KIND.compressed;
  const hosted =
    (high & OFFSET_HIGH_MASK) !== 0 ||
    (low & OFFSET_LOW_MASK) !== 0 ||
    (externalData && (high & COPIED_HIGH) !== 0);
  if ((zeroes & allocated) !== 0 || (allocated !== 0 && !hosted)) return ENTRY_KIND.invalid;
  const bit = 1 << subcluster;
  if ((allocated & bit) !== 0) return ENTRY_KIND.normal;
  if ((zeroes & bit) !== 0) return hosted ? ENTRY_KIND.zeroAllocated : ENTRY_KIND.zeroPlain;
  return hosted ? ENTRY_KIND.unallocatedHosted : ENTRY_KIND.unallocated;
}

/**
 * How many subclusters from `first` on are of one kind, in one extended entry.
 *
 * @param kind - that of `first`
 * @returns at least 1; up to the end of the cluster
 */
export function subclustersAlike(
  kind: EntryKind,
  zeroes: number,
  allocated: number,
  first: number,
): number {
  return Math.min(
    EXTENDED_SUBCLUSTERS - first,
    trailingZeros(othersThan(kind, zeroes, allocated) >>> first),
  );
}

/** A bit for each subcluster that is not of a kind, among those that one entry can have. */
function othersThan(kind: EntryKind, zeroes: number, allocated: number): number {
  switch (kind) {
    case ENTRY_KIND.normal:
      return ~allocated;
    case ENTRY_KIND.zeroPlain:
    case ENTRY_KIND.zeroAllocated:
      return ~zeroes;
    case ENTRY_KIND.unallocated:
    case ENTRY_KIND.unallocatedHosted:
      return zeroes | allocated;
    default:
      return 0;
  }
}

/** Zero bits below the lowest bit that is set; 32 when none is. */
function trailingZeros(mask: number): number {
  return mask === 0 ? 32 : 31 - Math.clz32(mask & -mask);
}

/** The bits of subclusters `[first, end)`. Requires: `0 <= first <= end <= 32`. */
export function maskOf(first: number, end: number): number {
  // Shifts count modulo 32: a mask of all 32 is made by shifting none out.
  return first === end ? 0 : ((0xffff_ffff >>> (32 - (end - first))) << first) >>> 0;
}

/** The bits of the subclusters of one cluster that guest bytes `[start, end)` touch. */
export function touchedSubclusters(
  geometry: Geometry,
  clusterStart: GuestOffset,
  start: GuestOffset,
  end: GuestOffset,
): number {
  const { clusterSize, subclusterSize } = geometry;
  const from = Math.max(0, start - clusterStart);
  const to = Math.min(clusterSize, end - clusterStart);
  if (from >= to) return 0;
  return maskOf(Math.floor(from / subclusterSize), Math.ceil(to / subclusterSize));
}

/** The lowest subcluster of a mask. Requires: it has one. */
export function lowestOf(mask: number): number {
  return trailingZeros(mask);
}

/** The highest subcluster of a mask. Requires: it has one. */
export function highestOf(mask: number): number {
  return 31 - Math.clz32(mask);
}
