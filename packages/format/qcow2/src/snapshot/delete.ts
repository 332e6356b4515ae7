/**
 * Deleting a snapshot.
 *
 * Above: control.ts. Below: the other files of this folder, refcount/adjust.ts.
 *
 * Order on disk, each step durable before the next:
 *   1. the snapshot table without the entry, then the header that names it [C3];
 *   2. the refcounts of all that the snapshot named are lowered;
 *   3. COPIED is set again where the disk is the only owner left [C13].
 * A crash before 1 leaves the snapshot; after it leaks, and between 2 and 3 flags that are missing: the next write
 * there copies once for nothing.
 */
import type { SnapshotSelector } from "@blocklayer/block-api";
import { ENTRY_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { lowerBy, refuseLower } from "../refcount/adjust.js";
import { madeBut } from "./change.js";
import { setCopied } from "./copied.js";
import { readSnapshotDisk } from "./l1.js";
import { addReferences, References } from "./references.js";
import { entryOf, loadSnapshotTable, replaceTable } from "./stored-table.js";
import type { SnapshotEntry } from "./table.js";

const OP = "delete snapshot";

/** Deletes a snapshot. Requires: see change.ts. */
export async function deleteSnapshot(
  image: Qcow2Image,
  which: SnapshotSelector,
): Promise<SnapshotEntry> {
  const table = await loadSnapshotTable(image.file, image.header);
  const entry = entryOf(table, which, OP);
  const { l1 } = await readSnapshotDisk(image.file, image.header, entry);
  const references = new References(image, OP);
  await addReferences(image, references, l1);
  references.add(l1.hostOffset, l1.entryCount * ENTRY_BYTES);
  await refuseLower(image, references.counters);
  const others = table.entries.filter((one) => one !== entry);
  await replaceTable(image, table, others);
  try {
    await lowerBy(image, references.counters, "snapshot");
    await image.refcounts.flush();
    await setCopied(image, references.counters);
  } catch (error) {
    throw madeBut(`${OP}: the snapshot is deleted`, error);
  }
  return entry;
}
