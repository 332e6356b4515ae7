/**
 * The numbers that follow from a header, and the bits of table entries.
 *
 * Above: everything in this package. Below: nothing; no I/O, no state.
 *
 * 1. Offsets are bytes. The three kinds of offset below take plain numbers but not each other.
 * 2. A 64-bit entry is handled as two unsigned 32-bit halves: shifts and masks stay exact, and the
 *    hot path makes no BigInt.
 * 3. Decoded offsets can lie beyond 2^53 - 1 (an entry has 56 bits). They are exact all the same,
 *    since the low nine bits are zero; whoever uses one compares it with `maxHostOffset` first.
 *
 * What the bitmap of an extended L2 entry says is in mapping/subclusters.ts.
 *
 * Source: the qcow2 specification, "Header", "Host cluster management", "Cluster mapping".
 */
import { alignDown, divideRoundUp, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { RefcountBits } from "@blocklayer/metadata-cache";
import { hasFeature, INCOMPATIBLE, type Qcow2Header } from "./header/header.js";

/** A byte of the virtual disk. */
export type GuestOffset = number & { readonly offsetKind?: "guest" };
/** A byte of the image file. */
export type HostOffset = number & { readonly offsetKind?: "host" };
/** A cluster of the image file, counted from its start. */
export type ClusterIndex = number & { readonly offsetKind?: "cluster" };

export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
export const MAX_REFCOUNT_ORDER = 6;
/** An active L1 table is at most this long, as in QEMU: 32 MiB. */
export const MAX_L1_BYTES: number = 32 * 2 ** 20;
/** A refcount table is at most this long, as in QEMU: 8 MiB. */
export const MAX_REFCOUNT_TABLE_BYTES: number = 8 * 2 ** 20;
export const MAX_SNAPSHOTS = 65536;
/** Bytes of a snapshot table entry without its variable part. */
export const SNAPSHOT_HEADER_BYTES = 40;
/** L1, L2 (without subclusters) and refcount-table entries. */
export const ENTRY_BYTES = 8;
/** L2 entries with a subcluster bitmap behind them. */
export const EXTENDED_ENTRY_BYTES = 16;
/** Subclusters of a cluster in an image with extended L2 entries. */
export const EXTENDED_SUBCLUSTERS = 32;
/** The smallest clusters with extended L2 entries: a subcluster has a sector at least. */
export const MIN_EXTENDED_CLUSTER_BITS = 14;

const TWO_POW_32 = 2 ** 32;

/** Bit 63 in the high half: the refcount is exactly one. */
export const COPIED_HIGH = 0x8000_0000;
/** Bit 62 in the high half of an L2 entry: the cluster is compressed. */
export const COMPRESSED_HIGH = 0x4000_0000;
/** Bit 0 in the low half of an L2 entry: the cluster reads as zeroes. Version 3 without extended entries only. */
export const ZERO_LOW = 1;
/** Bits 32 to 55: the part of a host offset that lies in the high half. */
export const OFFSET_HIGH_MASK = 0x00ff_ffff;
/** Bits 9 to 31: the part of a host offset that lies in the low half. Use with `>>> 0`. */
export const OFFSET_LOW_MASK = 0xffff_fe00;
/** Bits of an L1 entry that must be zero: 56 to 62, 0 to 8. */
export const L1_RESERVED_HIGH = 0x7f00_0000;
export const L1_RESERVED_LOW = 0x0000_01ff;
/** Bits of a standard L2 entry that must be zero: 56 to 61, 1 to 8. */
export const L2_RESERVED_HIGH = 0x3f00_0000;
export const L2_RESERVED_LOW = 0x0000_01fe;
/** Bits of a refcount table entry that must be zero: 0 to 8. */
export const REFCOUNT_TABLE_RESERVED_LOW = 0x0000_01ff;

/**
 * What an L2 entry says of its guest cluster, or of one of its subclusters. Small integers, for
 * switches in hot loops.
 */
export const ENTRY_KIND = {
  /** The backing file shows through, or zeroes. */
  unallocated: 0,
  /** Reads as zeroes; no host cluster. */
  zeroPlain: 1,
  /** Reads as zeroes; a host cluster is set aside. */
  zeroAllocated: 2,
  /** Data at the host offset. */
  normal: 3,
  /** A deflate or zstd stream at the descriptor's offset. */
  compressed: 4,
  /** The entry is corrupt: the zero flag of version 2, where it is reserved, or an impossible bitmap. */
  invalid: 5,
  /** As unallocated; a host cluster is set aside, in which other subclusters may have data. */
  unallocatedHosted: 6,
} as const;

/** One of the values of ENTRY_KIND. */
export type EntryKind = (typeof ENTRY_KIND)[keyof typeof ENTRY_KIND];

/** Whether the backing file shows through, or zeroes. */
export function isUnallocated(kind: EntryKind): boolean {
  return kind === ENTRY_KIND.unallocated || kind === ENTRY_KIND.unallocatedHosted;
}

/** Whether zeroes are read because the entry says so. */
export function isZero(kind: EntryKind): boolean {
  return kind === ENTRY_KIND.zeroPlain || kind === ENTRY_KIND.zeroAllocated;
}

/** Sizes and counts of one image. Plain numbers, computed once when it opens. */
export interface Geometry {
  readonly version: 2 | 3;
  /** Guest data lies in a file of its own, each cluster at its guest offset. */
  readonly externalData: boolean;
  /** Bytes of the disk. A part of a sector at the end of the header's size is left off, as in QEMU. */
  readonly virtualSize: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Bytes of one L2 entry: 16 where each has a subcluster bitmap. */
  readonly l2EntrySize: 8 | 16;
  /**
   * The parts of a cluster that are allocated each on its own: 32 with extended L2 entries; else 1,
   * the cluster itself.
   */
  readonly subclusters: 1 | 32;
  readonly subclusterBits: number;
  readonly subclusterSize: number;
  /** A bit for each subcluster of a cluster. */
  readonly allSubclusters: 1 | 0xffff_ffff;
  /** Binary logarithm of `l2Entries`. */
  readonly l2Bits: number;
  /** Entries of one L2 table, which is one cluster long. */
  readonly l2Entries: number;
  /** Bytes of the virtual disk that one L2 table maps. */
  readonly l2CoverageBytes: number;
  /** L1 entries that the header's size needs; the header's table may have more: they map VM state. */
  readonly l1Size: number;
  /** Where VM state begins, counted like bytes of the disk: behind all that `l1Size` entries map. */
  readonly vmStateOffset: GuestOffset;
  readonly refcountOrder: number;
  /** Width of a refcount: 1 to 64 bits. */
  readonly refcountBits: RefcountBits;
  /** Binary logarithm of `refcountBlockEntries`. */
  readonly refcountBlockBits: number;
  /** Refcounts in one refcount block, which is one cluster long. */
  readonly refcountBlockEntries: number;
  /** The largest refcount that can be stored, or 2^53 - 1 when the width allows more. */
  readonly maxRefcount: number;
  /** Where the sector count of a compressed descriptor begins, in the high half. */
  readonly compressedShift: number;
  /** Compressed data lies below this, whatever else the file holds. */
  readonly maxCompressedOffset: number;
  /** No table entry can name a byte at or above this; also within 2^53 - 1. */
  readonly maxHostOffset: number;
  /** Host clusters that a refcount table of the largest size can count, below `maxHostOffset`. */
  readonly maxHostClusters: number;
}

/** The part of a header that decides the geometry. */
export type GeometrySource = Pick<
  Qcow2Header,
  "version" | "clusterBits" | "virtualSize" | "refcountOrder" | "incompatible"
>;

/**
 * Computes the geometry of an image.
 *
 * Requires: the header was decoded, or built within the same bounds.
 */
export function geometryOf(header: GeometrySource): Geometry {
  const { version, clusterBits, virtualSize, refcountOrder } = header;
  const clusterSize = 2 ** clusterBits;
  const extended = hasFeature(header.incompatible, INCOMPATIBLE.extendedL2);
  const l2EntrySize = extended ? EXTENDED_ENTRY_BYTES : ENTRY_BYTES;
  const subclusters = extended ? EXTENDED_SUBCLUSTERS : 1;
  const l2Bits = clusterBits - (extended ? 4 : 3);
  const l2CoverageBytes = clusterSize * 2 ** l2Bits;
  const refcountBits = (2 ** refcountOrder) as RefcountBits;
  const refcountBlockBits = clusterBits + 3 - refcountOrder;
  const refcountBlockEntries = 2 ** refcountBlockBits;
  const l1Size = divideRoundUp(virtualSize, l2CoverageBytes);
  const maxHostOffset = 2 ** 53 - clusterSize;
  const compressedShift = 62 - (clusterBits - 8) - 32;
  return {
    version,
    externalData: hasFeature(header.incompatible ?? 0n, INCOMPATIBLE.dataFile),
    virtualSize: alignDown(virtualSize, SECTOR_SIZE_BYTES),
    clusterBits,
    clusterSize,
    l2EntrySize,
    subclusters,
    subclusterBits: clusterBits - (extended ? 5 : 0),
    subclusterSize: clusterSize / subclusters,
    allSubclusters: extended ? 0xffff_ffff : 1,
    l2Bits,
    l2Entries: 2 ** l2Bits,
    l2CoverageBytes,
    l1Size,
    vmStateOffset: l1Size * l2CoverageBytes,
    refcountOrder,
    refcountBits,
    refcountBlockBits,
    refcountBlockEntries,
    maxRefcount: refcountBits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** refcountBits - 1,
    compressedShift,
    maxCompressedOffset: Math.min(maxHostOffset, 2 ** (compressedShift + 32)),
    maxHostOffset,
    maxHostClusters: Math.min(
      (MAX_REFCOUNT_TABLE_BYTES / ENTRY_BYTES) * refcountBlockEntries,
      maxHostOffset / clusterSize,
    ),
  };
}

/** The part of a geometry that decides what an L2 entry means. */
export type EntryRules = Pick<Geometry, "version" | "externalData">;

/**
 * What kind of L2 entry two halves are, without subclusters. Reserved bits are not looked at.
 *
 * Offset 0 is the header, and stands for "no cluster"; in an external data file it is the first cluster, and
 * bit 63 tells whether the entry names it. With the zero flag it does not, as for QEMU: nothing hangs on that.
 */
export function entryKind(
  high: number,
  low: number,
  { version, externalData }: EntryRules,
): EntryKind {
  if ((high & COMPRESSED_HIGH) !== 0) return ENTRY_KIND.compressed;
  const hasOffset = (high & OFFSET_HIGH_MASK) !== 0 || (low & OFFSET_LOW_MASK) !== 0;
  if ((low & ZERO_LOW) !== 0) {
    if (version < 3) return ENTRY_KIND.invalid;
    return hasOffset ? ENTRY_KIND.zeroAllocated : ENTRY_KIND.zeroPlain;
  }
  const isNamed = hasOffset || (externalData && (high & COPIED_HIGH) !== 0);
  return isNamed ? ENTRY_KIND.normal : ENTRY_KIND.unallocated;
}

/**
 * Whether an entry without an offset names the first cluster of an external data file: bit 63 tells it, save with
 * the zero flag, which extended entries do not have.
 *
 * Requires: the entry is not compressed, and its offset is 0.
 */
export function namesFirstExternal(
  high: number,
  low: number,
  { externalData, subclusters }: Pick<Geometry, "externalData" | "subclusters">,
): boolean {
  return externalData && isCopied(high) && (subclusters > 1 || (low & ZERO_LOW) === 0);
}

/**
 * Bits 9 to 55 of an L1 or standard L2 entry.
 *
 * @returns the exact offset, which may be above 2^53 - 1: compare with `maxHostOffset`
 */
export function hostOffsetOf(high: number, low: number): HostOffset {
  return (high & OFFSET_HIGH_MASK) * TWO_POW_32 + ((low & OFFSET_LOW_MASK) >>> 0);
}

/** Where the external data file has a guest cluster: at the same offset. */
export function externalOffsetOf(guestOffset: GuestOffset): HostOffset {
  const offset: number = guestOffset;
  return offset;
}

/** The guest offset of a byte of the external data file. */
export function guestOffsetOf(externalOffset: HostOffset): GuestOffset {
  const offset: number = externalOffset;
  return offset;
}

/** Whether bit 63 is set: the entry's owner may write in place. */
export function isCopied(high: number): boolean {
  return (high & COPIED_HIGH) !== 0;
}

/**
 * First byte of a compressed cluster's data.
 *
 * @returns the offset, which may be above 2^53 - 1 and then inexact: compare with `maxHostOffset`
 */
export function compressedOffsetOf(geometry: Geometry, high: number, low: number): HostOffset {
  return (high & (2 ** geometry.compressedShift - 1)) * TWO_POW_32 + low;
}

/** 512-byte sectors that a compressed cluster touches: at least 1. */
export function compressedSectorsOf(geometry: Geometry, high: number): number {
  return ((high & 0x3fff_ffff) >>> geometry.compressedShift) + 1;
}

/**
 * Bytes from a compressed cluster's first byte to the end of its last sector. The stream may end
 * earlier, and the next one may begin in the same sector.
 */
export function compressedLengthOf(geometry: Geometry, high: number, low: number): number {
  return compressedSectorsOf(geometry, high) * 512 - (low & 511);
}

/** High half of a standard L2 entry, or of an L1 entry. */
export function standardEntryHigh(hostOffset: HostOffset, copied: boolean): number {
  const high = Math.floor(hostOffset / TWO_POW_32);
  return copied ? (high | COPIED_HIGH) >>> 0 : high;
}

/** Low half of a standard L2 entry (`zero`: with the zero flag), or of an L1 entry. */
export function standardEntryLow(hostOffset: HostOffset, zero = false): number {
  const low = hostOffset % TWO_POW_32;
  return zero ? (low | ZERO_LOW) >>> 0 : low;
}

/**
 * High half of a compressed L2 entry.
 *
 * Requires: `hostOffset < maxCompressedOffset`; `0 < lengthBytes`, at most a cluster and a sector.
 */
export function compressedEntryHigh(
  geometry: Geometry,
  hostOffset: HostOffset,
  lengthBytes: number,
): number {
  const first = Math.floor(hostOffset / 512);
  const last = Math.floor((hostOffset + lengthBytes - 1) / 512);
  const sectors = (last - first) * 2 ** geometry.compressedShift;
  return COMPRESSED_HIGH + sectors + Math.floor(hostOffset / TWO_POW_32);
}

/** Low half of a compressed L2 entry. */
export function compressedEntryLow(hostOffset: HostOffset): number {
  return hostOffset % TWO_POW_32;
}
