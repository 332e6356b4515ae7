/**
 * Reading compressed clusters.
 *
 * Above: mapping/read.ts, with a run of compressed entries. Below: compressed cache, file child, codec.
 *
 * Clusters whose data lies side by side in the file are fetched with one read, and whole clusters are
 * decompressed where the caller wants them. A part of one cluster goes through a small cache.
 *
 * What the compressed cache holds is taken from there, and only the gaps from the file, in this order:
 * between a read of the file and a look into the cache, data could move from the one to the other [S4].
 *
 * The data of a cluster is as long as its descriptor says, rounded up to sectors; the file may end
 * before that, and so may the stream.
 *
 * Source: the qcow2 specification, "Compressed Clusters Descriptor".
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { CorruptImageError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import {
  compressedLengthOf,
  compressedOffsetOf,
  type GuestOffset,
  type HostOffset,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { Mapping } from "../mapping/lookup.js";
import { TaskGroup } from "../task-group.js";
import { PAYLOAD_BYTES } from "./payload-pool.js";

/** Foreign bytes between two clusters' data that are read along. */
const MAX_HOLE_BYTES = 4096;
/** Less is not worth two megabytes of shared memory: a copy of it reaches a thread as soon. */
const SMALL_BYTES = 16_384;
/** Fetches of one request at once. */
const MAX_PARALLEL_FETCHES = 4;

/** The data of one cluster, and the part of the cluster that is wanted. */
interface Wanted {
  readonly hostOffset: HostOffset;
  readonly lengthBytes: number;
  /** First byte of the part, in the cluster. */
  readonly start: number;
  /** Where the part goes in the request's vector, and its length. */
  readonly at: number;
  readonly bytes: number;
}

/** Clusters whose data is fetched with one read. */
interface Fetch {
  readonly hostOffset: HostOffset;
  end: HostOffset;
  readonly clusters: Wanted[];
}

/**
 * Fills the vector from a run of compressed clusters.
 *
 * @param mapping - the run; used before this returns
 */
export function readCompressed(
  image: Qcow2Image,
  mapping: Mapping,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  const { clusterSize } = image.geometry;
  const inCluster = offset % clusterSize;
  if (inCluster + target.lengthBytes <= clusterSize && target.lengthBytes < clusterSize) {
    return readPart(image, wantedAt(image, mapping, 0, inCluster, target.lengthBytes), target);
  }
  const fetches = planFetches(image, mapping, inCluster, target.lengthBytes);
  return runFetches(image, fetches, target, options);
}

/** The descriptor of the run's cluster `ahead`, as a Wanted. */
function wantedAt(
  image: Qcow2Image,
  mapping: Mapping,
  ahead: number,
  start: number,
  bytes: number,
  at = 0,
): Wanted {
  const position = (mapping.index + ahead) * image.geometry.l2EntrySize;
  const high = mapping.view.getUint32(position);
  const low = mapping.view.getUint32(position + 4);
  const hostOffset = compressedOffsetOf(image.geometry, high, low);
  const lengthBytes = compressedLengthOf(image.geometry, high, low);
  if (hostOffset > image.geometry.maxCompressedOffset) throw badData(hostOffset, "lies nowhere");
  return { hostOffset, lengthBytes, start, at, bytes };
}

function badData(hostOffset: HostOffset, rule: string): CorruptImageError {
  return new CorruptImageError({ structure: "compressed cluster", hostOffset, rule });
}

/** Groups the clusters of a run by where their data lies. */
function planFetches(
  image: Qcow2Image,
  mapping: Mapping,
  inCluster: number,
  lengthBytes: number,
): Fetch[] {
  const { clusterSize } = image.geometry;
  const fetches: Fetch[] = [];
  let current: Fetch | undefined;
  let start = inCluster;
  for (let at = 0, ahead = 0; at < lengthBytes; ahead++) {
    const bytes = Math.min(clusterSize - start, lengthBytes - at);
    const one = wantedAt(image, mapping, ahead, start, bytes, at);
    const end = one.hostOffset + one.lengthBytes;
    if (
      current !== undefined &&
      one.hostOffset >= current.hostOffset &&
      one.hostOffset <= current.end + MAX_HOLE_BYTES &&
      Math.max(end, current.end) - current.hostOffset <= PAYLOAD_BYTES
    ) {
      current.clusters.push(one);
      current.end = Math.max(end, current.end);
    } else {
      current = { hostOffset: one.hostOffset, end, clusters: [one] };
      fetches.push(current);
    }
    at += bytes;
    start = 0;
  }
  return fetches;
}

async function runFetches(
  image: Qcow2Image,
  fetches: readonly Fetch[],
  target: IoVector,
  options?: RequestOptions,
): Promise<void> {
  // The descriptors were looked up all at once: none of their clusters may be taken again meanwhile [D1].
  const epoch = image.inFlight.enter();
  try {
    for (const batch of batchesOf(fetches)) await runBatch(image, batch, target, options);
  } finally {
    epoch.settle();
  }
}

/** Groups fetches whose data fits one buffer together. */
function batchesOf(fetches: readonly Fetch[]): Fetch[][] {
  const batches: Fetch[][] = [];
  let room = 0;
  for (const fetch of fetches) {
    const length = fetch.end - fetch.hostOffset;
    if (length > room) {
      batches.push([]);
      room = PAYLOAD_BYTES;
    }
    batches.at(-1)?.push(fetch);
    room -= length;
  }
  return batches;
}

