/**
 * The clusters that stored bitmaps refer to.
 *
 * Above: check.ts. Below: references.ts, table-reader.ts.
 *
 * 1. Without the autoclear bit the bitmaps are stale: nobody refers to their clusters, which are
 *    then leaks.
 * 2. A directory entry that breaks a rule ends the walk: its length cannot be trusted.
 *
 * Source: the qcow2 specification, "Bitmaps".
 */
import { joinU64, viewOf } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry, hostOffsetOf } from "../geometry.js";
import { bitmapsExtensionIn } from "../header/extensions.js";
import { bitmapsAreConsistent } from "../header/features.js";
import type { Qcow2Header } from "../header/header.js";
import type { Findings } from "./findings.js";
import { entryText } from "./l2-walk.js";
import type { References } from "./references.js";
import type { TableReader } from "./table-reader.js";

const DIRECTORY_ENTRY_BYTES = 24;
const DIRTY_TRACKING = 1;
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;
const MAX_NAME_BYTES = 1023;
const MAX_TABLE_ENTRIES = 0x800_0000;
/** One bitmap is at most this long, as in QEMU. */
const MAX_BITMAP_BYTES = 0x2000_0000;
const RESERVED_FLAGS = 0xffff_fffc;
/** Bits of a bitmap table entry that must be zero: 56 to 63, 1 to 8. */
const TABLE_RESERVED_HIGH = 0xff00_0000;
const TABLE_RESERVED_LOW = 0x0000_01fe;
/** Without an offset: the bits are all ones. */
const ALL_ONES_LOW = 1;

interface BitmapTable {
  readonly offset: number;
  readonly entryCount: number;
}

/** Counts the references of the bitmap directory, the tables and the bitmaps. */
export async function checkBitmaps(
  header: Qcow2Header,
  geometry: Geometry,
  reader: TableReader,
  references: References,
  findings: Findings,
): Promise<void> {
  if (!bitmapsAreConsistent(header)) return;
  const extension = bitmapsExtensionIn(header.extensions, geometry.clusterSize);
  if (extension === undefined) return;
  const { directoryOffset, directoryBytes, bitmapCount } = extension;
  references.add(directoryOffset, directoryBytes);
  const directory = await reader.read("bitmap directory", directoryOffset, directoryBytes);
  if (directory === undefined) return;
  for (const table of tablesIn(directory, bitmapCount, geometry, findings)) {
    references.add(table.offset, table.entryCount * ENTRY_BYTES);
    const bytes = await reader.read("bitmap table", table.offset, table.entryCount * ENTRY_BYTES);
    if (bytes !== undefined) checkTable(bytes, geometry, references, findings);
  }
}

function tablesIn(
  directory: Uint8Array,
  bitmapCount: number,
  geometry: Geometry,
  findings: Findings,
): BitmapTable[] {
  const tables: BitmapTable[] = [];
  const view = viewOf(directory);
  for (let at = 0; tables.length < bitmapCount; ) {
    const table = at + DIRECTORY_ENTRY_BYTES > directory.length ? -1 : tableAt(view, at, geometry);
    if (table === -1) {
      findings.corruption(() => `ERROR bitmap directory entry ${tables.length} is corrupted`);
      break;
    }
    tables.push(table);
    const nameBytes = view.getUint16(at + 18);
    const extraBytes = view.getUint32(at + 20);
    at += Math.ceil((DIRECTORY_ENTRY_BYTES + nameBytes + extraBytes) / 8) * 8;
  }
  return tables;
}

/** @returns the table that an entry names, or -1 when the entry breaks a rule */
function tableAt(view: DataView, at: number, geometry: Geometry): BitmapTable | -1 {
  const offset = joinU64(view.getUint32(at), view.getUint32(at + 4));
  const entryCount = view.getUint32(at + 8);
  const granularityBits = view.getUint8(at + 17);
  const nameBytes = view.getUint16(at + 18);
  const fits =
    offset > 0 &&
    offset % geometry.clusterSize === 0 &&
    entryCount > 0 &&
    entryCount <= MAX_TABLE_ENTRIES &&
    entryCount * geometry.clusterSize <= MAX_BITMAP_BYTES &&
    (view.getUint32(at + 12) & RESERVED_FLAGS) === 0 &&
    view.getUint8(at + 16) === DIRTY_TRACKING &&
    granularityBits >= MIN_GRANULARITY_BITS &&
    granularityBits <= MAX_GRANULARITY_BITS &&
    nameBytes > 0 &&
    nameBytes <= MAX_NAME_BYTES;
  return fits ? { offset, entryCount } : -1;
}

function checkTable(
  bytes: Uint8Array,
  geometry: Geometry,
  references: References,
  findings: Findings,
): void {
  const view = viewOf(bytes);
  for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const offset = hostOffsetOf(high, low);
    const isReserved = (high & TABLE_RESERVED_HIGH) !== 0 || (low & TABLE_RESERVED_LOW) !== 0;
    const isBroken =
      offset !== 0 && (offset % geometry.clusterSize !== 0 || (low & ALL_ONES_LOW) !== 0);
    if (isReserved || isBroken) {
      findings.corruption(() => `ERROR bitmap table entry ${entryText(high, low)} is corrupted`);
    } else if (offset !== 0) references.add(offset, geometry.clusterSize);
  }
}
