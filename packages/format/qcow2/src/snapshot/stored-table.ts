/**
 * The snapshot table in the file: read whole, and replaced whole.
 *
 * Above: create, apply, delete, open-snapshot. Below: table.ts, the allocator, order.ts.
 *
 * A new table never goes over the old one. Order on disk [C6]: table and its refcount, sync, header, sync; then the
 * old table is free, since nothing names it any more. Should the header's fate be unknown, the node fails.
 *
 * Locking: the image lock is held throughout.
 */
import {
  type BlockChild,
  findSnapshot,
  type SnapshotSelector,
  snapshotText,
} from "@blocklayer/block-api";
import { BlockError, CorruptImageError, viewOf, writeU64 } from "@blocklayer/bytes";
import { MAX_SNAPSHOTS } from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import type { Qcow2Image } from "../image.js";
import { writeHeaderField } from "../mapping/grow-l1.js";
import { readTable } from "../read-tables.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure, lowerReplaced } from "../refcount/free.js";
import { headerWaitsForTable } from "../writeback/order.js";
import {
  encodeTable,
  MAX_TABLE_BYTES,
  readSnapshotTable,
  type SnapshotEntry,
  type SnapshotTable,
} from "./table.js";

/** Where `nb_snapshots` and `snapshots_offset` lie in the header, side by side. */
const HEADER_SNAPSHOTS_POSITION = 60;

/**
 * Reads the table, all of it: whoever is to write it again must not lose what could not be read.
 *
 * @throws CorruptImageError when an entry breaks a rule
 */
export function loadSnapshotTable(file: BlockChild, header: Qcow2Header): Promise<SnapshotTable> {
  return readSnapshotTable(header, {
    read: (hostOffset, lengthBytes) => readTable(file, hostOffset, lengthBytes),
    refuse: (index, rule) => {
      throw new CorruptImageError({
        structure: "snapshot table",
        hostOffset: header.snapshotsOffset,
        rule: `entry ${index} ${rule}`,
      });
    },
  });
}

/** The entry that is meant. @throws BlockError `ENOENT` */
export function entryOf(table: SnapshotTable, which: SnapshotSelector, op: string): SnapshotEntry {
  const entry = findSnapshot(table.entries, which);
  if (entry !== undefined) return entry;
  throw new BlockError("ENOENT", `snapshot ${snapshotText(which)} was not found`, { op });
}

/** @throws BlockError `EFBIG` when a table of these entries would break a limit */
export function refuseTooLong(entries: readonly SnapshotEntry[], op: string): void {
  if (entries.length > MAX_SNAPSHOTS) {
    const message = `the image has ${MAX_SNAPSHOTS} snapshots, which is all that it can have: delete some`;
    throw new BlockError("EFBIG", message, { op });
  }
  const bytes = entries.reduce((sum, entry) => sum + entry.bytes.length + 8, 0);
  if (bytes <= MAX_TABLE_BYTES) return;
  const message = `the snapshot table would be longer than ${MAX_TABLE_BYTES} bytes: delete snapshots`;
  throw new BlockError("EFBIG", message, { op });
}

/**
 * Puts another table in the place of the old one.
 *
 * Requires: `old` is the table that the header names; what the new entries name, and its refcounts, are durable.
 *
 * **After failure:** the old table counts, and nothing is taken; or the node has failed.
 */
export async function replaceTable(
  image: Qcow2Image,
  old: SnapshotTable,
  entries: readonly SnapshotEntry[],
): Promise<void> {
  const { clusterSize } = image.geometry;
  const body = encodeTable(entries);
  const offset =
    entries.length === 0 ? 0 : await allocateClusters(image, Math.ceil(body.length / clusterSize));
  try {
    if (body.length > 0) await image.writeTable(offset, body, 0);
    await headerWaitsForTable(image);
  } catch (error) {
    await lowerAfterFailure(image, offset, body.length);
    throw error;
  }
  const oldOffset = image.header.snapshotsOffset;
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, entries.length);
  writeU64(viewOf(field), 4, offset);
  await writeHeaderField(image, HEADER_SNAPSHOTS_POSITION, field);
  image.changeHeader({ snapshotCount: entries.length, snapshotsOffset: offset });
  if (old.entries.length === 0) return;
  await lowerReplaced(image, {
    hostOffset: oldOffset,
    lengthBytes: old.lengthBytes,
    reason: "snapshot",
  });
}
