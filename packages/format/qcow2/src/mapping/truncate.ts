/**
 * Changing the length of the disk.
 *
 * Above: driver.ts, with the node drained. Below: grow-l1.ts, shrink.ts, preallocate.ts, zero.ts, snapshot/vm-state.ts.
 *
 * Growing, on disk [C6]: a longer external data file; VM state is dropped where the disk is about to be; a longer L1
 * table; then everything that the new part must not show is gone or zeroed, and what is to be set aside is, sync; then
 * the size field. Shrinking: the size field, sync; then what lies past it goes.
 * Should the header's fate be unknown, the node fails.
 *
 * Source: the qcow2 specification, "Header".
 */
import type { TruncateOptions } from "@blocklayer/block-api";
import {
  alignUp,
  BlockError,
  IoVector,
  SECTOR_SIZE_BYTES,
  UnsupportedError,
  viewOf,
  writeU64,
} from "@blocklayer/bytes";
import { geometryOf, isUnallocated } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { reclaimFileEnd } from "../refcount/reclaim.js";
import { dropVmState } from "../snapshot/vm-state.js";
import { flushLocked } from "../writeback/flush.js";
import { sizeWaitsForZeroes } from "../writeback/order.js";
import { nameClusters } from "./external-data.js";
import { growL1, HEADER_SIZE_POSITION, writeHeaderField } from "./grow-l1.js";
import { preallocate } from "./preallocate.js";
import { dropPast, refuseBadTablesFrom, zeroRestOfCluster } from "./shrink.js";
import { writeGuest } from "./write.js";
import { mapOnce, zeroGuest } from "./zero.js";

/** Sets the length of the disk. Requires: no request is in flight; writes are prepared. */
export async function truncateGuest(
  image: Qcow2Image,
  lengthBytes: number,
  options: TruncateOptions = {},
): Promise<void> {
  const { virtualSize: oldLength } = image.geometry;
  const details = { op: "truncate", node: image.nodeName, length: lengthBytes };
  const { preallocation = "off" } = options;
  if (lengthBytes % SECTOR_SIZE_BYTES !== 0) {
    throw new BlockError("EINVAL", "The new size must be a multiple of 512", details);
  }
  if (!Number.isSafeInteger(lengthBytes)) {
    throw new BlockError(
      "EFBIG",
      "The new size is above 2^53 - 1, which is not supported",
      details,
    );
  }
  if (lengthBytes === oldLength) return;
  if (image.header.snapshotCount > 0 && image.geometry.version < 3) {
    throw new UnsupportedError("Can't resize a v2 image which has snapshots", details);
  }
  if (lengthBytes < oldLength && preallocation !== "off") {
    const message = "Preallocation can't be used for shrinking an image";
    throw new BlockError("EINVAL", message, details);
  }
  refuseBadTablesFrom(image, Math.min(oldLength, lengthBytes));
  await withLock(image, () => image.bitmaps.beforeResize());
  if (lengthBytes > oldLength) await growGuest(image, oldLength, lengthBytes, options);
  else await shrinkGuest(image, lengthBytes);
}

/** The size first; then what lies past it is given back, and the files cut. */
async function shrinkGuest(image: Qcow2Image, lengthBytes: number): Promise<void> {
  const { clusterSize, l1Size, l2CoverageBytes } = image.geometry;
  const { externalData } = image;
  await withLock(image, () => writeSize(image, lengthBytes));
  image.changeHeader({ virtualSize: lengthBytes });
  image.bitmaps.resize(lengthBytes);
  // VM state stays where it is as long as the disk needs as many L1 entries; otherwise it would be found elsewhere.
  const keepsVmState = image.geometry.l1Size === l1Size;
  await dropPast(image, lengthBytes, keepsVmState ? l1Size * l2CoverageBytes : undefined);
  // An external data file is cut there instead.
  if (externalData === undefined) {
    await zeroRestOfCluster(image, lengthBytes, alignUp(lengthBytes, clusterSize));
  }
  await flushLocked(image);
  await externalData?.shrink(lengthBytes);
  await withLock(image, () => reclaimFileEnd(image));
}

