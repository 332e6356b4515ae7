/**
 * Handing everything dirty down to the operating system [C7].
 *
 * Above: driver.ts (`flushToOs`, `close`). Below: the caches, order.ts through them, refcount/free.ts.
 *
 * The walk, each step only after the one before succeeded:
 *   1. the L2 cache: first what it waits for (refcounts, data), then the tables;
 *   2. the freed clusters: their drop is made durable, their refcounts are lowered;
 *   3. the refcount cache;
 *   4. discards of clusters whose drop is durable.
 * The graph then flushes the children, which syncs the file.
 *
 * A flush covers the requests that ended before it began. On failure what is not written stays dirty,
 * and the next flush tries again [C17].
 */
import type { MaybePromise } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { lowerFreed, passDiscards } from "../refcount/free.js";

/**
 * Writes all dirty metadata. Returns plainly when there is none, and nobody holds the lock: whoever holds
 * it may be writing tables, which no longer count as dirty and are not in the file yet.
 */
export function flushToOs(image: Qcow2Image): MaybePromise<void> {
  image.refuseFailed();
  const { l2, refcounts, frees, lock } = image;
  if (lock.locked || l2.dirtyCount > 0 || refcounts.dirtyCount > 0 || !frees.empty)
    return flushLocked(image);
}

async function flushLocked(image: Qcow2Image): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    await writeMetadata(image);
  } finally {
    lease.release();
  }
}

/** The walk itself. Holds: the image lock. Requires: no table is pinned. */
export async function writeMetadata(image: Qcow2Image): Promise<void> {
  await image.l2.write();
  await lowerFreed(image);
  await image.refcounts.write();
  await passDiscards(image);
}
