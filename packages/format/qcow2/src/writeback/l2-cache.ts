/**
 * The L2 cache of an image: how large, in what slices, over which store.
 *
 * Above: open.ts. Below: metadata-cache.
 *
 * The default size is QEMU's: enough for the whole disk up to 32 MiB. Slices are of 4 KiB, QEMU's of a whole table: a random
 * read loads less. But a slice also bounds what a write places in one run, so a file is QEMU's byte for byte as
 * long as no request is longer than a slice maps (32 MiB with clusters of 64 KiB) and needs a refcount block.
 *
 * Source: QEMU's docs/qcow2-cache.txt.
 */
import { BlockError, isPowerOfTwo, MiB } from "@blocklayer/bytes";
import { L2Cache, type MetadataCacheOptions, type TableStore } from "@blocklayer/metadata-cache";
import { type Geometry, MIN_CLUSTER_BITS } from "../geometry.js";

/** Longest L2 cache when the user names none. */
const MAX_DEFAULT_BYTES: number = 32 * MiB;
const DEFAULT_SLICE_BYTES = 4096;
/** More slices than are ever pinned at once. */
const MIN_SLICES = 8;
/** Tables of one refcount cache, at least: as many as QEMU insists on. */
export const MIN_REFCOUNT_TABLES = 4;

/** What the user may say of the caches, in bytes. */
export interface CacheSizeOptions {
  readonly totalBytes?: number;
  readonly l2Bytes?: number;
  readonly l2SliceBytes?: number;
  readonly refcountBytes?: number;
}

/** What was decided. */
export interface CacheSizes {
  readonly l2Bytes: number;
  readonly l2SliceBytes: number;
  readonly refcountBytes: number;
}

/**
 * Decides cache sizes as QEMU does.
 *
 * @throws BlockError `EINVAL` when the sizes contradict each other
 */
export function planCaches(geometry: Geometry, given: CacheSizeOptions): CacheSizes {
  const { clusterSize } = geometry;
  const wholeDiskBytes = Math.max(1, geometry.l1Size) * clusterSize;
  const leastRefcountBytes = MIN_REFCOUNT_TABLES * clusterSize;
  let l2Bytes = given.l2Bytes ?? Math.min(MAX_DEFAULT_BYTES, wholeDiskBytes);
  let refcountBytes = given.refcountBytes ?? leastRefcountBytes;
  const { totalBytes } = given;
  if (totalBytes !== undefined) {
    if (given.l2Bytes !== undefined && given.refcountBytes !== undefined) {
      refuse("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
    }
    if ((given.l2Bytes ?? 0) > totalBytes) refuse("l2-cache-size may not exceed cache-size");
    if ((given.refcountBytes ?? 0) > totalBytes) {
      refuse("refcount-cache-size may not exceed cache-size");
    }
    if (given.l2Bytes !== undefined) refcountBytes = totalBytes - given.l2Bytes;
    else if (given.refcountBytes !== undefined) l2Bytes = totalBytes - given.refcountBytes;
    else {
      l2Bytes = Math.min(wholeDiskBytes, Math.max(0, totalBytes - leastRefcountBytes));
      refcountBytes = totalBytes - l2Bytes;
    }
  }
  const l2SliceBytes = given.l2SliceBytes ?? Math.min(DEFAULT_SLICE_BYTES, clusterSize);
  if (
    !isPowerOfTwo(l2SliceBytes) ||
    l2SliceBytes < 2 ** MIN_CLUSTER_BITS ||
    l2SliceBytes > clusterSize
  ) {
    refuse(`l2-cache-entry-size must be a power of two from 512 to the cluster size`);
  }
  return {
    l2Bytes: Math.max(l2Bytes, MIN_SLICES * l2SliceBytes),
    l2SliceBytes,
    refcountBytes: Math.max(refcountBytes, leastRefcountBytes),
  };
}

function refuse(message: string): never {
  throw new BlockError("EINVAL", `qcow2: ${message}`, { op: "open" });
}

/** What is told of every table that is read or written. */
export type TableHooks = Pick<MetadataCacheOptions, "beforeRead" | "beforeWrite">;

/** Makes the L2 cache. */
export function createL2Cache(
  geometry: Geometry,
  sizes: CacheSizes,
  store: TableStore,
  hooks: TableHooks,
): L2Cache {
  return new L2Cache({
    name: "L2 cache",
    tableSizeBytes: sizes.l2SliceBytes,
    maxTables: Math.floor(sizes.l2Bytes / sizes.l2SliceBytes),
    entrySizeBytes: geometry.l2EntrySize,
    store,
    ...hooks,
  });
}
