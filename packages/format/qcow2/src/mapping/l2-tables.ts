/**
 * L2 tables for writers: found, made, or copied when a snapshot shares them.
 *
 * Above: write, zero, discard, compressed/write. Below: allocator, L2 cache, order.ts.
 *
 * A new table goes to the file in one piece, not through the cache: its slices then load one by one
 * as they are needed. Order on disk [C2, C6]: table and its refcount, sync, L1 entry.
 *
 * Locking: the image lock is held throughout.
 */
import { andThen, type MaybePromise } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import {
  type GuestOffset,
  type HostOffset,
  isCopied,
  standardEntryHigh,
  standardEntryLow,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { l1WaitsForTable } from "../writeback/order.js";
import { badTable } from "./lookup.js";

/** Where the entry of a guest offset lies. */
export interface L2Position {
  /** Pinned: `image.l2.release()` it. */
  readonly table: Table;
  /** Of the entry, in the slice. */
  readonly index: number;
}

/**
 * The slice of a guest offset, ready to be changed, with the index of its entry.
 *
 * Suspends: unless the L1 entry has a table of its own and the slice is in memory.
 */
export function l2ForWrite(image: Qcow2Image, guestOffset: GuestOffset): MaybePromise<L2Position> {
  const { l1 } = image;
  const l1Index = Math.floor(guestOffset * image.perL2Coverage);
  const high = l1.high(l1Index);
  const tableOffset = l1.l2Offset(l1Index);
  if (image.badClusterOffset(tableOffset)) throw badTable(image, l1Index, tableOffset);
  if (tableOffset !== 0 && isCopied(high)) {
    return positionIn(image, l1Index, tableOffset, guestOffset);
  }
  return ownL2Table(image, l1Index, tableOffset).then((own) =>
    positionIn(image, l1Index, own, guestOffset),
  );
}

function positionIn(
  image: Qcow2Image,
  l1Index: number,
  tableOffset: HostOffset,
  guestOffset: GuestOffset,
): MaybePromise<L2Position> {
  const { geometry } = image;
  const entryIndex = Math.floor(guestOffset * image.perCluster) - l1Index * geometry.l2Entries;
  const { entriesPerTable, tableSizeBytes } = image.l2;
  const slice = Math.floor(entryIndex / entriesPerTable);
  const index = entryIndex - slice * entriesPerTable;
  const table = image.l2.get(tableOffset + slice * tableSizeBytes);
  return andThen(table, (pinned) => ({ table: pinned, index }));
}

/** How many entries lie in the slice from `index` on. */
export function entriesLeft(image: Qcow2Image, index: number): number {
  return image.l2.entriesPerTable - index;
}

/** Gives an L1 entry an L2 table of its own: empty, or a copy of the one it shares. */
async function ownL2Table(
  image: Qcow2Image,
  l1Index: number,
  sharedOffset: HostOffset,
): Promise<HostOffset> {
  const { clusterSize } = image.geometry;
  const tableOffset = await allocateClusters(image, 1);
  try {
    const body = await tableBody(image, sharedOffset);
    await image.event("l2_alloc_write");
    await image.writeTable(tableOffset, body, 0);
    await l1WaitsForTable(image);
  } catch (error) {
    await lowerAfterFailure(image, tableOffset, clusterSize);
    throw error;
  }
  const high = standardEntryHigh(tableOffset, true);
  const low = standardEntryLow(tableOffset);
  const sector = image.l1.sectorWith(l1Index, high, low);
  await image.event("l1_update");
  // Should this write fail, the file may name the table all the same: it stays taken, a leak at worst.
  await image.writeTable(sector.at, sector.bytes, OVERLAP.activeL1);
  image.l1.set(l1Index, high, low);
  image.overlap.add(OVERLAP.activeL2, tableOffset, clusterSize);
  if (sharedOffset !== 0) image.frees.note(sharedOffset, clusterSize, "other", clusterSize);
  return tableOffset;
}

/** The bytes of a new table. The cache may know more of the old one than the file does. */
async function tableBody(image: Qcow2Image, sharedOffset: HostOffset): Promise<Uint8Array> {
  const body = new Uint8Array(image.geometry.clusterSize);
  if (sharedOffset === 0) return body;
  const { l2 } = image;
  await image.event("l2_alloc_cow_read");
  for (let at = 0; at < body.length; at += l2.tableSizeBytes) {
    const slice = await l2.get(sharedOffset + at);
    body.set(slice.bytes, at);
    l2.release(slice);
  }
  return body;
}
