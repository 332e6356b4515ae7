/**
 * The view of one snapshot: the image, as if the snapshot's disk were its own.
 *
 * Above: open.ts. Below: stored-table, l1.
 *
 * Read-only, since what is written would change the snapshot. The disk has the snapshot's length; qemu-img shows it
 * at the length of the current disk, cut off or filled up.
 */
import type { BlockChild, OptionValues, SnapshotSelector } from "@blocklayer/block-api";
import { snapshotText, stringOption } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { AUTOCLEAR, type Qcow2Header } from "../header/header.js";
import { L1Table } from "../mapping/l1-table.js";
import { readSnapshotDisk } from "./l1.js";
import { entryOf, loadSnapshotTable } from "./stored-table.js";

const OP = "load snapshot";

/** A header that describes the snapshot's disk, and its L1 table, as long as the disk needs. */
export interface SnapshotView {
  readonly header: Qcow2Header;
  readonly l1: L1Table;
}

/** The snapshot that the options name: `snapshot` (id, or else name), `snapshot.id`, `snapshot.name`. */
export function snapshotOptionOf(values: OptionValues): SnapshotSelector | undefined {
  const either = stringOption(values, "snapshot");
  const id = stringOption(values, "snapshot.id");
  const name = stringOption(values, "snapshot.name");
  if (id === undefined && name === undefined) return either;
  if (either !== undefined) {
    const message = "qcow2: 'snapshot' and 'snapshot.id' or 'snapshot.name' exclude each other";
    throw new BlockError("EINVAL", message, { op: "open" });
  }
  return { ...(id === undefined ? {} : { id }), ...(name === undefined ? {} : { name }) };
}

/**
 * Reads what the view is made of.
 *
 * @throws BlockError `EINVAL` for an image that is to be written, `ENOENT`; CorruptImageError
 */
export async function viewSnapshot(
  file: BlockChild,
  header: Qcow2Header,
  which: SnapshotSelector,
  readOnly: boolean,
): Promise<SnapshotView> {
  if (!readOnly) {
    const message = `snapshot ${snapshotText(which)} can only be opened read-only: apply it to write`;
    throw new BlockError("EINVAL", message, { op: OP });
  }
  const entry = entryOf(await loadSnapshotTable(file, header), which, OP);
  const disk = await readSnapshotDisk(file, header, entry);
  const halves = new Uint32Array(2 * disk.l1Size);
  halves.set(disk.l1.halves);
  const { virtualSize, l1Size } = disk;
  return {
    header: {
      ...header,
      virtualSize,
      l1Size,
      l1TableOffset: disk.l1.hostOffset,
      // Bitmaps are about the disk as it is now.
      autoclear: header.autoclear & ~AUTOCLEAR.bitmaps,
    },
    l1: new L1Table(disk.l1.hostOffset, halves),
  };
}
