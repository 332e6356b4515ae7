/**
 * Looking up how often a host cluster is referenced.
 *
 * Above: search, raise, allocate, free. Below: refcount table and cache.
 *
 * Locking: the image lock is held throughout.
 */
import type { MaybePromise } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import type { ClusterIndex } from "../geometry.js";
import type { Qcow2Image } from "../image.js";

/** The refcount block of a cluster, pinned; undefined when there is none: every count is 0. */
export function getRefcountBlock(
  image: Qcow2Image,
  cluster: ClusterIndex,
): MaybePromise<Table | undefined> {
  const { refcountBlockEntries } = image.geometry;
  const offset = image.refcountTable.blockOffset(Math.floor(cluster / refcountBlockEntries));
  return offset === 0 ? undefined : image.refcounts.get(offset);
}

/** How often a host cluster is referenced, if that is known without reading. */
export function peekRefcount(image: Qcow2Image, cluster: ClusterIndex): number | undefined {
  const { refcountBlockEntries } = image.geometry;
  const offset = image.refcountTable.blockOffset(Math.floor(cluster / refcountBlockEntries));
  if (offset === 0) return 0;
  const block = image.refcounts.peek(offset);
  return block && image.refcounts.getRefcount(block, cluster % refcountBlockEntries);
}

/** How often a host cluster is referenced. */
export async function getRefcount(image: Qcow2Image, cluster: ClusterIndex): Promise<number> {
  const block = await getRefcountBlock(image, cluster);
  if (block === undefined) return 0;
  try {
    return image.refcounts.getRefcount(block, cluster % image.geometry.refcountBlockEntries);
  } finally {
    image.refcounts.release(block);
  }
}
