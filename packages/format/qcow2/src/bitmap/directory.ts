/**
 * The bitmap directory: one entry for each bitmap, as the file has it.
 *
 * Above: bitmaps.ts, store.ts, check/bitmaps.ts, info.ts. Below: geometry.ts. Bytes in, entries out, and back.
 *
 * | bytes | field |
 * |---|---|
 * | 0–7 | host offset of the bitmap table, whole clusters |
 * | 8–11 | entries of the table |
 * | 12–15 | flags: 1 in use, 2 auto (records), 4 extra data may be ignored |
 * | 16 | type: 1, dirty tracking |
 * | 17 | binary logarithm of the granularity, 9 to 31 |
 * | 18–19, 20–23 | lengths of the name and of the extra data |
 * | 24– | extra data, name, zeroes up to a multiple of 8 |
 *
 * Source: the qcow2 specification, "Bitmap directory"; the bounds are QEMU's.
 */
import { alignUp, joinU64, viewOf, writeU64 } from "@blocklayer/bytes";
import type { Geometry, HostOffset } from "../geometry.js";

export const BITMAP_FLAG = { inUse: 1, auto: 2 } as const;
export const MIN_GRANULARITY_BITS = 9;
export const MAX_GRANULARITY_BITS = 31;
export const MAX_BITMAP_NAME_BYTES = 1023;
/** The bits of one bitmap are at most this long: 512 MiB. */
export const MAX_BITMAP_BYTES = 0x2000_0000;
const MAX_TABLE_ENTRIES = 0x800_0000;
const ENTRY_HEAD_BYTES = 24;
const DIRTY_TRACKING = 1;
const RESERVED_FLAGS = 0xffff_fffc;

/** One bitmap of the directory. */
export interface BitmapEntry {
  readonly tableOffset: HostOffset;
  readonly tableEntries: number;
  /** Bits of BITMAP_FLAG. */
  readonly flags: number;
  readonly granularityBits: number;
  readonly nameBytes: Uint8Array;
  readonly extraData: Uint8Array;
}

/** What could be read of a directory. */
export interface DecodedDirectory {
  readonly entries: readonly BitmapEntry[];
  /**
   * The entry behind the last one breaks a rule, and what follows cannot be found; or the entries are not all of the
   * directory, do not fit the disk, or share a name.
   */
  readonly isBroken: boolean;
}

/**
 * Reads the entries of a directory, as far as they keep the rules.
 *
 * @param bytes - all of the directory, as long as the extension says
 * @param count - how many entries it has, by the extension
 */
export function decodeDirectory(
  bytes: Uint8Array,
  count: number,
  geometry: Geometry,
): DecodedDirectory {
  const entries: BitmapEntry[] = [];
  let at = 0;
  while (entries.length < count) {
    const entry = entryAt(bytes, at, geometry);
    if (entry === undefined) return { entries, isBroken: true };
    entries.push(entry);
    at += entryBytes(entry);
  }
  // By bytes: names that are not UTF-8 may look alike.
  const names = new Set(entries.map(({ nameBytes }) => nameBytes.join()));
  const isSound = at === bytes.length && names.size === entries.length;
  return { entries, isBroken: !isSound || !entries.every((entry) => fitsDisk(entry, geometry)) };
}

/** One that is in use may be older than the disk's length is. */
function fitsDisk(entry: BitmapEntry, { virtualSize, clusterSize }: Geometry): boolean {
  if ((entry.flags & BITMAP_FLAG.inUse) !== 0 || entry.extraData.length > 0) return true;
  const expected = tableEntriesFor(virtualSize, entry.granularityBits, clusterSize);
  return entry.tableEntries === expected;
}

/** @returns undefined when the entry breaks a rule */
function entryAt(bytes: Uint8Array, at: number, geometry: Geometry): BitmapEntry | undefined {
  if (at + ENTRY_HEAD_BYTES > bytes.length) return undefined;
  const view = viewOf(bytes);
  const nameBytes = view.getUint16(at + 18);
  const extraBytes = view.getUint32(at + 20);
  const nameStart = at + ENTRY_HEAD_BYTES + extraBytes;
  const entry = {
    tableOffset: joinU64(view.getUint32(at), view.getUint32(at + 4)),
    tableEntries: view.getUint32(at + 8),
    flags: view.getUint32(at + 12),
    granularityBits: view.getUint8(at + 17),
    nameBytes: bytes.slice(nameStart, nameStart + nameBytes),
    extraData: bytes.slice(at + ENTRY_HEAD_BYTES, nameStart),
  };
  const fits =
    entry.tableOffset > 0 &&
    entry.tableOffset % geometry.clusterSize === 0 &&
    entry.tableEntries > 0 &&
    entry.tableEntries <= MAX_TABLE_ENTRIES &&
    entry.tableEntries * geometry.clusterSize <= MAX_BITMAP_BYTES &&
    (entry.flags & RESERVED_FLAGS) === 0 &&
    view.getUint8(at + 16) === DIRTY_TRACKING &&
    entry.granularityBits >= MIN_GRANULARITY_BITS &&
    entry.granularityBits <= MAX_GRANULARITY_BITS &&
    nameBytes > 0 &&
    nameBytes <= MAX_BITMAP_NAME_BYTES &&
    nameStart + nameBytes <= bytes.length;
  return fits ? entry : undefined;
}

/** Bytes that an entry takes, with its padding. */
export function directoryEntryBytes(nameBytes: number, extraBytes = 0): number {
  return alignUp(ENTRY_HEAD_BYTES + nameBytes + extraBytes, 8);
}

function entryBytes({ nameBytes, extraData }: BitmapEntry): number {
  return directoryEntryBytes(nameBytes.length, extraData.length);
}

/** The bytes of a directory. */
export function encodeDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.reduce((sum, entry) => sum + entryBytes(entry), 0));
  const view = viewOf(bytes);
  let at = 0;
  for (const entry of entries) {
    writeU64(view, at, entry.tableOffset);
    view.setUint32(at + 8, entry.tableEntries);
    view.setUint32(at + 12, entry.flags);
    view.setUint8(at + 16, DIRTY_TRACKING);
    view.setUint8(at + 17, entry.granularityBits);
    view.setUint16(at + 18, entry.nameBytes.length);
    view.setUint32(at + 20, entry.extraData.length);
    bytes.set(entry.extraData, at + ENTRY_HEAD_BYTES);
    bytes.set(entry.nameBytes, at + ENTRY_HEAD_BYTES + entry.extraData.length);
    at += entryBytes(entry);
  }
  return bytes;
}

/** Entries of the table of a bitmap over a disk. */
export function tableEntriesFor(
  virtualSize: number,
  granularityBits: number,
  clusterSize: number,
): number {
  const bits = Math.ceil(virtualSize / 2 ** granularityBits);
  return Math.ceil(bits / 8 / clusterSize);
}
