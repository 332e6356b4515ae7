/**
 * Header extensions: finding them in the first cluster, and reading those that we know.
 *
 * Above: decode.ts, encode.ts. Below: bytes.
 *
 * 1. The area goes from `header_length` to the backing file name, or to the end of the cluster.
 *    Bytes past the end of the file are zeroes, and a zero type ends the area.
 * 2. Every extension is kept as it is. Only its padding is not: it means nothing.
 *
 * Source: the qcow2 specification, "Header extensions", "Feature name table", "Bitmaps extension".
 */
import { CorruptImageError, decodeName, hex, readU64, viewOf } from "@blocklayer/bytes";
import {
  EXTENSION,
  type FeatureName,
  type FeatureSet,
  type HeaderExtension,
  MAX_BACKING_FORMAT_BYTES,
} from "./header.js";

/** Type and length. */
const EXTENSION_HEAD_BYTES = 8;
/** One row of the feature name table: set, bit, 46 bytes of name. */
export const FEATURE_NAME_BYTES = 48;
export const BITMAPS_EXTENSION_BYTES = 24;
/** As in QEMU. */
export const MAX_BITMAPS = 65535;
/** Each directory entry may be this long on average, as in QEMU. */
const MAX_BITMAP_DIRECTORY_BYTES = MAX_BITMAPS * 1024;

const FEATURE_SETS: readonly FeatureSet[] = ["incompatible", "compatible", "autoclear"];
const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(EXTENSION));

/** What the bitmaps extension says. */
export interface BitmapsExtension {
  readonly bitmapCount: number;
  readonly directoryOffset: number;
  readonly directoryBytes: number;
}

/** Whether this version knows what an extension of this type means. */
export function isKnownExtension(type: number): boolean {
  return KNOWN_TYPES.has(type);
}

/** Bytes that an extension takes in the header, with its padding. */
export function extensionBytes(extension: HeaderExtension): number {
  return EXTENSION_HEAD_BYTES + Math.ceil(extension.data.length / 8) * 8;
}

/**
 * Splits the extension area.
 *
 * @param bytes - the first cluster, or what the file has of it
 * @param start - where the area begins
 * @param end - where it ends
 * @throws CorruptImageError when an extension does not fit into the area
 */
export function splitExtensions(bytes: Uint8Array, start: number, end: number): HeaderExtension[] {
  const extensions: HeaderExtension[] = [];
  for (let at = start; at < end; ) {
    const head = viewOf(copyOf(bytes, at, at + EXTENSION_HEAD_BYTES));
    const type = head.getUint32(0);
    const length = head.getUint32(4);
    const dataStart = at + EXTENSION_HEAD_BYTES;
    if (dataStart > end || length > end - dataStart) {
      const rule = `Header extension too large (type ${hex(type)}, ${length} bytes)`;
      throw new CorruptImageError({ structure: "header extension", hostOffset: at, rule });
    }
    if (type === EXTENSION.end) break;
    extensions.push({ type, data: copyOf(bytes, dataStart, dataStart + length) });
    at = dataStart + Math.ceil(length / 8) * 8;
  }
  return extensions;
}

/** The bytes `[start, end)`, with zeroes for those behind the last one. Always a copy. */
export function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const copy = new Uint8Array(end - start);
  copy.set(bytes.subarray(start, end));
  return copy;
}

/** Text of the image: up to the first zero byte, as C programs read it. Bytes that are no UTF-8 are kept. */
export function decodeText(bytes: Uint8Array): string {
  const zero = bytes.indexOf(0);
  return decodeName(zero < 0 ? bytes : bytes.subarray(0, zero));
}

/** The backing format that the image names; the last one counts, as in QEMU. */
export function backingFormatIn(extensions: readonly HeaderExtension[]): string | undefined {
  let format: string | undefined;
  for (const { type, data } of extensions) {
    if (type !== EXTENSION.backingFormat) continue;
    if (data.length > MAX_BACKING_FORMAT_BYTES) {
      throw new CorruptImageError({
        structure: "header extension",
        rule: `the backing format name has ${data.length} bytes; ${MAX_BACKING_FORMAT_BYTES} are allowed`,
      });
    }
    format = decodeText(data);
  }
  return format === "" ? undefined : format;
}

/** The external data file that the image names; the last one counts. */
export function dataFilenameIn(extensions: readonly HeaderExtension[]): string | undefined {
  const data = extensions.findLast(({ type }) => type === EXTENSION.dataFile)?.data;
  const name = data === undefined ? "" : decodeText(data);
  return name === "" ? undefined : name;
}

/** The rows of the feature name table. Rows of an unknown set or bit are skipped. */
export function featureNamesIn(extensions: readonly HeaderExtension[]): FeatureName[] {
  const names: FeatureName[] = [];
  for (const { type, data } of extensions) {
    if (type !== EXTENSION.featureNames) continue;
    for (let at = 0; at + FEATURE_NAME_BYTES <= data.length; at += FEATURE_NAME_BYTES) {
      const set = FEATURE_SETS[data[at] as number];
      const bit = data[at + 1] as number;
      if (set === undefined || bit > 63) continue;
      names.push({ set, bit, name: decodeText(data.subarray(at + 2, at + FEATURE_NAME_BYTES)) });
    }
  }
  return names;
}

/** One row of a feature name table. */
export function encodeFeatureName(row: FeatureName): Uint8Array {
  const bytes = new Uint8Array(FEATURE_NAME_BYTES);
  bytes[0] = FEATURE_SETS.indexOf(row.set);
  bytes[1] = row.bit;
  bytes.set(new TextEncoder().encode(row.name).subarray(0, FEATURE_NAME_BYTES - 2), 2);
  return bytes;
}

/**
 * The bitmaps extension, if there is one; the last one counts, as in QEMU.
 *
 * @throws CorruptImageError when it breaks a rule
 */
export function bitmapsExtensionIn(
  extensions: readonly HeaderExtension[],
  clusterSize: number,
): BitmapsExtension | undefined {
  const data = extensions.findLast(({ type }) => type === EXTENSION.bitmaps)?.data;
  if (data === undefined) return undefined;
  const structure = "bitmaps extension";
  if (data.length !== BITMAPS_EXTENSION_BYTES) {
    throw new CorruptImageError({ structure, rule: `Invalid extension length ${data.length}` });
  }
  const view = viewOf(data);
  const bitmapCount = view.getUint32(0);
  const directoryBytes = readU64(view, 8, `${structure}: bitmap_directory_size`);
  const directoryOffset = readU64(view, 16, `${structure}: bitmap_directory_offset`);
  let rule: string | undefined;
  if (view.getUint32(4) !== 0) rule = "Reserved field is not zero";
  else if (bitmapCount > MAX_BITMAPS) rule = `${bitmapCount} bitmaps; ${MAX_BITMAPS} are allowed`;
  else if (bitmapCount === 0) rule = "found bitmaps extension with zero bitmaps";
  else if (directoryOffset === 0 || directoryOffset % clusterSize !== 0) {
    rule = `invalid bitmap directory offset ${hex(directoryOffset)}`;
  } else if (directoryBytes > MAX_BITMAP_DIRECTORY_BYTES) {
    rule = `bitmap directory size ${directoryBytes} exceeds ${MAX_BITMAP_DIRECTORY_BYTES}`;
  }
  if (rule !== undefined) throw new CorruptImageError({ structure, rule });
  return { bitmapCount, directoryOffset, directoryBytes };
}
