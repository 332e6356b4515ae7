/**
 * A longer L1 table, and fields of the header that name it.
 *
 * Above: truncate.ts, snapshot/. Below: the allocator, order.ts.
 *
 * Order on disk [C6]: the longer table and its refcounts, sync, header, sync; then the old table's clusters are free.
 * Should the header's fate be unknown, the node fails.
 *
 * Locking: the image lock is held throughout.
 */
import { alignUp, BlockError, viewOf, writeU64 } from "@blocklayer/bytes";
import { ENTRY_BYTES, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure, lowerReplaced } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { headerWaitsForTable } from "../writeback/order.js";
import { L1Table } from "./l1-table.js";

/** Where `size` lies in the header; behind it `crypt_method`, and these two. */
export const HEADER_SIZE_POSITION = 24;
/** Where `l1_size` and `l1_table_offset` lie, side by side. */
const HEADER_L1_POSITION = 36;

/** Makes the active L1 table at least so many entries long. Holds: the image lock. */
export async function growL1(image: Qcow2Image, needed: number): Promise<void> {
  const old = image.l1;
  if (needed <= old.entryCount) return;
  const { clusterSize } = image.geometry;
  const bytes = needed * ENTRY_BYTES;
  if (bytes > MAX_L1_BYTES) {
    const details = { op: "truncate", node: image.nodeName };
    throw new BlockError("EFBIG", "Failed to grow the L1 table: File too large", details);
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

/**
 * Writes a field of the header, or several side by side, and syncs. A failure leaves it unknown which value counts:
 * the node fails.
 */
export async function writeHeaderField(
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