/**
 * Reads several stretches of data side by side, and decompresses their clusters all at once: a codec
 * with threads makes use of them only when it gets enough to do.
 */
async function runBatch(
  image: Qcow2Image,
  batch: readonly Fetch[],
  target: IoVector,
  options?: RequestOptions,
): Promise<void> {
  const lengths = batch.map((one) => lengthInFile(image, one.hostOffset, one.end - one.hostOffset));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const isPooled = total > SMALL_BYTES && total <= PAYLOAD_BYTES;
  const buffer = isPooled ? await image.payloads.take() : undefined;
  const data = buffer ?? new Uint8Array(total);
  try {
    let at = 0;
    const pieces = lengths.map((length) => data.subarray(at, (at += length)));
    await readPieces(image, batch, pieces, options);
    await unpack(image, batch, pieces, target);
  } finally {
    if (buffer !== undefined) image.payloads.put(buffer);
  }
}

/** Fills a piece for each fetch. Ends when all reads did: nobody touches the buffer afterwards. */
async function readPieces(
  image: Qcow2Image,
  batch: readonly Fetch[],
  pieces: readonly Uint8Array[],
  options?: RequestOptions,
): Promise<void> {
  const group = new TaskGroup(MAX_PARALLEL_FETCHES);
  try {
    for (const [i, fetch] of batch.entries()) {
      if (group.failed) break;
      group.add(readPiece(image, fetch.hostOffset, pieces[i] as Uint8Array, options));
      await group.room();
    }
  } catch (error) {
    group.fail(error);
  }
  await group.drain();
}

async function readPiece(
  image: Qcow2Image,
  hostOffset: HostOffset,
  piece: Uint8Array,
  options?: RequestOptions,
): Promise<void> {
  const { compressedCache: cache } = image;
  const found = cache === undefined ? "miss" : cache.read(hostOffset, piece);
  if (found === "hit") return;
  if (found === "miss") {
    await image.readHost(hostOffset, IoVector.of(piece), options, "read_compressed");
    return;
  }
  for (const { position, length } of found) {
    const gap = piece.subarray(position, position + length);
    await image.readHost(hostOffset + position, IoVector.of(gap), options, "read_compressed");
  }
}

/** Decompresses the clusters of a batch, where they are wanted if that is one piece. */
async function unpack(
  image: Qcow2Image,
  batch: readonly Fetch[],
  pieces: readonly Uint8Array[],
  target: IoVector,
): Promise<void> {
  const { clusterSize } = image.geometry;
  const items: { payload: Uint8Array; target: Uint8Array }[] = [];
  const bounced: { bytes: Uint8Array; one: Wanted }[] = [];
  for (const [i, fetch] of batch.entries()) {
    const data = pieces[i] as Uint8Array;
    for (const one of fetch.clusters) {
      const from = one.hostOffset - fetch.hostOffset;
      const payload = data.subarray(from, from + one.lengthBytes);
      if (payload.length === 0) throw badData(one.hostOffset, "lies past the end of the file");
      let bytes = one.bytes === clusterSize ? contiguous(target, one.at, clusterSize) : undefined;
      if (bytes === undefined) {
        bytes = new Uint8Array(clusterSize);
        bounced.push({ bytes, one });
      }
      items.push({ payload, target: bytes });
    }
  }
  image.counters.compressedReads += items.length;
  await image.codec.decompressMany(items);
  for (const { bytes, one } of bounced) {
    target.copyFrom(bytes.subarray(one.start, one.start + one.bytes), one.at);
  }
}

/** How much of a range the file has, or will have. */
function lengthInFile(image: Qcow2Image, hostOffset: HostOffset, lengthBytes: number): number {
  const end = Math.max(image.file.lengthBytes, image.compressedCache?.end ?? 0);
  const inside = Math.min(lengthBytes, end - hostOffset);
  if (inside <= 0) throw badData(hostOffset, "lies past the end of the file");
  return inside;
}

/** The target's own bytes of a range, if they lie in one buffer. */
function contiguous(target: IoVector, at: number, lengthBytes: number): Uint8Array | undefined {
  let partStart = 0;
  for (const part of target.parts) {
    const from = at - partStart;
    if (from < part.length) {
      return from + lengthBytes <= part.length
        ? part.subarray(from, from + lengthBytes)
        : undefined;
    }
    partStart += part.length;
  }
  return undefined;
}

/** A part of one cluster, out of the cache if it is there. */
function readPart(image: Qcow2Image, one: Wanted, target: IoVector): MaybePromise<void> {
  const { readCache } = image;
  const cached = readCache.peek(one.hostOffset);
  if (cached !== undefined) {
    target.copyFrom(cached.subarray(one.start, one.start + one.bytes));
    return;
  }
  let loading = readCache.loading(one.hostOffset);
  if (loading === undefined) {
    loading = decompressOne(image, one);
    readCache.putLoading(one.hostOffset, loading);
  }
  return loading.then((bytes) => target.copyFrom(bytes.subarray(one.start, one.start + one.bytes)));
}

async function decompressOne(image: Qcow2Image, one: Wanted): Promise<Uint8Array> {
  const payload = new Uint8Array(lengthInFile(image, one.hostOffset, one.lengthBytes));
  await readPiece(image, one.hostOffset, payload);
  const bytes = new Uint8Array(image.geometry.clusterSize);
  image.counters.compressedReads++;
  await image.codec.decompress(payload, bytes);
  return bytes;
}
