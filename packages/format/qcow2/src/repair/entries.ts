/**
 * What becomes of a table entry that breaks a rule: pure decisions about two halves of 64 bits.
 *
 * Above: mapping.ts. Below: geometry.ts.
 *
 * 1. What can still be read is kept, and its entry made to keep the rules: `repaired`.
 * 2. What cannot be read by anybody is taken out and reads as zeroes, so that an older layer does not come to light
 *    in its place: `dropped`. In a version 2 image, which has no zero flag, it is left to the caller how.
 * 3. The offsets of an external data file are not those of this one: only their alignment is judged.
 * 4. An entry that names room behind the end of the file reads as zeroes before and after.
 *
 * Extended L2 entries: what is decided here is about the first eight bytes alone; extended-entries.ts decides about the
 * bitmap behind them.
 *
 * Source: the qcow2 specification, "Cluster mapping"; what qemu-img leaves as it is, since it cannot mend it, is
 * mended by the rules above.
 */
import { hex } from "@blocklayer/bytes";
import { entryText } from "../check/l2-walk.js";
import {
  COMPRESSED_HIGH,
  compressedLengthOf,
  compressedOffsetOf,
  compressedSectorsOf,
  COPIED_HIGH,
  type Geometry,
  hostOffsetOf,
  isCopied,
  L1_RESERVED_HIGH,
  L1_RESERVED_LOW,
  L2_RESERVED_HIGH,
  L2_RESERVED_LOW,
  ZERO_LOW,
} from "../geometry.js";

/** What is to be done about an entry. */
export interface Mend {
  readonly high: number;
  readonly low: number;
  /** Whether what the entry named is lost. */
  readonly dropped: boolean;
  /** The line that says so, in QEMU's words where it has some. */
  readonly message: string;
}

/** What entries are judged by. */
export interface EntryBounds {
  readonly geometry: Geometry;
  /** Whether a reference of this many bytes lies in the file, but for the last part of a cluster. */
  contains(hostOffset: number, lengthBytes: number): boolean;
  readonly fileLengthBytes: number;
}

const SECTOR_BYTES = 512;

/** What an L1 entry should be; `undefined`: as it is. */
export function mendL1Entry(bounds: EntryBounds, high: number, low: number): Mend | undefined {
  const { clusterSize } = bounds.geometry;
  const offset = hostOffsetOf(high, low);
  if (offset === 0) {
    // Readers see no table here, and a check would take the header for one.
    const message = `L1 entry without a table: ${entryText(high, low)}`;
    return { high: 0, low: 0, dropped: false, message };
  }
  if (offset % clusterSize !== 0) {
    const why = `l2_offset=${offset.toString(16)}: Table is not cluster aligned; L1 entry corrupted`;
    return { high: 0, low: 0, dropped: true, message: why };
  }
  if (!bounds.contains(offset, clusterSize)) {
    const why = `L1 entry ${entryText(high, low)}: the L2 table lies behind the end of the file`;
    return { high: 0, low: 0, dropped: true, message: why };
  }
  if ((high & L1_RESERVED_HIGH) === 0 && (low & L1_RESERVED_LOW) === 0) return undefined;
  return {
    high: (high & ~L1_RESERVED_HIGH) >>> 0,
    low: (low & ~L1_RESERVED_LOW) >>> 0,
    dropped: false,
    message: `L1 entry with reserved bits set: ${entryText(high, low)}`,
  };
}

/** What a (standard or compressed) L2 entry should be; `undefined`: as it is. */
export function mendL2Entry(bounds: EntryBounds, high: number, low: number): Mend | undefined {
  if ((high & COMPRESSED_HIGH) !== 0) return mendCompressed(bounds, high, low);
  const { geometry } = bounds;
  const offset = hostOffsetOf(high, low);
  const readsAsZeroes = (low & ZERO_LOW) !== 0;
  if (offset % geometry.clusterSize !== 0) {
    const what = readsAsZeroes ? "Preallocated" : "Data";
    const rule = "cluster is not properly aligned; L2 entry corrupted.";
    const message = `offset=${offset.toString(16)}: ${what} ${rule}`;
    return { ...zeroEntry(geometry), dropped: !readsAsZeroes, message };
  }
  const isInFile = geometry.externalData || bounds.contains(offset, geometry.clusterSize);
  if (offset !== 0 && !isInFile) {
    const message = `L2 entry ${entryText(high, low)}: the cluster lies behind the end of the file`;
    return { ...zeroEntry(geometry), dropped: !readsAsZeroes, message };
  }
  if ((high & L2_RESERVED_HIGH) === 0 && (low & L2_RESERVED_LOW) === 0) return undefined;
  return {
    high: (high & ~L2_RESERVED_HIGH) >>> 0,
    low: (low & ~L2_RESERVED_LOW) >>> 0,
    dropped: false,
    message: `l2 entry with reserved bits set: ${entryText(high, low)}`,
  };
}

/** The entry of a cluster that reads as zeroes and has no place; in version 2, of one that is not there. */
export function zeroEntry({ version }: Geometry): { high: number; low: number } {
  return { high: 0, low: version < 3 ? 0 : ZERO_LOW };
}

/** A stream may end before the last sector that its entry names: what is too long is cut, and stays readable. */
function mendCompressed(bounds: EntryBounds, high: number, low: number): Mend | undefined {
  const { geometry, fileLengthBytes } = bounds;
  if (geometry.externalData) {
    const message = `compressed cluster with data file: ${entryText(high, low)}`;
    return { ...zeroEntry(geometry), dropped: true, message };
  }
  const offset = compressedOffsetOf(geometry, high, low);
  const length = compressedLengthOf(geometry, high, low);
  const mended = (high & ~COPIED_HIGH) >>> 0;
  const rule = "copied flag must never be set for compressed clusters";
  if (bounds.contains(offset, length)) {
    if (!isCopied(high)) return undefined;
    return { high: mended, low, dropped: false, message: `coffset=${hex(offset)}: ${rule}` };
  }
  const where = `compressed cluster at ${hex(offset)}`;
  if (offset >= fileLengthBytes) {
    const message = `${where}: it lies behind the end of the file`;
    return { ...zeroEntry(geometry), dropped: true, message };
  }
  const first = Math.floor(offset / SECTOR_BYTES);
  const last = Math.ceil(fileLengthBytes / SECTOR_BYTES) - 1;
  const excess = compressedSectorsOf(geometry, high) - 1 - (last - first);
  return {
    high: mended - excess * 2 ** geometry.compressedShift,
    low,
    dropped: false,
    message: `${where}: it reaches behind the end of the file`,
  };
}
