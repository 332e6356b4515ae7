/**
 * Bitmap tables: where the clusters of one bitmap lie, and reading its bits.
 *
 * Above: bitmaps.ts, store.ts, check/bitmaps.ts. Below: read-tables.ts.
 *
 * 1. An entry names a cluster, or with offset 0 says by its lowest bit that all of a cluster's bits are 0 or 1.
 * 2. The tables and clusters of sound bitmaps lie in the file and are nobody else's: what one image makes us read is
 *    bounded by the length of its file, however often a table names one cluster, or bitmaps one table.
 *
 * Source: the qcow2 specification, "Bitmap table", "Bitmap data".
 */
import type { BlockChild } from "@blocklayer/block-api";
import { CorruptImageError, hex, viewOf } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry, type HostOffset, hostOffsetOf } from "../geometry.js";
import { readTable } from "../read-tables.js";
import type { Bits } from "./bits.js";
import type { BitmapEntry } from "./directory.js";

/** Bits of an entry that must be zero: 56 to 63, 1 to 8. */
const RESERVED_HIGH = 0xff00_0000;
const RESERVED_LOW = 0x0000_01fe;
/** With offset 0: all bits are ones. */
const ALL_ONES_LOW = 1;

/** What an entry of a bitmap table says. */
export type BitmapTableEntry =
  | { readonly kind: "zeroes" }
  | { readonly kind: "ones" }
  | { readonly kind: "broken" }
  | { readonly kind: "cluster"; readonly offset: HostOffset };

/** Decodes the two halves of an entry. */
export function bitmapTableEntry(high: number, low: number, geometry: Geometry): BitmapTableEntry {
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) return { kind: "broken" };
  const offset = hostOffsetOf(high, low);
  const isOnes = (low & ALL_ONES_LOW) !== 0;
  if (offset === 0) return { kind: isOnes ? "ones" : "zeroes" };
  if (isOnes || offset % geometry.clusterSize !== 0) return { kind: "broken" };
  return { kind: "cluster", offset };
}

/** How much may still be read: of tables, and of bits. */
export interface ReadBudget {
  bytesLeft: number;
}

/** The decoded table of a bitmap. @throws CorruptImageError when an entry breaks a rule */
export async function readBitmapTable(
  file: BlockChild,
  geometry: Geometry,
  { tableOffset, tableEntries }: BitmapEntry,
): Promise<BitmapTableEntry[]> {
  if (tableOffset + tableEntries * ENTRY_BYTES > file.lengthBytes) {
    throw brokenTable(tableOffset, "reaches past the end of the file");
  }
  const view = viewOf(await readTable(file, tableOffset, tableEntries * ENTRY_BYTES));
  const table: BitmapTableEntry[] = [];
  for (let i = 0; i < tableEntries; i++) {
    const at = i * ENTRY_BYTES;
    const entry = bitmapTableEntry(view.getUint32(at), view.getUint32(at + 4), geometry);
    if (entry.kind === "broken") throw brokenTable(tableOffset, `entry ${i} breaks a rule`);
    table.push(entry);
  }
  return table;
}

/** Fills bits from the file. @throws CorruptImageError */
export async function loadBits(
  file: BlockChild,
  geometry: Geometry,
  entry: BitmapEntry,
  bits: Bits,
  budget: ReadBudget,
): Promise<void> {
  const { clusterSize } = geometry;
  const { tableOffset } = entry;
  const spend = (lengthBytes: number): void => {
    budget.bytesLeft -= lengthBytes;
    if (budget.bytesLeft >= 0) return;
    throw brokenTable(tableOffset, "has more bits than the file is long, or than can be held");
  };
  spend(entry.tableEntries * ENTRY_BYTES);
  const table = await readBitmapTable(file, geometry, entry);
  for (const [index, one] of table.entries()) {
    if (one.kind === "zeroes" || one.kind === "broken") continue;
    spend(clusterSize);
    if (one.kind === "ones") bits.load(index, new Uint8Array(clusterSize).fill(0xff));
    else if (one.offset >= file.lengthBytes) {
      throw brokenTable(
        tableOffset,
        `entry ${index} names ${hex(one.offset)}, past the file's end`,
      );
    } else bits.load(index, await readTable(file, one.offset, clusterSize));
  }
}

function brokenTable(hostOffset: HostOffset, rule: string): CorruptImageError {
  return new CorruptImageError({ structure: "bitmap table", hostOffset, rule });
}
