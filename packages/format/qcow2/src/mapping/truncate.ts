/**
 * Changing the length of the disk: growing it.
 *
 * Above: driver.ts, with the node drained. Below: grow-l1.ts, zero.ts, snapshot/vm-state.ts.
 *
 * Order on disk [C6]: VM state is dropped where the disk is about to be; a longer L1 table; then the zeroes that keep
 * a longer backing file from showing, sync; then the size field. An external
 * data file is longer before all this.
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
import { geometryOf } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { dropVmState } from "../snapshot/vm-state.js";
import { sizeWaitsForZeroes } from "../writeback/order.js";
import { nameClusters } from "./external-data.js";
import { growL1, HEADER_SIZE_POSITION, writeHeaderField } from "./grow-l1.js";
import { zeroGuest } from "./zero.js";

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
  const needed = geometryOf({ ...image.header, virtualSize: lengthBytes }).l1Size;
  // Otherwise the disk's new part would show it.
  if (needed > image.geometry.l1Size) await withLock(image, () => dropVmState(image));
  await image.externalData?.resize(lengthBytes);
  await withLock(image, () => growL1(image, needed));
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
