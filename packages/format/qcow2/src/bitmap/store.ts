/**
 * Writing bitmaps back.
 *
 * Above: bitmaps.ts. Below: refcount/allocate, header/replace, order.ts.
 *
 *   bits ─▶ tables ─▶ directory, all in new clusters ─▶ refcounts, sync ─▶ header, sync ─▶ old clusters are free
 *
 * 1. Until the header names the new directory, the old one and all that it names stay as they are: a write that
 *    fails, or a crash, leaves that [C6].
 * 2. What did not change is named again where it lies.
 *
 * Locking: the image lock is held throughout.
 */
import { alignUp, divideRoundUp, viewOf, writeU64 } from "@blocklayer/bytes";
import { ENTRY_BYTES, type HostOffset, standardEntryHigh, standardEntryLow } from "../geometry.js";
import { encodeHeader } from "../header/encode.js";
import { BITMAPS_EXTENSION_BYTES, bitmapsExtensionIn } from "../header/extensions.js";
import { AUTOCLEAR, EXTENSION, type HeaderExtension, type Qcow2Header } from "../header/header.js";
import { replaceHeader } from "../header/replace.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters } from "../refcount/allocate.js";
import { OVERLAP } from "../refcount/overlap.js";
import { lowerAfterFailure, lowerReplaced } from "../refcount/free.js";
import { headerWaitsForTable } from "../writeback/order.js";
import type { Bitmap } from "./bitmaps.js";
import { BITMAP_FLAG, type BitmapEntry, encodeDirectory, tableEntriesFor } from "./directory.js";
import { readBitmapTable } from "./table.js";

/** A piece of the file. */
export interface Piece {
  readonly hostOffset: HostOffset;
  readonly lengthBytes: number;
}

/**
 * Stores all bitmaps of an image.
 *
 * @param bitmaps - what is to be there; `stored` and `changed` are brought up to date
 * @param removed - what was there and is to go
 * @returns what is to be given back now, see `freeReplaced`
 * @throws the error of a write: the file has what it had before
 */
export async function storeBitmaps(
  image: Qcow2Image,
  bitmaps: readonly Bitmap[],
  removed: readonly BitmapEntry[],
): Promise<readonly Piece[]> {
  const written: Piece[] = [];
  const replaced = [...removed];
  const entries: BitmapEntry[] = [];
  let header: Qcow2Header;
  try {
    for (const bitmap of bitmaps) {
      if (!bitmap.changed && bitmap.stored !== undefined) {
        entries.push(bitmap.stored);
        continue;
      }
      if (bitmap.stored !== undefined) replaced.push(bitmap.stored);
      entries.push(await writeBitmap(image, bitmap, written));
    }
    header = withBitmaps(image.header, await writeDirectory(image, entries, written));
    encodeHeader(header); // refused before anything names what was written
    await headerWaitsForTable(image);
  } catch (error) {
    for (const { hostOffset, lengthBytes } of written) {
      await lowerAfterFailure(image, hostOffset, lengthBytes);
    }
    throw error;
  }
  const old = await oldPieces(image, replaced);
  const before = image.header;
  await replaceHeader(image, header);
  moveInOverlapIndex(image, before);
  for (const [i, bitmap] of bitmaps.entries()) {
    bitmap.stored = entries[i];
    bitmap.changed = false;
  }
  return old;
}

/**
 * Gives back what a store replaced: nothing in the file names it any more.
 *
 * @throws the error of a write of refcounts, which the next flush tries again; DamageError
 */
export async function freeReplaced(image: Qcow2Image, pieces: readonly Piece[]): Promise<void> {
  for (const piece of pieces) await lowerReplaced(image, { ...piece, reason: "other" });
  await image.refcounts.flush();
}

/** Writes are checked against the new directory from here on, and no longer against the old one [C16]. */
function moveInOverlapIndex({ overlap, header, geometry }: Qcow2Image, old: Qcow2Header): void {
  const before = bitmapsExtensionIn(old.extensions, geometry.clusterSize);
  if (before !== undefined) overlap.remove(OVERLAP.bitmapDirectory, before.directoryOffset);
  const after = bitmapsExtensionIn(header.extensions, geometry.clusterSize);
  if (after === undefined) return;
  overlap.add(OVERLAP.bitmapDirectory, after.directoryOffset, after.directoryBytes);
}

