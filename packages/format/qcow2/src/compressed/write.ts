/**
 * Writing compressed clusters.
 *
 * Above: driver.ts (`writev` with `compressed`). Below: codec, refcount/allocate, mapping, compressed cache.
 *
 *   compress ─▶ take the turn ─▶ [lock: room for every cluster] ─▶ give the turn on ─▶ write ─▶ [lock: link]
 *
 * and with the compressed cache, which readers see:
 *
 *   compress ─▶ take the turn ─▶ [lock: room ─▶ cache ─▶ link] … ─▶ give the turn on ─▶ write what is finished
 *
 * 1. Clusters are compressed outside of every lock, all of a request at once.
 * 2. Room is taken in the order in which requests were submitted, whatever their compression took: the
 *    layout is the same on every run, and the cache is filled in order [S10].
 * 3. Without the cache, data that lies side by side in the file is written with one vectored write, and
 *    entries are linked only after their data is written [C10]. With it, an entry is linked at once, and
 *    its L2 table does not reach the file before its data [S11].
 * 4. A cluster that does not shrink is stored plain, past the cache. What a cluster held before is dropped
 *    when it is linked [C3].
 * 5. A last cluster that the end of the disk cuts is filled up with zeroes.
 * 6. While one request waits for room in the cache, those behind it wait for their turn: memory is bounded.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import {
  compressedEntryHigh,
  compressedEntryLow,
  type GuestOffset,
  type HostOffset,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { abandon, dropEntry } from "../mapping/allocate.js";
import { storeCompressed, storeEntry } from "../mapping/l2-entry.js";
import { l2ForWrite } from "../mapping/l2-tables.js";
import { PendingAllocation } from "../mapping/pending.js";
import { withClusters } from "../mapping/write.js";
import { allocateBytes, allocateClusters } from "../refcount/allocate.js";
import { lowerAfterFailure } from "../refcount/free.js";
import { TaskGroup } from "../task-group.js";
import type { CompressedCache } from "../writeback/compressed-cache.js";
import { settleCompressedCache } from "../writeback/compressed-cache-switch.js";
import { l2WaitsForCompressed, l2WaitsForData, l2WaitsForRefcounts } from "../writeback/order.js";

/** Placements of one request that are written at once. */
const MAX_PARALLEL_PLACEMENTS = 8;
/** Writes of one placement at once. */
const MAX_PARALLEL_WRITES = 8;

/** One cluster on its way to the file. */
interface Placed {
  readonly guestOffset: GuestOffset;
  readonly hostOffset: HostOffset;
  /** What goes to the file: compressed, or the whole cluster. */
  readonly bytes: Uint8Array;
  readonly compressed: boolean;
}

/** Clusters that have their room, and are to be written. */
interface Placement {
  /** Guards their guest range; none when there is nothing to write. */
  readonly pending: PendingAllocation | undefined;
  readonly clusters: readonly Placed[];
  /** How many clusters of the request are settled: those above, and those that are in the cache. */
  readonly count: number;
}

/** Clusters of one request that have no room yet. */
interface Waiting {
  readonly guestOffset: GuestOffset;
  readonly clusters: readonly Uint8Array[];
  /** For each cluster what it became; undefined when it did not shrink. */
  readonly packed: readonly (Uint8Array | undefined)[];
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
  const group = new TaskGroup(MAX_PARALLEL_PLACEMENTS);
  try {
    const clusters = clustersOf(source, clusterSize);
    const packed = await image.codec.compress(clusters, clusterSize - 1);
    await before;
    await settleCompressedCache(image);
    await placeAll(image, { guestOffset: offset, clusters, packed }, group, options);
  } catch (error) {
    group.fail(error);
  } finally {
    // Also after a failure; but never before those who came first.
    void before.then(passTurn);
  }
  await group.drain();
}

