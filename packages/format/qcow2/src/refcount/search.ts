/**
 * Finding free host clusters.
 *
 * Above: allocate.ts, raise.ts. Below: stored.ts, inflight.ts.
 *
 * A cluster is free when its refcount is 0 and no request in flight may touch it [D1]. Where there is
 * no refcount block every cluster is free.
 *
 * Locking: the image lock is held throughout.
 */
import { andThen, BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import type { ClusterIndex } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { DamageError } from "./damage.js";
import { getRefcountBlock } from "./stored.js";

/**
 * Finds `count` free clusters in a row from the cursor on, and moves the cursor behind them.
 *
 * @throws BlockError `EFBIG` when there is no such run below `maxHostClusters`
 */
export async function findFree(image: Qcow2Image, count: number): Promise<ClusterIndex> {
  const { allocator, geometry } = image;
  const scan: Scan = { next: allocator.cursor, free: 0 };
  let busyBlocks = 0;
  while (scan.free < count) {
    if (scan.next >= geometry.maxHostClusters) throw tooLong(image);
    const scanned = scanBlock(image, scan, count, false);
    if (scanned instanceof Promise) await scanned;
    if (scan.free === 0 && ++busyBlocks > maxBusyBlocks(image)) {
      throw new DamageError({
        structure: "refcount table",
        hostOffset: image.refcountTable.hostOffset,
        rule: "refcounts far past the end of the file are in use",
      });
    }
  }
  if (scan.next > geometry.maxHostClusters) throw tooLong(image);
  const first = scan.next - count;
  if (first === 0) {
    throw new DamageError({
      structure: "refcount block",
      rule: "the refcount of cluster 0, which holds the header, is 0",
    });
  }
  allocator.cursor = scan.next;
  return first;
}

function tooLong(image: Qcow2Image): BlockError {
  return new BlockError("EFBIG", `${image.nodeName}: the image file cannot grow any further`);
}

/** Blocks that may be searched in vain: what the file can hold, and generously more. */
function maxBusyBlocks(image: Qcow2Image): number {
  const { clusterSize, refcountBlockEntries } = image.geometry;
  return 65536 + Math.ceil(image.file.lengthBytes / clusterSize / refcountBlockEntries);
}

/** How many clusters are free in a row from `first` on, at most `count`. */
export async function freeRun(
  image: Qcow2Image,
  first: ClusterIndex,
  count: number,
): Promise<number> {
  const scan: Scan = { next: first, free: 0 };
  while (scan.free < count) if (!(await scanBlock(image, scan, count, true))) break;
  return scan.free;
}

/** A search on its way: the cluster to look at next, and how many before it are free in a row. */
interface Scan {
  next: ClusterIndex;
  free: number;
}

/**
 * Goes on with a search to the end of one refcount block, or until `wanted` are free in a row.
 *
 * @param exact - stop at the first cluster that is in use
 * @returns false when it stopped there
 */
function scanBlock(
  image: Qcow2Image,
  scan: Scan,
  wanted: number,
  exact: boolean,
): MaybePromise<boolean> {
  return andThen(getRefcountBlock(image, scan.next), (block) =>
    scanPinned(image, block, scan, wanted, exact),
  );
}

/** The search in a block, which is let go. */
function scanPinned(
  image: Qcow2Image,
  block: Table | undefined,
  scan: Scan,
  wanted: number,
  exact: boolean,
): boolean {
  const { refcounts, geometry, inFlight, allocator } = image;
  const blockStart = scan.next - (scan.next % geometry.refcountBlockEntries);
  const blockEnd = blockStart + geometry.refcountBlockEntries;
  try {
    for (; scan.next < blockEnd && scan.free < wanted; scan.next++) {
      const used =
        (block !== undefined && refcounts.getRefcount(block, scan.next - blockStart) !== 0) ||
        inFlight.isCooling(scan.next) ||
        (allocator.lost.size > 0 && allocator.lost.has(scan.next));
      if (!used) scan.free++;
      else if (exact) return false;
      else scan.free = 0;
    }
  } finally {
    if (block !== undefined) refcounts.release(block);
  }
  return true;
}
