/**
 * Another backing file in the header, and an image without clusters of its own.
 *
 * Above: driver.ts, with the node drained and writes prepared. Below: header/replace.ts, mapping/shrink.ts.
 *
 * 1. The header changes at once, after everything before it is durable: a crash leaves the old name or the new one.
 * 2. Emptying: L1 entries first, durably, then the refcounts of what they named [C3], and the discards in an external
 *    data file [D2].
 */
import type { BackingReference } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { withBackingFile } from "../header/encode.js";
import { replaceHeader } from "../header/replace.js";
import type { Qcow2Image } from "../image.js";
import type { ExternalData } from "../mapping/external-data.js";
import { dropPast, refuseBadTablesFrom } from "../mapping/shrink.js";
import { reclaimFileEnd } from "../refcount/reclaim.js";
import { flushLocked } from "../writeback/flush.js";

/**
 * Names another backing file, or none.
 *
 * @throws BlockError `EINVAL` for names that do not fit, `ENOSPC` when the header becomes longer than a cluster
 */
export async function changeBacking(
  image: Qcow2Image,
  reference: BackingReference | undefined,
): Promise<void> {
  if (reference?.filename.includes("\0") === true) {
    throw new BlockError("EINVAL", "The backing file name holds a zero byte", { op: "rebase" });
  }
  if (reference !== undefined && image.externalData?.raw === true) {
    const message = "data-file-raw requires that the image has no backing file";
    throw new BlockError("EINVAL", message, { op: "rebase" });
  }
  await flushLocked(image);
  await image.sync();
  const lease = await image.lock.acquire();
  try {
    const next = withBackingFile(image.header, reference?.filename, reference?.format);
    await replaceHeader(image, next);
  } finally {
    lease.release();
  }
}

/**
 * Drops every cluster of the disk: the backing file shows through everywhere, or zeroes.
 *
 * @throws BlockError `EINVAL` for a raw data file over a backing file, which the format does not allow: a raw image has
 *   nothing that could show through
 */
export async function makeEmpty(image: Qcow2Image): Promise<void> {
  const { externalData } = image;
  if (externalData?.raw === true) return await makeRawEmpty(image, externalData);
  refuseBadTablesFrom(image, 0);
  await dropPast(image, 0);
  await flushLocked(image);
  const lease = await image.lock.acquire();
  try {
    await reclaimFileEnd(image);
  } finally {
    lease.release();
  }
}

/** Zeroes in a data file that is a raw image. Its clusters keep their names: what is written into it alone is seen. */
async function makeRawEmpty(image: Qcow2Image, externalData: ExternalData): Promise<void> {
  if (image.header.backingFilename !== undefined) {
    const message = "an image with a raw data file cannot be emptied over a backing file";
    throw new BlockError("EINVAL", message, { op: "make empty", node: image.nodeName });
  }
  await externalData.zeroRaw(0, image.geometry.virtualSize, { mayUnmap: true });
}