async function growGuest(
  image: Qcow2Image,
  oldLength: number,
  lengthBytes: number,
  options: TruncateOptions,
): Promise<void> {
  const needed = geometryOf({ ...image.header, virtualSize: lengthBytes }).l1Size;
  const { clusterSize } = image.geometry;
  const { externalData } = image;
  const { preallocation = "off" } = options;
  // Otherwise the disk's new part would show it. With an external data file there is none.
  const mayHaveVmState = externalData === undefined && needed > image.geometry.l1Size;
  if (mayHaveVmState) await withLock(image, () => dropVmState(image));
  const span = [oldLength, lengthBytes, clusterSize] as const;
  const cleared = await externalData?.clearPast(...span, preallocation);
  await externalData?.grow(lengthBytes, preallocation);
  await withLock(image, () => growL1(image, needed));
  // In memory first: the zeroes lie past the old end. The file shows the new part only when it is zero [C1].
  image.changeHeader({ virtualSize: lengthBytes });
  try {
    const zeroed = await clearNewPart(image, oldLength, lengthBytes);
    await fillNewPart(image, oldLength, lengthBytes, options);
    await withLock(image, async () => {
      if (externalData?.raw === true)
        await nameClusters(image, alignUp(oldLength, clusterSize), lengthBytes);
      await sizeWaitsForZeroes(image);
      if (zeroed || cleared === true) await image.sync();
      await writeSize(image, lengthBytes);
    });
  } catch (error) {
    image.changeHeader({ virtualSize: oldLength });
    throw error;
  }
  image.bitmaps.resize(lengthBytes);
}

/**
 * What an earlier, longer disk left past the end goes. An external data file is zero by now where it is still shown.
 *
 * @returns whether guest data was written
 */
async function clearNewPart(
  image: Qcow2Image,
  oldLength: number,
  lengthBytes: number,
): Promise<boolean> {
  await dropPast(image, oldLength, lengthBytes);
  if (image.externalData !== undefined) return false;
  return await zeroRestOfCluster(image, oldLength, lengthBytes);
}

/** Zeroes over a longer backing file, and places for what is to have one. */
async function fillNewPart(
  image: Qcow2Image,
  oldLength: number,
  lengthBytes: number,
  { preallocation = "off", zeroWrite = false, signal }: TruncateOptions,
): Promise<void> {
  const io = signal === undefined ? {} : { signal };
  const showsBacking = zeroWrite && image.backing !== undefined;
  const whole = Math.min(alignUp(oldLength, image.geometry.clusterSize), lengthBytes);
  // A cluster that the old end cuts may show the backing file in front of it. It is a part of what is set aside, too.
  // Not so with subclusters: the cluster has its place, and each part shows what it showed.
  const hasParts = image.geometry.subclusters > 1;
  const isCutPlaced = preallocation !== "off" && image.backing !== undefined && !hasParts;
  if (hasParts && showsBacking && whole > oldLength) {
    await zeroGuest(image, oldLength, whole - oldLength, io);
  } else if (showsBacking || isCutPlaced) await hideBacking(image, oldLength, whole);
  if (preallocation !== "off") {
    const start = isCutPlaced ? whole : oldLength;
    await preallocate(image, start, lengthBytes, preallocation, io);
  }
  // Data that was set aside reads as zeroes by itself; what is only placed gets the flag beside, as in QEMU. With
  // subclusters, and in an external data file, everything is only placed.
  const isSetAside = preallocation === "falloc" || preallocation === "full";
  const isData = isSetAside && !hasParts && image.externalData === undefined;
  if (showsBacking && !isData && lengthBytes > whole) {
    await zeroGuest(image, whole, lengthBytes - whole, io);
  }
}

/**
 * Writes zeroes over what a cut cluster shows of the backing file. As bytes, in QEMU too: the part in front of the old
 * end goes on showing it.
 */
async function hideBacking(image: Qcow2Image, start: number, end: number): Promise<void> {
  for (let at = start; at < end; ) {
    const { kind, lengthBytes } = await mapOnce(image, at, end - at);
    if (isUnallocated(kind)) await writeGuest(image, at, IoVector.allocate(lengthBytes));
    at += lengthBytes;
  }
}

async function writeSize(image: Qcow2Image, lengthBytes: number): Promise<void> {
  const field = new Uint8Array(8);
  writeU64(viewOf(field), 0, lengthBytes);
  await writeHeaderField(image, HEADER_SIZE_POSITION, field);
}

async function withLock(image: Qcow2Image, work: () => Promise<void>): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    await work();
  } finally {
    lease.release();
  }
}
