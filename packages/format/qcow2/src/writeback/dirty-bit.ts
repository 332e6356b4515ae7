/**
 * The dirty bit: refcounts on the disk may be stale, and whoever opens the image for writing repairs it first [C8].
 *
 * Above: refcount (raise, free), driver.ts (`close`, `reopen`, `check`). Below: prepare.ts (the header's fields).
 *
 * 1. The bit is set and durable before the first refcount changes, in memory or on the disk.
 * 2. It is cleared behind everything else: caches written and synced, then the bit, then a sync. A node that has
 *    failed keeps it.
 *
 * Locking: the image lock is held throughout.
 */
import type { MaybePromise } from "@blocklayer/bytes";
import { INCOMPATIBLE } from "../header/header.js";
import type { Qcow2Image } from "../image.js";
import { HEADER_INCOMPATIBLE_POSITION, writeFeatures } from "./prepare.js";

/** To be called before a refcount changes. Holds: the image lock. */
export function refcountsWillChange(image: Qcow2Image): MaybePromise<void> {
  if (image.lazyRefcounts && !image.markedDirty) return markDirty(image);
}

async function markDirty(image: Qcow2Image): Promise<void> {
  const incompatible = image.header.incompatible | INCOMPATIBLE.dirty;
  await writeFeatures(image, HEADER_INCOMPATIBLE_POSITION, incompatible);
  image.changeHeader({ incompatible });
  image.markedDirty = true;
}

/**
 * Writes the refcounts that were put off, and clears the bit.
 *
 * Holds: the image lock. Requires: all that the L2 tables name is in the file (a flush has just succeeded).
 */
export async function markClean(image: Qcow2Image): Promise<void> {
  if (!image.markedDirty) return;
  image.refuseFailed();
  await image.refcounts.flush();
  await image.sync();
  const incompatible = image.header.incompatible & ~INCOMPATIBLE.dirty;
  await writeFeatures(image, HEADER_INCOMPATIBLE_POSITION, incompatible);
  image.changeHeader({ incompatible });
  image.markedDirty = false;
}

/** The same for those who do not hold the image lock. */
export async function markCleanLocked(image: Qcow2Image): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    await markClean(image);
  } finally {
    lease.release();
  }
}
