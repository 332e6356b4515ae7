/** Everything that can be read of an image: the active disk, and the disk of each snapshot. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { BlockError, IoVector, MiB, viewOf, writeU64 } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { openQcow2, type Qcow2Driver, readHeader } from "../../src/index.js";
import { readTable } from "../../src/read-tables.js";
import { readSnapshotTable } from "../../src/snapshot/table.js";

/** A piece that cannot be read. */
export const unreadable = "unreadable";

/** Of a disk that claims to be long, only this much is read. */
const MAX_READ_BYTES: number = MiB;
const CHUNK_BYTES = 65536;
const PIECE_BYTES = 512;
const MAX_SNAPSHOTS = 3;

/** A disk as pieces: the text of each, or `unreadable`. */
export type GuestView = ReadonlyMap<number, string>;

/** The active disk. */
export async function viewGuest(file: BlockChild, backing?: BlockChild): Promise<GuestView> {
  const view = new Map<number, string>();
  let disk: Qcow2Driver;
  try {
    disk = await openQcow2({ file, readOnly: true, ...(backing === undefined ? {} : { backing }) });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return view;
  }
  const end = Math.min(disk.lengthBytes, MAX_READ_BYTES);
  for (let at = 0; at < end; at += CHUNK_BYTES) {
    await viewRange(disk, view, at, Math.min(CHUNK_BYTES, end - at));
  }
  await disk.close();
  return view;
}

/** The active disk as `active`, and snapshots by their identity. */
export async function viewAll(bytes: Uint8Array): Promise<ReadonlyMap<string, GuestView>> {
  const views = new Map<string, GuestView>();
  const file = directChild(openMemory({ bytes }));
  views.set("active", await viewGuest(file));
  const header = await readHeader(file);
  const { entries } = await readSnapshotTable(header, {
    read: (offset, length) => readTable(file, offset, length),
    refuse: () => {},
  });
  for (const { id, name, l1TableOffset, l1Size } of entries.slice(0, MAX_SNAPSHOTS)) {
    if (!Number.isSafeInteger(l1TableOffset) || l1Size < header.l1Size) continue;
    // A table in the header would be changed by what makes it the active one.
    if (l1TableOffset < 2 ** header.clusterBits) continue;
    const copy = bytes.slice();
    viewOf(copy).setUint32(36, l1Size);
    writeU64(viewOf(copy), 40, l1TableOffset);
    const view = await viewGuest(directChild(openMemory({ bytes: copy })));
    // One that nobody can read is none.
    if ([...view.values()].some((piece) => piece !== unreadable)) views.set(`${id} ${name}`, view);
  }
  return views;
}

async function viewRange(
  disk: Qcow2Driver,
  view: Map<number, string>,
  start: number,
  length: number,
): Promise<void> {
  const bytes = new Uint8Array(length);
  try {
    await disk.readv(start, IoVector.of(bytes));
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    if (length === PIECE_BYTES) {
      view.set(start, unreadable);
      return;
    }
    for (let at = 0; at < length; at += PIECE_BYTES) {
      await viewRange(disk, view, start + at, PIECE_BYTES);
    }
    return;
  }
  for (let at = 0; at < length; at += PIECE_BYTES) {
    view.set(start + at, Buffer.from(bytes.subarray(at, at + PIECE_BYTES)).toString("latin1"));
  }
}

/** What was readable before and is not the same after: nothing, after a repair. */
export function lostIn(before: GuestView, after: GuestView): string[] {
  const lost: string[] = [];
  for (const [at, piece] of before) {
    if (piece !== unreadable && after.get(at) !== piece) lost.push(`guest offset ${at}`);
  }
  return lost;
}
