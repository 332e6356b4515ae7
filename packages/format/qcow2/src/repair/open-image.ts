/**
 * Repairing an image that is open: what is in memory goes to the file first, and is read again after.
 *
 * Above: driver.ts. Below: repair.ts, image.ts.
 *
 * Locking: the image lock is held, and no request is in flight.
 */
import type { CheckResult } from "@blocklayer/block-api";
import { ENTRY_BYTES } from "../geometry.js";
import { AUTOCLEAR, hasFeature, INCOMPATIBLE, type Qcow2Header } from "../header/header.js";
import type { Qcow2Image } from "../image.js";
import { L1Table } from "../mapping/l1-table.js";
import { readRefcountTable, readTable } from "../read-tables.js";
import { repairQcow2, type RepairOptions } from "./repair.js";

/**
 * Repairs an open image.
 *
 * Requires: a flush has just succeeded.
 *
 * @throws as repairQcow2; the node has failed then, since memory and file may disagree
 */
export async function repairOpenImage(
  image: Qcow2Image,
  options: RepairOptions,
): Promise<CheckResult> {
  await image.l2.empty();
  await image.refcounts.empty();
  image.touched = true;
  try {
    const { result, header } = await repairQcow2(image.file, image.header, options);
    await reloadImage(image, header, false);
    return result;
  } catch (error) {
    image.fail(error);
    throw error;
  }
}

/** Reads everything again that an image keeps in memory. Requires: its caches hold nothing of the old file. */
export async function reloadImage(
  image: Qcow2Image,
  header: Qcow2Header,
  readOnly: boolean,
): Promise<void> {
  const { file, allocator } = image;
  const bytes = await readTable(file, header.l1TableOffset, header.l1Size * ENTRY_BYTES);
  const refcountTable = await readRefcountTable(file, header, readOnly);
  await image.l2.empty();
  await image.refcounts.empty();
  image.readCache.invalidate();
  const { bitmaps } = AUTOCLEAR;
  const lostBitmaps = (image.header.autoclear & ~header.autoclear & bitmaps) !== 0n;
  image.changeHeader(header);
  if (lostBitmaps) image.bitmaps.forget();
  image.l1 = L1Table.decode(header.l1TableOffset, bytes);
  image.refcountTable = refcountTable;
  image.markedDirty = image.markedDirty && hasFeature(header.incompatible, INCOMPATIBLE.dirty);
  allocator.cursor = 0;
  allocator.compressedCursor = 0;
  allocator.lost.clear();
  image.overlap.reset();
  image.writePrepared = false;
  image.preparing = undefined;
}
