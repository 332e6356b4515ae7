/**
 * Whether compressed writes are gathered, and changing that [S13].
 *
 * Above: driver.ts (reopen), compressed/write.ts. Below: compressed-cache.ts, flush.ts.
 *
 * `auto` turns the cache on exactly when the file takes only aligned requests, as one that is opened past
 * the page cache does: there a small write is a read-modify-write. Off means off: no copy through it.
 * The file may be reopened without a word to this driver, so every compressed write looks again.
 */
import type { Qcow2Image } from "../image.js";
import { CompressedCache } from "./compressed-cache.js";
import { flushLocked } from "./flush.js";

/** Whether the cache should be on, the way the file is open now. */
export function wantsCompressedCache({ compressedCacheMode, file }: Qcow2Image): boolean {
  if (compressedCacheMode !== "auto") return compressedCacheMode === "on";
  return file.limits.requestAlignment > 1;
}

/**
 * Turns the cache on or off, if that is to change. What it holds is flushed first.
 *
 * Requires: no compressed write is under way but the caller's; the image lock is not held.
 * @throws the flush's error: the cache is as it was
 */
export async function settleCompressedCache(image: Qcow2Image): Promise<void> {
  if (wantsCompressedCache(image) === (image.compressedCache !== undefined)) return;
  if (image.compressedCache === undefined) {
    image.compressedCache = new CompressedCache(image);
    return;
  }
  await flushLocked(image);
  image.compressedCache.free();
  image.compressedCache = undefined;
}
