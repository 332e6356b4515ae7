/**
 * Another backing file in the header, and an image without clusters of its own.
 *
 * Above: driver.ts, with the node drained and writes prepared. Below: header/replace.ts, mapping/shrink.ts.
 *
 * 1. The header changes at once, after everything before it is durable: a crash leaves the old name or the new one.
 * 2. Emptying: L1 entries first, durably, then the refcounts of what they named [C3].
 */
import type { BackingReference } from "@blocklayer/block-api";
import { BlockError, UnsupportedError } from "@blocklayer/bytes";
import { withBackingFile } from "../header/encode.js";
import { replaceHeader } from "../header/replace.js";
import type { Qcow2Image } from "../image.js";
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

/** Drops every cluster of the disk: the backing file shows through everywhere, or zeroes. */
export async function makeEmpty(image: Qcow2Image): Promise<void> {
  if (image.externalData !== undefined) {
    const message = "emptying an image with an external data file is not supported";
    throw new UnsupportedError(message, { op: "make empty", node: image.nodeName });
  }
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
