/**
 * Taking host clusters.
 *
 * Above: mapping, compressed/write, grow. Below: search.ts, raise.ts.
 *
 * Layout is QEMU's, so that writes in order give the same file: the search goes up from a cursor; a
 * run of clusters is contiguous; a refcount block that is missing goes behind the run that needs it,
 * and the search then begins again where the run began.
 *
 * 1. A cluster is free when its refcount is 0 and no request in flight may touch it [D1].
 * 2. A raised refcount is in the cache when an offset is returned; who links the cluster adds the
 *    edge of order.ts [C2].
 *
 * Locking: the image lock is held throughout.
 */
import type { ClusterIndex, HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { raiseRefcounts } from "./raise.js";
import { findFree, freeRun } from "./search.js";
import { getRefcount } from "./stored.js";

/** Where the searches begin. */
export class AllocatorState {
  /** No cluster below this one is free, as far as anybody knows. */
  cursor: ClusterIndex = 0;
  /** Where the next compressed bytes go, inside a cluster of compressed data only; 0: nowhere [D4]. */
  compressedCursor: HostOffset = 0;
  /**
   * Clusters that the file may name as refcount blocks, since the write of the entry failed: not counted, and
   * never taken.
   */
  readonly lost: Set<ClusterIndex> = new Set();

  /** A cluster below the cursor may be taken again. */
  mayReuse(cluster: ClusterIndex): void {
    if (cluster < this.cursor) this.cursor = cluster;
  }
}

/**
 * Takes contiguous clusters with a refcount of 1 each.
 *
 * @returns the host offset of the first
 * @throws BlockError `EFBIG` when no offset is left; DamageError
 */
export async function allocateClusters(image: Qcow2Image, count: number): Promise<HostOffset> {
  const event = image.event("cluster_alloc");
  if (event instanceof Promise) await event;
  for (;;) {
    const first = await findFree(image, count);
    if (await raiseRefcounts(image, first, count)) {
      image.counters.allocatedClusters += count;
      return first * image.geometry.clusterSize;
    }
  }
}

/**
 * Takes up to `count` clusters from a given place on, as many as are free in a row.
 *
 * @returns how many
 */
export async function allocateClustersAt(
  image: Qcow2Image,
  hostOffset: HostOffset,
  count: number,
): Promise<number> {
  const first = hostOffset / image.geometry.clusterSize;
  if (first + count > image.geometry.maxHostClusters) return 0;
  for (;;) {
    const run = await freeRun(image, first, count);
    if (run === 0 || (await raiseRefcounts(image, first, run))) {
      image.counters.allocatedClusters += run;
      return run;
    }
  }
}

/**
 * Takes room for compressed data: behind the last such data when it fits, or when the cluster behind
 * that is free too; otherwise in a new cluster [D4].
 *
 * @param lengthBytes - less than a cluster
 * @returns any byte offset
 */
export async function allocateBytes(image: Qcow2Image, lengthBytes: number): Promise<HostOffset> {
  const { allocator, geometry } = image;
  const { clusterSize, maxRefcount } = geometry;
  await image.event("cluster_alloc_bytes");
  let offset = allocator.compressedCursor;
  if (offset !== 0) {
    const count = await getRefcount(image, Math.floor(offset / clusterSize));
    if (count < 1 || count >= maxRefcount) offset = 0;
  }
  for (;;) {
    const room = offset === 0 ? 0 : clusterSize - (offset % clusterSize);
    if (room < lengthBytes) {
      const next = (await findFree(image, 1)) * clusterSize;
      if (room === 0 || next !== offset + room) offset = next;
    }
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + lengthBytes - 1) / clusterSize);
    if (await raiseRefcounts(image, first, last - first + 1)) break;
    offset = 0;
  }
  const end = offset + lengthBytes;
  allocator.compressedCursor = end % clusterSize === 0 ? 0 : end;
  return offset;
}
