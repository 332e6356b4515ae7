/**
 * Changing the length of the disk: growing it.
 *
 * Above: driver.ts, with the node drained. Below: L1 table, allocator, zero.ts.
 *
 * Order on disk [C6]: a longer L1 table and its refcounts, sync, header, sync; then the size field. The
 * old table's clusters are free afterwards. Should the header's fate be unknown, the node fails.
 *
 * Source: the qcow2 specification, "Header".
 */
import type { TruncateOptions } from "@blocklayer/block-api";
import { alignUp, BlockError, UnsupportedError, viewOf, writeU64 } from "@blocklayer/bytes";
import { ENTRY_BYTES, geometryOf, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerNow } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { headerWaitsForTable } from "../writeback/order.js";
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
  const oldLength = image.geometry.virtualSize;
  const details = { op: "truncate", node: image.nodeName, length: lengthBytes };
  if (lengthBytes === oldLength) return;
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
  const lease = await image.lock.acquire();
  try {
    await growL1(image, lengthBytes);
    const field = new Uint8Array(8);
    writeU64(viewOf(field), 0, lengthBytes);
    await writeHeaderField(image, HEADER_SIZE_POSITION, field);
    image.changeHeader({ virtualSize: lengthBytes });
  } finally {
    lease.release();
  }
  if (options.zeroWrite === true && image.backing !== undefined) {
    await zeroGuest(image, oldLength, lengthBytes - oldLength, {});
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
  const offset = await allocateClusters(image, Math.ceil(bytes / clusterSize));
  const halves = new Uint32Array(2 * needed);
  halves.set(old.halves);
  const table = new L1Table(offset, halves);
  const body = new Uint8Array(alignUp(bytes, 512));
  body.set(table.encode());
  await image.writeTable(offset, body, 0);
  await headerWaitsForTable(image);
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, needed);
  writeU64(viewOf(field), 4, offset);
  await writeHeaderField(image, HEADER_L1_POSITION, field);
  image.changeHeader({ l1Size: needed, l1TableOffset: offset });
  image.l1 = table;
  image.overlap.remove(OVERLAP.activeL1, old.hostOffset);
  image.overlap.add(OVERLAP.activeL1, offset, bytes);
  if (old.entryCount === 0) return;
  await lowerNow(image, {
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
