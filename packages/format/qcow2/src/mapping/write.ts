/**
 * Writing guest data.
 *
 * Above: driver.ts, zero.ts, compressed/write.ts (for clusters that do not shrink).
 * Below: allocate, cow, the file child.
 *
 * [C9] Under the image lock a chunk of the write finds its room; without the lock its data and what it
 * copies are written; under the lock again it is linked. A write to clusters that may be written in
 * place goes straight to the file, without lock or closure, when their slice is in memory.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import type { IoVector, MaybePromise } from "@blocklayer/bytes";
import { ENTRY_KIND, type GuestOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { lowerFreed } from "../refcount/free.js";
import { TaskGroup } from "../task-group.js";
import { abandon, buildChunk, linkAllocation, type WriteChunk } from "./allocate.js";
import { extendFile, withOldContent } from "./cow.js";
import { lookup, Mapping } from "./lookup.js";

/** Chunks of one request that are written at once. */
const MAX_PARALLEL_CHUNKS = 8;

/** The answer to the lookup of a fast write. */
const scratch = new Mapping();

/** Writes the vector at a guest offset. Requires: the range lies on the disk; writes are prepared. */
export function writeGuest(
  image: Qcow2Image,
  offset: GuestOffset,
  source: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  const length = source.lengthBytes;
  if (
    lookup(image, offset, length, scratch) &&
    scratch.kind === ENTRY_KIND.normal &&
    scratch.copied &&
    scratch.lengthBytes === length &&
    image.pending.firstOverlapping(offset, offset + length) === undefined
  ) {
    return image.writeHost(scratch.hostOffset, source, options);
  }
  return writeChunks(image, offset, source, options);
}

async function writeChunks(
  image: Qcow2Image,
  offset: GuestOffset,
  source: IoVector,
  options?: RequestOptions,
): Promise<void> {
  const length = source.lengthBytes;
  const first = await nextChunk(image, offset, length, options?.signal);
  if (first.lengthBytes === length) return writeChunk(image, first, source, options);
  const group = new TaskGroup(MAX_PARALLEL_CHUNKS);
  try {
    let chunk = first;
    for (let done = 0; ; ) {
      const part = source.slice(done, done + chunk.lengthBytes);
      done += chunk.lengthBytes;
      group.add(writeChunk(image, chunk, part, options));
      await group.room();
      if (done === length || group.failed) break;
      chunk = await nextChunk(image, offset + done, length - done, options?.signal);
    }
  } catch (error) {
    group.fail(error);
  }
  await group.drain();
}

/** Finds room under the lock, after the allocations in flight that the range begins in [C11]. */
function nextChunk(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  signal?: AbortSignal,
): Promise<WriteChunk> {
  return withClusters(image, offset, 1, signal, () => buildChunk(image, offset, length));
}

/**
 * Takes the image lock at a moment when no allocation in flight overlaps a guest range, and works
 * under it. Freed clusters are worked off first when too many are noted.
 */
export async function withClusters<T>(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const options = signal === undefined ? undefined : { signal };
  for (;;) {
    const turn = image.lock.acquire(options);
    const lease = turn instanceof Promise ? await turn : turn;
    let ended: Promise<void>;
    try {
      image.refuseFailed();
      const clash = image.pending.firstOverlapping(offset, offset + length);
      if (clash === undefined) {
        if (image.frees.full) await lowerFreed(image);
        return await work();
      }
      ended = clash.waiters.wait(options);
    } finally {
      lease.release();
    }
    await ended;
  }
}

async function writeChunk(
  image: Qcow2Image,
  chunk: WriteChunk,
  source: IoVector,
  options?: RequestOptions,
): Promise<void> {
  let written = false;
  try {
    if (chunk.allocations.length === 0) {
      await image.writeHost(chunk.hostOffset, source, options);
      return;
    }
    const { hostOffset, vector, fileEnd } = await withOldContent(image, chunk, source);
    await image.writeHost(hostOffset, vector, options);
    if (fileEnd > 0) await extendFile(image, fileEnd);
    written = true;
  } finally {
    chunk.epoch.settle();
    if (chunk.allocations.length > 0) await finishChunk(image, chunk, written);
  }
}

/** Links what was written, or gives back what was taken. Never aborted: waiters depend on it. */
async function finishChunk(image: Qcow2Image, chunk: WriteChunk, written: boolean): Promise<void> {
  const turn = image.lock.acquire();
  const lease = turn instanceof Promise ? await turn : turn;
  let linked = 0;
  try {
    if (!written) return;
    for (const one of chunk.allocations) {
      await linkAllocation(image, one);
      image.pending.remove(one);
      linked++;
    }
  } finally {
    if (linked < chunk.allocations.length) await abandon(image, chunk.allocations.slice(linked));
    lease.release();
  }
}
