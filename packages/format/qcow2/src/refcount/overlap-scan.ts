/**
 * Fills the overlap index from what an image holds.
 *
 * Above: writeback/prepare.ts, before the first write. Below: L1 table, refcount table, snapshot table.
 *
 * Everything is bounded by the limits that the header was checked against. Snapshot entries that break
 * a rule end the scan of snapshots: a check reports them, and what was found before counts.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import { alignUp, joinU64, viewOf } from "@blocklayer/bytes";
import { ENTRY_BYTES, type HostOffset, MAX_L1_BYTES, SNAPSHOT_HEADER_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { L1Table } from "../mapping/l1-table.js";
import { readTable } from "../read-tables.js";
import { OVERLAP } from "./overlap.js";

/** The longest snapshot entry that is believed: QEMU's own limit is 1 KiB of extra data and names. */
const MAX_SNAPSHOT_ENTRY_BYTES = 2 ** 18;

/** Where a snapshot's L1 table lies. */
interface SnapshotL1 {
  readonly offset: HostOffset;
  readonly entryCount: number;
}

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
  if (image.header.snapshotCount === 0 || !overlap.wants(OVERLAP.snapshotTable)) return;
  for (const one of await scanSnapshots(image)) await addSnapshot(image, one);
}

function addL2Tables(image: Qcow2Image, l1: L1Table, kind: number): void {
  for (let i = 0; i < l1.entryCount; i++) {
    const table = l1.l2Offset(i);
    if (table !== 0) image.overlap.add(kind, table, image.geometry.clusterSize);
  }
}

/** Reads the snapshot table, entry by entry: each says how long it is. */
async function scanSnapshots(image: Qcow2Image): Promise<SnapshotL1[]> {
  const { snapshotCount, snapshotsOffset } = image.header;
  const found: SnapshotL1[] = [];
  let at = snapshotsOffset;
  for (let i = 0; i < snapshotCount; i++) {
    const head = viewOf(await readTable(image.file, at, SNAPSHOT_HEADER_BYTES));
    const offset = joinU64(head.getUint32(0), head.getUint32(4));
    const entryCount = head.getUint32(8);
    const names = head.getUint16(12) + head.getUint16(14);
    const entryBytes = alignUp(SNAPSHOT_HEADER_BYTES + head.getUint32(36) + names, 8);
    if (offset < 0 || entryBytes > MAX_SNAPSHOT_ENTRY_BYTES) break;
    if (entryCount * ENTRY_BYTES <= MAX_L1_BYTES) found.push({ offset, entryCount });
    at += entryBytes;
  }
  image.overlap.add(OVERLAP.snapshotTable, snapshotsOffset, at - snapshotsOffset);
  return found;
}

async function addSnapshot(image: Qcow2Image, { offset, entryCount }: SnapshotL1): Promise<void> {
  image.overlap.add(OVERLAP.inactiveL1, offset, entryCount * ENTRY_BYTES);
  if (!image.overlap.wants(OVERLAP.inactiveL2)) return;
  const bytes = await readTable(image.file, offset, entryCount * ENTRY_BYTES);
  addL2Tables(image, L1Table.decode(offset, bytes), OVERLAP.inactiveL2);
}