/** Writes the bits and the table of one bitmap. */
async function writeBitmap(
  image: Qcow2Image,
  bitmap: Bitmap,
  written: Piece[],
): Promise<BitmapEntry> {
  const { clusterSize, virtualSize } = image.geometry;
  const tableEntries = tableEntriesFor(virtualSize, bitmap.granularityBits, clusterSize);
  const table = new Uint8Array(tableEntries * ENTRY_BYTES);
  const view = viewOf(table);
  const chunks = [...(bitmap.bits?.chunks ?? [])].sort(([a], [b]) => a - b);
  for (const [index, bytes] of chunks) {
    const hostOffset = await writePiece(image, bytes, written);
    view.setUint32(index * ENTRY_BYTES, standardEntryHigh(hostOffset, false));
    view.setUint32(index * ENTRY_BYTES + 4, standardEntryLow(hostOffset));
  }
  return {
    tableOffset: await writePiece(image, table, written),
    tableEntries,
    flags: bitmap.recording ? BITMAP_FLAG.auto : 0,
    granularityBits: bitmap.granularityBits,
    nameBytes: bitmap.nameBytes,
    extraData: bitmap.extraData,
  };
}

async function writeDirectory(
  image: Qcow2Image,
  entries: readonly BitmapEntry[],
  written: Piece[],
): Promise<{ readonly count: number; readonly directory: Piece } | undefined> {
  if (entries.length === 0) return undefined;
  const bytes = encodeDirectory(entries);
  const hostOffset = await writePiece(image, bytes, written);
  return { count: entries.length, directory: { hostOffset, lengthBytes: bytes.length } };
}

/** Writes bytes into new clusters, filled up with zeroes. */
async function writePiece(
  image: Qcow2Image,
  bytes: Uint8Array,
  written: Piece[],
): Promise<HostOffset> {
  const { clusterSize } = image.geometry;
  const clusters = divideRoundUp(bytes.length, clusterSize);
  const hostOffset = await allocateClusters(image, clusters);
  const lengthBytes = clusters * clusterSize;
  written.push({ hostOffset, lengthBytes });
  const padded = new Uint8Array(alignUp(bytes.length, clusterSize));
  padded.set(bytes);
  await image.writeTable(hostOffset, padded, 0);
  return hostOffset;
}

/** The clusters of bitmaps that are to go, and of the directory that is to be replaced. */
async function oldPieces(image: Qcow2Image, entries: readonly BitmapEntry[]): Promise<Piece[]> {
  const { file, geometry, header } = image;
  const { clusterSize } = geometry;
  const pieces: Piece[] = [];
  for (const entry of entries) {
    const table = await readBitmapTable(file, geometry, entry).catch(() => []);
    for (const one of table) {
      if (one.kind === "cluster") pieces.push({ hostOffset: one.offset, lengthBytes: clusterSize });
    }
    const lengthBytes = entry.tableEntries * ENTRY_BYTES;
    pieces.push({ hostOffset: entry.tableOffset, lengthBytes });
  }
  const extension = bitmapsExtensionIn(header.extensions, clusterSize);
  if (extension !== undefined && (header.autoclear & AUTOCLEAR.bitmaps) !== 0n) {
    const { directoryOffset: hostOffset, directoryBytes: lengthBytes } = extension;
    pieces.push({ hostOffset, lengthBytes });
  }
  return pieces;
}

/** A header that names a directory of bitmaps, or none. */
function withBitmaps(
  header: Qcow2Header,
  stored: { readonly count: number; readonly directory: Piece } | undefined,
): Qcow2Header {
  const others = header.extensions.filter(({ type }) => type !== EXTENSION.bitmaps);
  if (stored === undefined) {
    return { ...header, extensions: others, autoclear: header.autoclear & ~AUTOCLEAR.bitmaps };
  }
  const data = new Uint8Array(BITMAPS_EXTENSION_BYTES);
  const view = viewOf(data);
  view.setUint32(0, stored.count);
  writeU64(view, 8, stored.directory.lengthBytes);
  writeU64(view, 16, stored.directory.hostOffset);
  const extension: HeaderExtension = { type: EXTENSION.bitmaps, data };
  return {
    ...header,
    extensions: [...others, extension],
    autoclear: header.autoclear | AUTOCLEAR.bitmaps,
  };
}
