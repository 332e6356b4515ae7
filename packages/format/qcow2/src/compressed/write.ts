/**
 * Writing compressed clusters.
 *
 * Above: driver.ts (`writev` with `compressed`). Below: codec, refcount/allocate, mapping.
 *
 *   compress ─▶ take the turn ─▶ [lock: room for every cluster] ─▶ give the turn on ─▶ write ─▶ [lock: link]
 *
 * 1. Clusters are compressed outside of every lock, all of a request at once.
 * 2. Room is taken in the order in which requests were submitted, whatever their compression took: the
 *    layout is the same on every run.
 * 3. Data that lies side by side in the file is written with one vectored write.
 * 4. A cluster that does not shrink is stored plain. What a cluster held before is dropped when it is
 *    linked [C3]. Entries are linked only after their data is written [C10].
 * 5. A last cluster that the end of the disk cuts is filled up with zeroes.
 *
 * All bytes for the file pass `writeRun`: a cache for small sequential writes goes there.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import {
  compressedEntryHigh,
  compressedEntryLow,
  type GuestOffset,
  type HostOffset,
  standardEntryHigh,
  standardEntryLow,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { abandon, dropEntry } from "../mapping/allocate.js";
import { l2ForWrite } from "../mapping/l2-tables.js";
import { PendingAllocation } from "../mapping/pending.js";
import { withClusters } from "../mapping/write.js";
import { allocateBytes, allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure } from "../refcount/free.js";
import { TaskGroup } from "../task-group.js";
import { l2WaitsForData, l2WaitsForRefcounts } from "../writeback/order.js";

/** Writes of one request at once. */
const MAX_PARALLEL_WRITES = 8;

/** One cluster on its way to the file. */
interface Placed {
  readonly guestOffset: GuestOffset;
  readonly hostOffset: HostOffset;
  /** What goes to the file: compressed, or the whole cluster. */
  readonly bytes: Uint8Array;
  readonly compressed: boolean;
}

/** Room for a whole request. */
interface Placement {
  readonly pending: PendingAllocation;
  readonly clusters: readonly Placed[];
}

/**
 * Writes whole clusters compressed.
 *
 * @throws BlockError `EINVAL` when the range is not whole clusters, up to the end of the disk
 */
export async function writeCompressed(
  image: Qcow2Image,
  offset: GuestOffset,
  source: IoVector,
  options?: RequestOptions,
): Promise<void> {
  const { clusterSize, virtualSize } = image.geometry;
  const end = offset + source.lengthBytes;
  if (offset % clusterSize !== 0 || (end % clusterSize !== 0 && end !== virtualSize)) {
    throw new BlockError("EINVAL", "a compressed write covers whole clusters", {
      op: "write",
      node: image.nodeName,
      offset,
      length: source.lengthBytes,
    });
  }
  const before = image.compressedTurn;
  let passTurn = (): void => {};
  image.compressedTurn = new Promise((resolve) => {
    passTurn = resolve;
  });
  let placement: Placement;
  try {
    const clusters = clustersOf(source, clusterSize);
    const packed = await image.codec.compress(clusters, clusterSize - 1);
    await before;
    placement = await withClusters(image, offset, source.lengthBytes, options?.signal, () =>
      place(image, offset, clusters, packed),
    );
  } finally {
    // Also after a failure; but never before those who came first.
    void before.then(passTurn);
  }
  await writePlaced(image, placement, options);
}

/** The clusters of a request, each in one buffer; the last filled up with zeroes. */
function clustersOf(source: IoVector, clusterSize: number): Uint8Array[] {
  const clusters: Uint8Array[] = [];
  for (let at = 0; at < source.lengthBytes; at += clusterSize) {
    const part = source.slice(at, Math.min(at + clusterSize, source.lengthBytes));
    if (part.lengthBytes === clusterSize) {
      clusters.push(part.toBytes());
      continue;
    }
    const padded = new Uint8Array(clusterSize);
    part.copyTo(padded.subarray(0, part.lengthBytes));
    clusters.push(padded);
  }
  return clusters;
}

