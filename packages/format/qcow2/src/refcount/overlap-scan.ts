/**
 * Fills the overlap index from what an image holds.
 *
 * Above: writeback/prepare.ts, before the first write; snapshot/change.ts, after each. Below: L1 table, refcount table, snapshot table.
 *
 * Everything is bounded by the limits that the header was checked against. Snapshot entries that break
 * a rule end the scan of snapshots: a check reports them, and what was found before counts.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import { ENTRY_BYTES, MAX_L1_BYTES } from "../geometry.js";
import { bitmapsExtensionIn } from "../header/extensions.js";
import { bitmapsAreConsistent } from "../header/features.js";
import type { Qcow2Image } from "../image.js";
import { L1Table } from "../mapping/l1-table.js";
import { readTable } from "../read-tables.js";
import { readSnapshotTable } from "../snapshot/table.js";
import { OVERLAP } from "./overlap.js";

/** Enters every structure that the level asks for. Holds: the image lock. */
export async function scanMetadata(image: Qcow2Image): Promise<void> {
  const { overlap, l1, refcountTable, geometry } = image;
  const { clusterSize } = geometry;
  overlap.add(OVERLAP.header, 0, clusterSize);
  overlap.add(OVERLAP.activeL1, l1.hostOffset, l1.entryCount * ENTRY_BYTES);
  const tableBytes = refcountTable.entryCount * ENTRY_BYTES;
  overlap.add(OVERLAP.refcountTable, refcountTable.hostOffset, tableBytes);
  if (overlap.wants(OVERLAP.activeL2)) addL2Tables(image, l1, OVERLAP.activeL2);
  if (overlap.wants(OVERLAP.refcountBlock)) {
    for (let i = 0; i < refcountTable.entryCount; i++) {
      const block = refcountTable.rawOffset(i);
      if (block !== 0) overlap.add(OVERLAP.refcountBlock, block, clusterSize);
    }
  }
  addBitmapDirectory(image);
  const ofSnapshots = OVERLAP.snapshotTable | OVERLAP.inactiveL1 | OVERLAP.inactiveL2;
  if (image.header.snapshotCount === 0 || !overlap.wants(ofSnapshots)) return;
  await addSnapshots(image);
}

/** Without its autoclear bit the extension is stale, and may name anything. */
function addBitmapDirectory({ overlap, header, geometry }: Qcow2Image): void {
  if (!bitmapsAreConsistent(header)) return;
  const extension = bitmapsExtensionIn(header.extensions, geometry.clusterSize);
  if (extension === undefined) return;
  overlap.add(OVERLAP.bitmapDirectory, extension.directoryOffset, extension.directoryBytes);
}

function addL2Tables(image: Qcow2Image, l1: L1Table, kind: number): void {
  for (let i = 0; i < l1.entryCount; i++) {
    const table = l1.l2Offset(i);
    if (table !== 0) image.overlap.add(kind, table, image.geometry.clusterSize);
  }
}

/** The snapshots' tables. Sound ones share no bytes, so that together they are not longer than the file. */
async function addSnapshots(image: Qcow2Image): Promise<void> {
  const { header, file, overlap, geometry } = image;
  const { entries, lengthBytes } = await readSnapshotTable(header, {
    read: (hostOffset, length) => readTable(file, hostOffset, length),
    refuse: () => undefined,
  });
  overlap.add(OVERLAP.snapshotTable, header.snapshotsOffset, lengthBytes);
  let budget = file.lengthBytes;
  for (const { l1TableOffset: offset, l1Size } of entries) {
    const length = l1Size * ENTRY_BYTES;
    if (length > MAX_L1_BYTES || offset > geometry.maxHostOffset) continue;
    overlap.add(OVERLAP.inactiveL1, offset, length);
    budget -= length;
    if (!overlap.wants(OVERLAP.inactiveL2) || budget < 0) continue;
    const bytes = await readTable(file, offset, length);
    addL2Tables(image, L1Table.decode(offset, bytes), OVERLAP.inactiveL2);
  }
}
