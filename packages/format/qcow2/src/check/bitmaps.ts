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
import { viewOf } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry } from "../geometry.js";
import { decodeDirectory } from "../bitmap/directory.js";
import { bitmapTableEntry } from "../bitmap/table.js";
import { bitmapsExtensionIn } from "../header/extensions.js";
import { bitmapsAreConsistent } from "../header/features.js";
import type { Qcow2Header } from "../header/header.js";
import type { Findings } from "./findings.js";
import { entryText } from "./l2-walk.js";
import type { References } from "./references.js";
import type { TableReader } from "./table-reader.js";

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
  const { entries, isBroken } = decodeDirectory(directory, bitmapCount, geometry);
  for (const { tableOffset, tableEntries } of entries) {
    references.add(tableOffset, tableEntries * ENTRY_BYTES);
    const bytes = await reader.read("bitmap table", tableOffset, tableEntries * ENTRY_BYTES);
    if (bytes !== undefined) checkTable(bytes, geometry, references, findings);
  }
  if (!isBroken) return;
  findings.corruption(() => `ERROR bitmap directory entry ${entries.length} is corrupted`);
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
    const entry = bitmapTableEntry(high, low, geometry);
    if (entry.kind === "broken") {
      findings.corruption(() => `ERROR bitmap table entry ${entryText(high, low)} is corrupted`);
    } else if (entry.kind === "cluster") references.add(entry.offset, geometry.clusterSize);
  }
}