/** Takes room for every cluster, in order. Holds: the image lock. After failure: nothing is taken. */
async function place(
  image: Qcow2Image,
  offset: GuestOffset,
  clusters: readonly Uint8Array[],
  packed: readonly (Uint8Array | undefined)[],
): Promise<Placement> {
  const { clusterSize, maxCompressedOffset } = image.geometry;
  const placed: Placed[] = [];
  try {
    for (const [i, cluster] of clusters.entries()) {
      const guestOffset = offset + i * clusterSize;
      // QEMU makes the L2 table first: it decides where the data goes.
      image.l2.release((await l2ForWrite(image, guestOffset)).table);
      const small = packed[i];
      if (small === undefined) {
        const hostOffset = await allocateClusters(image, 1);
        placed.push({ guestOffset, hostOffset, bytes: cluster, compressed: false });
        continue;
      }
      const hostOffset = await allocateBytes(image, small.length);
      placed.push({ guestOffset, hostOffset, bytes: small, compressed: true });
      if (hostOffset + small.length > maxCompressedOffset) {
        throw new BlockError("EFBIG", `${image.nodeName}: no room for compressed data is left`);
      }
    }
  } catch (error) {
    await giveBack(image, placed);
    throw error;
  }
  const end = offset + clusters.length * clusterSize;
  // The list of allocations in flight only guards the guest range here; the room is given back apart.
  const pending = new PendingAllocation(offset, end, 0, true);
  image.pending.add(pending);
  return { pending, clusters: placed };
}

async function giveBack(image: Qcow2Image, placed: readonly Placed[]): Promise<void> {
  for (const { hostOffset, bytes } of placed) {
    await lowerAfterFailure(image, hostOffset, bytes.length);
  }
}

/** Writes the data, then links it. */
async function writePlaced(
  image: Qcow2Image,
  placement: Placement,
  options?: RequestOptions,
): Promise<void> {
  const group = new TaskGroup(MAX_PARALLEL_WRITES);
  try {
    for (const run of runsOf(placement.clusters)) {
      group.add(writeRun(image, run, options));
      await group.room();
    }
  } catch (error) {
    group.fail(error);
  }
  let written = false;
  try {
    await group.drain();
    written = true;
  } finally {
    await finish(image, placement, written);
  }
}

/** Splits at every gap in the file. */
function runsOf(clusters: readonly Placed[]): Placed[][] {
  const runs: Placed[][] = [];
  let end = -1;
  for (const one of clusters) {
    if (one.hostOffset === end) runs.at(-1)?.push(one);
    else runs.push([one]);
    end = one.hostOffset + one.bytes.length;
  }
  return runs;
}

/** The one way of compressed data to the file. */
async function writeRun(
  image: Qcow2Image,
  run: readonly Placed[],
  options?: RequestOptions,
): Promise<void> {
  const first = run[0] as Placed;
  image.wroteCompressed = true;
  const vector = IoVector.from(run.map((one) => one.bytes));
  await image.writeHost(first.hostOffset, vector, options);
}

/** Links every cluster, or gives the room back; then lets the waiters go on. */
async function finish(image: Qcow2Image, placement: Placement, written: boolean): Promise<void> {
  const lease = await image.lock.acquire();
  let linked = 0;
  try {
    if (!written) return;
    for (const one of placement.clusters) {
      await link(image, one);
      linked++;
    }
    image.counters.compressedWrites += linked;
  } finally {
    await giveBack(image, placement.clusters.slice(linked));
    await abandon(image, [placement.pending]);
    lease.release();
  }
}

async function link(image: Qcow2Image, one: Placed): Promise<void> {
  const { l2, geometry } = image;
  const { table, index } = await l2ForWrite(image, one.guestOffset);
  try {
    await l2WaitsForRefcounts(image);
    l2WaitsForData(image);
    dropEntry(image, l2.entryHigh(table, index), l2.entryLow(table, index));
    if (one.compressed) {
      const high = compressedEntryHigh(geometry, one.hostOffset, one.bytes.length);
      l2.setEntry(table, index, high, compressedEntryLow(one.hostOffset));
    } else {
      const high = standardEntryHigh(one.hostOffset, true);
      l2.setEntry(table, index, high, standardEntryLow(one.hostOffset));
    }
  } finally {
    l2.release(table);
  }
}
