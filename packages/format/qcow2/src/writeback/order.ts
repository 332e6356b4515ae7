/**
 * Every ordering between kinds of write to an image, in one place.
 *
 * Above: mapping, refcount, compressed. Below: metadata-cache.
 *
 * | what must be durable first | before | rule | function |
 * |---|---|---|---|
 * | raised refcounts | an L2 entry that names the clusters | C2 | `l2WaitsForRefcounts` |
 * | guest and copied data | the L2 entry that shows it | C5 | `l2WaitsForData` |
 * | cached compressed data | the L2 entry that names it | S11 | `l2WaitsForCompressed` |
 * | the L2 entry, or the L1 entry, that drops clusters | their lowered refcounts, their reuse, their discard | C3, D2 | `refcountsWaitForL2` |
 * | a new L2 table, and its refcount | the L1 entry that names it | C2, C6 | `l1WaitsForTable` |
 * | a new refcount block | the refcount-table entry that names it | C6 | `refcountTableWaitsForBlock` |
 * | a new L1 or refcount table | the header field that names it | C6 | `headerWaitsForTable` |
 * | zeroes over a longer backing file | the size that shows them | C1 | `sizeWaitsForZeroes` |
 *
 * With lazy refcounts the edges that wait for refcounts alone are not there: the dirty bit was durable before the first
 * of them changed, and a repair counts the references anew [C8].
 *
 * C5 asks for the data sync only after copy-on-write. Here every link of new clusters owes one: a
 * cluster that had an owner before would otherwise show that owner's bytes after a crash [C1]. It
 * costs nothing, since the sync that C2 needs is the same one.
 */
import type { MaybePromise } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";

/** [C2] L2 entries set from here on wait for the refcounts raised so far. Holds: the image lock. */
export function l2WaitsForRefcounts(image: Qcow2Image): MaybePromise<void> {
  if (!image.lazyRefcounts) return image.l2.dependsOn(image.refcounts);
}

/** [C5] L2 entries set from here on wait for the data written so far. Holds: the image lock. */
export function l2WaitsForData(image: Qcow2Image): void {
  image.l2.dependsOnSync();
}

/** [S11] L2 entries set from here on wait for the compressed data put so far. Holds: the image lock. */
export function l2WaitsForCompressed(image: Qcow2Image): MaybePromise<void> {
  const { compressedCache } = image;
  if (compressedCache !== undefined) return image.l2.dependsOn(compressedCache);
}

/**
 * [C3, D2] Makes every L2 entry, and every L1 entry, changed so far durable, so that the clusters that they dropped may be
 * counted down, taken again and discarded. Done once for many drops: see refcount/free.ts.
 *
 * Holds: the image lock. Suspends: yes.
 */
export function refcountsWaitForL2(image: Qcow2Image): Promise<void> {
  return image.l2.flush();
}

/** [C2, C6] Makes a new L2 table that was just written, and its refcount, durable. */
export function l1WaitsForTable(image: Qcow2Image): Promise<void> {
  if (image.lazyRefcounts) return image.sync();
  return image.refcounts.flush();
}

/** [C6] Makes a new refcount block, which the cache holds, durable, and the one that counts it. */
export function refcountTableWaitsForBlock(image: Qcow2Image): Promise<void> {
  return image.refcounts.flush();
}

/** [C1] Makes the zeroes of a disk's new part durable: zero flags, and bytes where flags do not do. */
export function sizeWaitsForZeroes(image: Qcow2Image): Promise<void> {
  return image.l2.flush();
}

/** [C6] Makes a new L1 or refcount table that was just written, and refcounts, durable. */
export function headerWaitsForTable(image: Qcow2Image): Promise<void> {
  return image.refcounts.flush();
}
