/**
 * Whether compressed writes are gathered, and changing that [S13].
 *
 * Above: driver.ts (reopen), compressed/write.ts. Below: compressed-cache.ts, flush.ts.
 *
 * `auto` turns the cache on exactly when the file takes only aligned requests, as one that is opened past
 * the page cache does: there a small write is a read-modify-write. Off means off: no copy through it.
 * The file may be reopened without a word to this driver, so every compressed write looks again.
 */
import type { CompressedCacheMode, Qcow2Image } from "../image.js";
import { CompressedCache } from "./compressed-cache.js";
import { flushLocked } from "./flush.js";

/** Whether the cache should be on, the way the file is open now. */
export function wantsCompressedCache(
  { compressedCacheMode, file, geometry }: Qcow2Image,
  mode: CompressedCacheMode = compressedCacheMode,
): boolean {
  // Nothing is compressed in an external data file.
  if (geometry.externalData) return false;
  if (mode !== "auto") return mode === "on";
  return file.limits.requestAlignment > 1;
}

/**
 * Turns the cache on or off, if that is to change. What it holds is flushed first.
 *
 * Requires: no compressed write is under way but the caller's; the image lock is not held.
 *
 * @param mode - what decides from now on; by default what did before
 * @throws the flush's error: the cache, and what decides, are as they were
 */
export async function settleCompressedCache(
  image: Qcow2Image,
  mode: CompressedCacheMode = image.compressedCacheMode,
): Promise<void> {
  const wanted = wantsCompressedCache(image, mode);
  if (image.compressedCache !== undefined && !wanted) {
    await flushLocked(image);
    image.compressedCache.free();
    image.compressedCache = undefined;
  }
  image.compressedCacheMode = mode;
  if (wanted) image.compressedCache ??= new CompressedCache(image);
}