/** Finds room for all clusters, and starts what is to be written. Holds: the turn. */
async function placeAll(
  image: Qcow2Image,
  all: Waiting,
  group: TaskGroup,
  options?: RequestOptions,
): Promise<void> {
  const { clusterSize } = image.geometry;
  const { compressedCache: cache } = image;
  for (let done = 0; done < all.clusters.length && !group.failed; ) {
    const rest: Waiting = {
      guestOffset: all.guestOffset + done * clusterSize,
      clusters: all.clusters.slice(done),
      packed: all.packed.slice(done),
    };
    await cache?.room();
    const lengthBytes = rest.clusters.length * clusterSize;
    const placement = await withClusters(
      image,
      rest.guestOffset,
      lengthBytes,
      options?.signal,
      () => place(image, rest, cache),
    );
    done += placement.count;
    const { pending } = placement;
    if (pending !== undefined) group.add(writePlaced(image, pending, placement.clusters, options));
    if (cache !== undefined) group.add(cache.writeFinished());
    await group.room();
  }
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

/**
 * Takes room for clusters, in order: for all of them, or for as many as the cache takes now.
 *
 * Holds: the image lock. After failure: what is in the cache is linked, and nothing else is taken.
 */
async function place(
  image: Qcow2Image,
  { guestOffset: start, clusters, packed }: Waiting,
  cache: CompressedCache | undefined,
): Promise<Placement> {
  const { clusterSize } = image.geometry;
  const placed: Placed[] = [];
  let count = 0;
  try {
    for (; count < clusters.length; count++) {
      if (cache !== undefined && (cache.full || cache.worthWriting)) break;
      const guestOffset = start + count * clusterSize;
      const cluster = clusters[count] as Uint8Array;
      // QEMU makes the L2 table first: it decides where the data goes.
      image.l2.release((await l2ForWrite(image, guestOffset)).table);
      const small = packed[count];
      const one =
        small === undefined
          ? await placePlain(image, guestOffset, cluster)
          : await placeSmall(image, guestOffset, small);
      if (cache !== undefined && one.compressed) await putInCache(image, cache, one);
      else placed.push(one);
    }
  } catch (error) {
    await giveBack(image, placed);
    throw error;
  }
  if (placed.length === 0) return { pending: undefined, clusters: placed, count };
  // The list of allocations in flight only guards the guest range here; the room is given back apart.
  const pending = new PendingAllocation(start, start + count * clusterSize, 0, true);
  image.pending.add(pending);
  return { pending, clusters: placed, count };
}

async function placePlain(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  bytes: Uint8Array,
): Promise<Placed> {
  const hostOffset = await allocateClusters(image, 1);
  return { guestOffset, hostOffset, bytes, compressed: false };
}

async function placeSmall(
  image: Qcow2Image,
  guestOffset: GuestOffset,
  bytes: Uint8Array,
): Promise<Placed> {
  const hostOffset = await allocateBytes(image, bytes.length);
  const one: Placed = { guestOffset, hostOffset, bytes, compressed: true };
  if (hostOffset + bytes.length > image.geometry.maxCompressedOffset) {
    // The cursor stands behind room without data, and a cluster in the cache is filled without a gap [S1, D4].
    image.allocator.compressedCursor = 0;
    await giveBack(image, [one]);
    throw new BlockError("EFBIG", `${image.nodeName}: no room for compressed data is left`);
  }
  image.wroteCompressed = true;
  return one;
}

/**
 * Puts data where readers find it, and links it. What cannot be linked stays in the cache as filling, so that the
 * next data follows without a gap. Holds: the image lock, since the allocation [S10].
 */
async function putInCache(image: Qcow2Image, cache: CompressedCache, one: Placed): Promise<void> {
  cache.put(one.hostOffset, one.bytes);
  try {
    await link(image, one);
  } catch (error) {
    await giveBack(image, [one]);
    throw error;
  }
  image.counters.compressedWrites++;
}

/** Gives room back whose data will not be linked. */
async function giveBack(image: Qcow2Image, placed: readonly Placed[]): Promise<void> {
  for (const { hostOffset, bytes } of placed) {
    await lowerAfterFailure(image, hostOffset, bytes.length);
  }
}

/** Writes the data, then links it. */
async function writePlaced(
  image: Qcow2Image,
  pending: PendingAllocation,
  clusters: readonly Placed[],
  options?: RequestOptions,
): Promise<void> {
  const group = new TaskGroup(MAX_PARALLEL_WRITES);
  try {
    for (const run of runsOf(clusters)) {
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
    await finish(image, pending, clusters, written);
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

/** The way to the file for what is not cached. */
async function writeRun(
  image: Qcow2Image,
  run: readonly Placed[],
  options?: RequestOptions,
): Promise<void> {
  const first = run[0] as Placed;
  const vector = IoVector.from(run.map((one) => one.bytes));
  const event = first.compressed ? "write_compressed" : "write_aio";
  await image.writeHost(first.hostOffset, vector, options, event);
}

/** Links every cluster, or gives the room back; then lets the waiters go on. */
async function finish(
  image: Qcow2Image,
  pending: PendingAllocation,
  clusters: readonly Placed[],
  written: boolean,
): Promise<void> {
  const lease = await image.lock.acquire();
  let linked = 0;
  try {
    if (!written) return;
    for (const one of clusters) {
      await link(image, one);
      linked++;
      if (one.compressed) image.counters.compressedWrites++;
    }
  } finally {
    await giveBack(image, clusters.slice(linked));
    await abandon(image, [pending]);
    lease.release();
  }
}

async function link(image: Qcow2Image, one: Placed): Promise<void> {
  const { l2, geometry } = image;
  const { table, index } = await l2ForWrite(image, one.guestOffset);
  try {
    if (one.compressed) await image.event("l2_update_compressed");
    await l2WaitsForRefcounts(image);
    await l2WaitsForCompressed(image);
    l2WaitsForData(image);
    dropEntry(image, l2.entryHigh(table, index), l2.entryLow(table, index));
    if (one.compressed) {
      const high = compressedEntryHigh(geometry, one.hostOffset, one.bytes.length);
      storeCompressed(image, table, index, high, compressedEntryLow(one.hostOffset));
    } else {
      const { hostOffset } = one;
      const allocated = geometry.allSubclusters;
      storeEntry(image, table, index, { hostOffset, copied: true, allocated, zeroes: 0 });
    }
  } finally {
    l2.release(table);
  }
}
