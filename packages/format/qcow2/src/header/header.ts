/**
 * The header of a qcow2 image as a value.
 *
 * Above: decode.ts makes one, encode.ts writes one. Nobody changes one: a new header is a copy.
 *
 * 1. `extensions` holds every header extension, in order, byte for byte: it is what encode.ts
 *    writes. `backingFormat`, `dataFilename`, `featureNames` and `unknownExtensions` are views that decode.ts read
 *    out of it.
 * 2. `backingFilenameBytes` is the name as stored, since a file name need not be UTF-8;
 *    `backingFilename` is the same for people and for opening.
 * 3. What a newer version put behind the fields that we know is in `unknownFields`, and is kept.
 *
 * Source: the qcow2 specification, "Header", "Header extensions".
 */
import type { HostOffset } from "../geometry.js";

/** "QFI" and 0xfb, as a big-endian number. */
export const QCOW2_MAGIC = 0x5146_49fb;
/** Version 2 headers end here. */
export const V2_HEADER_BYTES = 72;
/** The least that a version 3 header has: up to `header_length`. */
export const V3_MIN_HEADER_BYTES = 104;
/** Up to `compression_type` and its padding: the header that we write. */
export const V3_HEADER_BYTES = 112;
/** Where `compression_type` lies. */
export const COMPRESSION_TYPE_POSITION = 104;
/** Longest backing file name, in bytes. */
export const MAX_BACKING_NAME_BYTES = 1023;
/** Longest backing format name, in bytes: QEMU keeps it in 16 with the closing zero. */
export const MAX_BACKING_FORMAT_BYTES = 15;

/** Types of header extension. */
export const EXTENSION = {
  end: 0,
  backingFormat: 0xe279_2aca,
  featureNames: 0x6803_f857,
  bitmaps: 0x2385_2875,
  encryption: 0x0537_be77,
  dataFile: 0x4441_5441,
} as const;

/** Bits of `incompatible`. */
export const INCOMPATIBLE = {
  dirty: 1n,
  corrupt: 2n,
  dataFile: 4n,
  compressionType: 8n,
  extendedL2: 16n,
} as const;

/** Bits of `compatible`. */
export const COMPATIBLE = { lazyRefcounts: 1n } as const;

/** Bits of `autoclear`. */
export const AUTOCLEAR = { bitmaps: 1n, rawDataFile: 2n } as const;

/** Values of `compressionType`. */
export const COMPRESSION_TYPE = { zlib: 0, zstd: 1 } as const;

/** One header extension, whatever its type. */
export interface HeaderExtension {
  readonly type: number;
  /** Without the padding to a multiple of eight. */
  readonly data: Uint8Array;
}

/** Which of the three feature sets a name belongs to. */
export type FeatureSet = "incompatible" | "compatible" | "autoclear";

/** One row of the feature name table. */
export interface FeatureName {
  readonly set: FeatureSet;
  /** 0 to 63. */
  readonly bit: number;
  readonly name: string;
}

/** A header within the bounds that decode.ts checks. Offsets and lengths are bytes. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  /** Where the backing file name lies; 0: the image has none. */
  readonly backingFileOffset: HostOffset;
  readonly backingFileSize: number;
  readonly backingFilenameBytes?: Uint8Array;
  readonly backingFilename?: string;
  readonly clusterBits: number;
  /** As stored. The disk ends with the last whole sector of it: see `Geometry.virtualSize`. */
  readonly virtualSize: number;
  /** 0: none, 1: AES, 2: LUKS. */
  readonly cryptMethod: number;
  /** Entries of the active L1 table; at least what the virtual size needs. */
  readonly l1Size: number;
  readonly l1TableOffset: HostOffset;
  readonly refcountTableOffset: HostOffset;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: HostOffset;
  /** Feature bits, see INCOMPATIBLE, COMPATIBLE and AUTOCLEAR. Zero in version 2. */
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  /** Binary logarithm of the refcount width. 4 in version 2. */
  readonly refcountOrder: number;
  readonly headerLength: number;
  /** A value of COMPRESSION_TYPE. */
  readonly compressionType: number;
  /** The bytes from `compression_type`'s padding to `header_length`. Empty when there are none. */
  readonly unknownFields: Uint8Array;
  readonly extensions: readonly HeaderExtension[];
  readonly backingFormat?: string;
  /** The external data file as the image names it. */
  readonly dataFilename?: string;
  readonly featureNames: readonly FeatureName[];
  readonly unknownExtensions: readonly HeaderExtension[];
}

/** Whether the data file alone shows the disk: the bit means nothing without a data file. */
export function hasRawDataFile(header: Pick<Qcow2Header, "incompatible" | "autoclear">): boolean {
  return (
    hasFeature(header.incompatible, INCOMPATIBLE.dataFile) &&
    hasFeature(header.autoclear, AUTOCLEAR.rawDataFile)
  );
}

/** Whether a feature bit is set. */
export function hasFeature(features: bigint, bit: bigint): boolean {
  return (features & bit) !== 0n;
}
