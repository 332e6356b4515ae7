/**
 * Changing the format's options of an image that is there: qemu-img's `amend`.
 *
 * Above: driver.ts, with the node drained and writes prepared. Below: options.ts, version.ts, refcount-width.ts,
 * mapping/truncate.ts.
 *
 * Everything is checked before anything changes. Then, each durable before the next, so that a crash leaves the image
 * with some of the changes and sound: the external data file's name and whether it is raw, at once; version 3; lazy
 * refcounts; refcount width; size; version 2.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { viewOf } from "@blocklayer/bytes";
import { withDataFile } from "../header/encode.js";
import { AUTOCLEAR, COMPATIBLE, hasFeature } from "../header/header.js";
import { replaceHeader } from "../header/replace.js";
import type { Qcow2Image } from "../image.js";
import { truncateGuest } from "../mapping/truncate.js";
import { OVERLAP } from "../refcount/overlap.js";
import { markCleanLocked } from "../writeback/dirty-bit.js";
import { flushLocked } from "../writeback/flush.js";
import { prepareForWriting } from "../writeback/prepare.js";
import type { AmendRequest } from "./options.js";
import { type AmendProgress, changeRefcountWidth, refuseLargeCounts } from "./refcount-width.js";
import { downgrade, refuseOtherCompression, upgrade } from "./version.js";

/** Where `compatible_features` lies in a version 3 header. */
const HEADER_COMPATIBLE_POSITION = 80;

/**
 * Carries a request out, and makes all of it durable.
 *
 * @returns the image to go on with
 */
export async function amendImage(
  given: Qcow2Image,
  request: AmendRequest,
  progress: AmendProgress,
  options: RequestOptions = {},
): Promise<Qcow2Image> {
  let image = given;
  await flushLocked(image);
  await image.sync();
  // Refcounts that were put off are in the file before a structure of them is replaced [C8].
  await markCleanLocked(image);
  const { refcountOrder } = request;
  if (request.version < image.header.version) await refuseOtherCompression(image);
  if (refcountOrder !== image.header.refcountOrder) {
    await withLock(image, () => refuseLargeCounts(image, refcountOrder));
  }
  await withLock(image, () => changeDataFile(image, request));
  if (request.version > image.header.version) await withLock(image, () => upgrade(image));
  if (request.version < 3) image.lazyRefcounts = false;
  if (image.header.version >= 3 && request.version >= 3) {
    await withLock(image, () => setLazyRefcounts(image, request.lazyRefcounts));
  }
  if (refcountOrder !== image.header.refcountOrder) {
    const before = image;
    image = await withLock(before, () => changeRefcountWidth(before, refcountOrder, progress));
  }
  try {
    await changeTheRest(image, request, progress, options);
  } catch (cause) {
    // Whoever goes on with the old one would count in a structure that counts no more.
    if (image !== given) given.fail(cause);
    throw cause;
  }
  return image;
}

/** What comes behind the width of refcounts. */
async function changeTheRest(
  image: Qcow2Image,
  request: AmendRequest,
  progress: AmendProgress,
  options: RequestOptions,
): Promise<void> {
  await prepareForWriting(image);
  if (request.sizeBytes !== undefined) {
    const backingBytes = image.backing?.lengthBytes ?? 0;
    const zeroWrite = backingBytes > image.geometry.virtualSize;
    await truncateGuest(image, request.sizeBytes, { ...options, zeroWrite });
  }
  if (request.version < image.header.version) await downgrade(image, progress, options);
  await flushLocked(image);
  await image.sync();
}

async function withLock<T>(image: Qcow2Image, work: () => Promise<T>): Promise<T> {
  const lease = await image.lock.acquire();
  try {
    return await work();
  } finally {
    lease.release();
  }
}

/**
 * Another name for the external data file, for whoever opens the image next; what is open stays open. Whether there is
 * a file of that name is not asked: it may come later.
 */
async function changeDataFile(
  image: Qcow2Image,
  { dataFilename, givesUpRaw }: AmendRequest,
): Promise<void> {
  const { header } = image;
  if (dataFilename === undefined && !givesUpRaw) return;
  const autoclear = givesUpRaw ? header.autoclear & ~AUTOCLEAR.rawDataFile : header.autoclear;
  const bare = { ...header, autoclear };
  await replaceHeader(image, dataFilename === undefined ? bare : withDataFile(bare, dataFilename));
  if (givesUpRaw && image.externalData !== undefined) image.externalData.raw = false;
}

/** Changes what counts from now on, and for whoever opens the image next. Requires: it is not marked as dirty. */
async function setLazyRefcounts(image: Qcow2Image, wanted: boolean): Promise<void> {
  const { compatible } = image.header;
  image.lazyRefcounts = wanted;
  if (hasFeature(compatible, COMPATIBLE.lazyRefcounts) === wanted) return;
  const next = compatible ^ COMPATIBLE.lazyRefcounts;
  const field = new Uint8Array(8);
  viewOf(field).setBigUint64(0, next);
  try {
    await image.writeTable(HEADER_COMPATIBLE_POSITION, field, OVERLAP.header);
    await image.sync();
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
  image.changeHeader({ compatible: next });
}
