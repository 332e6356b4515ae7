/**
 * Copy-on-write: the parts of new clusters and subclusters that a write does not cover [C12].
 *
 * Above: write.ts. Below: read.ts for the old content.
 *
 * 1. At most two spans, a head and a tail, since a chunk is contiguous on the disk.
 * 2. Both are read at once when the gap is small, and written together with the guest data.
 * 3. Spans that read as zeroes are not read. Long ones are not written either where the new clusters
 *    lie past the end of the file (only the file is made long enough), or where the file can zero them.
 * 4. What lies past the end of the disk counts as zeroes; in an external data file it is left alone.
 */
import { hasCode, IoVector } from "@blocklayer/bytes";
import { type GuestOffset, type HostOffset, isUnallocated, isZero } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { WriteChunk } from "./allocate.js";
import { lookup, Mapping } from "./lookup.js";
import { readGuest } from "./read.js";

/** Guest data of this length is read along with the head and the tail rather than skipped. */
const MAX_GAP_BYTES = 16384;
/** Zero spans up to this are written as zero bytes together with the data. */
const SMALL_ZERO_BYTES = 16384;
/** What is written at the end of a cluster to make the file reach there. */
const END_MARK_BYTES = 4096;

/** What is to be written, and where. */
export interface CowWrite {
  readonly hostOffset: HostOffset;
  readonly vector: IoVector;
  /** After that write the file must reach this far. */
  readonly fileEnd: HostOffset;
}

/** The guest ranges of a chunk's allocations that get data, and that the write leaves as they were. */
interface CowSpans {
  readonly headStart: GuestOffset;
  readonly headBytes: number;
  readonly tailStart: GuestOffset;
  readonly tailBytes: number;
}

/** Surrounds guest data with the old content of its clusters. */
export async function withOldContent(
  image: Qcow2Image,
  chunk: WriteChunk,
  source: IoVector,
): Promise<CowWrite> {
  const spans = spansOf(image, chunk);
  const { headBytes, tailBytes } = spans;
  const plain = { hostOffset: chunk.hostOffset, vector: source, fileEnd: 0 };
  if (headBytes === 0 && tailBytes === 0) return plain;
  image.counters.cowBytes += headBytes + tailBytes;
  const zeroHead = readsAsZero(image, spans.headStart, headBytes);
  const zeroTail = readsAsZero(image, spans.tailStart, tailBytes);
  if (zeroHead && zeroTail && headBytes + tailBytes > SMALL_ZERO_BYTES) {
    const start = chunk.hostOffset - headBytes;
    const end = chunk.hostOffset + chunk.lengthBytes + tailBytes;
    if (start >= image.data.lengthBytes) return { ...plain, fileEnd: end };
    if (await zeroedByFile(image, chunk, start, end)) return plain;
  }
  const { head, tail } = await readSpans(image, spans, chunk.lengthBytes, zeroHead, zeroTail);
  return {
    hostOffset: chunk.hostOffset - headBytes,
    vector: IoVector.from([head, ...source.parts, tail]),
    fileEnd: 0,
  };
}

/** Makes the file reach the end of clusters whose zero tail was not written. */
export async function extendFile(image: Qcow2Image, fileEnd: HostOffset): Promise<void> {
  const missing = Math.min(END_MARK_BYTES, fileEnd - image.data.lengthBytes);
  if (missing <= 0) return;
  const mark = IoVector.allocate(missing);
  await image.writeHost(fileEnd - missing, mark, undefined, "cow_write");
}

function spansOf(image: Qcow2Image, chunk: WriteChunk): CowSpans {
  const { guestOffset, lengthBytes, allocations } = chunk;
  const end = guestOffset + lengthBytes;
  const first = allocations[0];
  const last = allocations.at(-1);
  const headStart = Math.min(first?.dataStart ?? guestOffset, guestOffset);
  const tailEnd = Math.max(Math.min(last?.dataEnd ?? end, writableEnd(image)), end);
  return {
    headStart,
    headBytes: guestOffset - headStart,
    tailStart: end,
    tailBytes: tailEnd - end,
  };
}

/** An external data file need not reach past the end of the disk, and a device may not be able to. */
function writableEnd({ geometry }: Qcow2Image): GuestOffset {
  return geometry.externalData ? geometry.virtualSize : Number.MAX_SAFE_INTEGER;
}

/** Whether a span is known to read as zeroes without reading it. */
function readsAsZero(image: Qcow2Image, start: GuestOffset, lengthBytes: number): boolean {
  const onDisk = Math.min(lengthBytes, image.contentEnd(start) - start);
  if (onDisk <= 0) return true;
  const mapping = new Mapping();
  if (!lookup(image, start, onDisk, mapping) || mapping.lengthBytes < onDisk) return false;
  const { kind } = mapping;
  if (isZero(kind)) return true;
  return isUnallocated(kind) && !image.backingCovers(start);
}

/** Lets the file zero the whole chunk. @returns false when that would mean writing zeroes */
async function zeroedByFile(
  image: Qcow2Image,
  chunk: WriteChunk,
  start: HostOffset,
  end: HostOffset,
): Promise<boolean> {
  // What has data keeps it if the write fails: only what has none may be zeroed.
  const [only, more] = chunk.allocations;
  if (only === undefined || more !== undefined || !only.fresh) return false;
  if (only.dataStart + end - start !== Math.min(only.dataEnd, writableEnd(image))) return false;
  if (!image.data.capabilities.writeZeroes) return false;
  if (!image.geometry.externalData) image.overlap.check(start, end - start, 0);
  await image.event("cluster_alloc_space");
  try {
    await image.data.writeZeroes(start, end - start, { noFallback: true });
    return true;
  } catch (error) {
    if (hasCode(error, "ENOTSUP")) return false;
    throw error;
  }
}

async function readSpans(
  image: Qcow2Image,
  spans: CowSpans,
  gapBytes: number,
  zeroHead: boolean,
  zeroTail: boolean,
): Promise<{ head: Uint8Array; tail: Uint8Array }> {
  const { headStart, headBytes, tailStart, tailBytes } = spans;
  if (!zeroHead && !zeroTail && gapBytes <= MAX_GAP_BYTES) {
    const bytes = new Uint8Array(headBytes + gapBytes + tailBytes);
    await readOld(image, headStart, bytes);
    return { head: bytes.subarray(0, headBytes), tail: bytes.subarray(headBytes + gapBytes) };
  }
  const head = new Uint8Array(headBytes);
  const tail = new Uint8Array(tailBytes);
  if (!zeroHead) await readOld(image, headStart, head);
  if (!zeroTail) await readOld(image, tailStart, tail);
  return { head, tail };
}

async function readOld(image: Qcow2Image, start: GuestOffset, target: Uint8Array): Promise<void> {
  const onDisk = Math.max(0, Math.min(target.length, image.contentEnd(start) - start));
  if (onDisk <= 0) return;
  await image.event("cow_read");
  await readGuest(image, start, IoVector.of(target.subarray(0, onDisk)));
}
