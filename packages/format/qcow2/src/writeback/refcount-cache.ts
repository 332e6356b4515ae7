/**
 * The refcount cache of an image: whole refcount blocks, one cluster each.
 *
 * Above: open.ts. Below: metadata-cache, l2-cache.ts (which plans both sizes).
 */
import { isRefcountBits, RefcountCache, type TableStore } from "@blocklayer/metadata-cache";
import { assert } from "@blocklayer/bytes";
import type { Geometry } from "../geometry.js";
import type { CacheSizes, TableHooks } from "./l2-cache.js";

/** Makes the refcount cache. */
export function createRefcountCache(
  geometry: Geometry,
  sizes: CacheSizes,
  store: TableStore,
  hooks: TableHooks,
): RefcountCache {
  const { clusterSize, refcountBits } = geometry;
  assert(isRefcountBits(refcountBits), "the header was checked: the refcount width is valid");
  return new RefcountCache({
    name: "refcount cache",
    tableSizeBytes: clusterSize,
    maxTables: Math.floor(sizes.refcountBytes / clusterSize),
    refcountBits,
    store,
    ...hooks,
  });
}
