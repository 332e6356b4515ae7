/**
 * Changing the length of the disk: growing it.
 *
 * Above: driver.ts, with the node drained. Below: L1 table, allocator, zero.ts.
 *
 * Order on disk [C6]: a longer L1 table and its refcounts, sync, header, sync; then the zeroes that keep a
 * longer backing file from showing, sync; then the size field. An external data file is longer before all this. The old table's clusters are free afterwards.
 * Should the header's fate be unknown, the node fails.
 *
 * Source: the qcow2 specification, "Header".
 */
import type { TruncateOptions } from "@blocklayer/block-api";
import {
  alignUp,
  BlockError,
  SECTOR_SIZE_BYTES,
  UnsupportedError,
  viewOf,
  writeU64,
} from "@blocklayer/bytes";
import { ENTRY_BYTES, geometryOf, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure, lowerReplaced } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { headerWaitsForTable, sizeWaitsForZeroes } from "../writeback/order.js";
import { nameClusters } from "./external-data.js";
import { L1Table } from "./l1-table.js";
import { zeroGuest } from "./zero.js";

/** Where `size` lies in the header. */
const HEADER_SIZE_POSITION = 24;
/** Where `l1_size` and `l1_table_offset` lie, side by side. */
const HEADER_L1_POSITION = 36;

/** Sets the length of the disk. Requires: no request is in flight; writes are prepared. */
export async function truncateGuest(
  image: Qcow2Image,
  lengthBytes: number,
  options: TruncateOptions = {},
): Promise<void> {
  const { virtualSize: oldLength, clusterSize } = image.geometry;
  const details = { op: "truncate", node: image.nodeName, length: lengthBytes };
  if (lengthBytes === oldLength) return;
  if (lengthBytes % SECTOR_SIZE_BYTES !== 0) {
    throw new BlockError("EINVAL", "The new size must be a multiple of 512", details);
  }
  if (lengthBytes < oldLength) {
    throw new UnsupportedError("qcow2: making a disk shorter is not supported", details);
  }
  if (options.preallocation !== undefined && options.preallocation !== "off") {
    const message = `qcow2: preallocation '${options.preallocation}' is not supported when growing`;
    throw new UnsupportedError(message, details);
  }
  if (image.header.snapshotCount > 0 && image.geometry.version < 3) {
    const message = "qcow2: the size of a version 2 image with snapshots cannot be changed";
    throw new UnsupportedError(message, details);
  }
  await withLock(image, () => image.bitmaps.beforeResize());
  await image.externalData?.resize(lengthBytes);
  await withLock(image, () => growL1(image, lengthBytes));
  // In memory first: the zeroes lie past the old end. The file shows the new part only when it is zero [C1].
  image.changeHeader({ virtualSize: lengthBytes });
  try {
    const zeroes = options.zeroWrite === true && image.backing !== undefined;
    if (zeroes) await zeroGuest(image, oldLength, lengthBytes - oldLength, {});
    const named = image.externalData?.raw === true;
    await withLock(image, async () => {
      if (named) await nameClusters(image, alignUp(oldLength, clusterSize), lengthBytes);
      if (zeroes || named) await sizeWaitsForZeroes(image);
      const field = new Uint8Array(8);
      writeU64(viewOf(field), 0, lengthBytes);
      await writeHeaderField(image, HEADER_SIZE_POSITION, field);
    });
  } catch (error) {
    image.changeHeader({ virtualSize: oldLength });
    throw error;
  }
  image.bitmaps.resize(lengthBytes);
}

async function withLock(image: Qcow2Image, work: () => Promise<void>): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    await work();
  } finally {
    lease.release();
  }
}

async function growL1(image: Qcow2Image, virtualSize: number): Promise<void> {
  const needed = geometryOf({ ...image.header, virtualSize }).l1Size;
  const old = image.l1;
  if (needed <= old.entryCount) return;
  const { clusterSize } = image.geometry;
  const bytes = needed * ENTRY_BYTES;
  if (bytes > MAX_L1_BYTES) {
    throw new BlockError("EFBIG", `${image.nodeName}: the L1 table would be longer than 32 MiB`, {
      op: "truncate",
      length: virtualSize,
    });
  }
  const clusters = Math.ceil(bytes / clusterSize);
  await image.event("l1_grow_alloc_table");
  const offset = await allocateClusters(image, clusters);
  const halves = new Uint32Array(2 * needed);
  halves.set(old.halves);
  const table = new L1Table(offset, halves);
  const body = new Uint8Array(alignUp(bytes, 512));
  body.set(table.encode());
  try {
    await image.event("l1_grow_write_table");
    await image.writeTable(offset, body, 0);
    await headerWaitsForTable(image);
  } catch (error) {
    await lowerAfterFailure(image, offset, clusters * clusterSize);
    throw error;
  }
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, needed);
  writeU64(viewOf(field), 4, offset);
  await image.event("l1_grow_activate_table");
  await writeHeaderField(image, HEADER_L1_POSITION, field);
  image.changeHeader({ l1Size: needed, l1TableOffset: offset });
  image.l1 = table;
  image.overlap.remove(OVERLAP.activeL1, old.hostOffset);
  image.overlap.add(OVERLAP.activeL1, offset, bytes);
  if (old.entryCount === 0) return;
  await lowerReplaced(image, {
    hostOffset: old.hostOffset,
    lengthBytes: old.entryCount * ENTRY_BYTES,
    reason: "other",
  });
}

async function writeHeaderField(
  image: Qcow2Image,
  position: number,
  field: Uint8Array,
): Promise<void> {
  try {
    await image.writeTable(position, field, OVERLAP.header);
    await image.sync();
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
}
