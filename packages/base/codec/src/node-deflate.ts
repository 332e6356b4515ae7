/**
 * Deflate on Node: node:zlib, in worker threads for batches.
 *
 * Above: createCodec of the Node entry. Below: deflate-jobs, sync-inflate.
 *
 * 1. Streams are written with a 4 KiB window, as qcow2 asks; streams with distances up to 32 KiB are
 *    read.
 * 2. Compressing always happens in workers. Inflating up to `MAX_SYNC_BYTES` happens here and now:
 *    a cluster of 64 KiB takes 0.1 ms, a message to a worker and back 0.05 ms and a thread switch
 *    more. More than that goes to workers, so that the event loop is never held for long.
 * 3. A call that fails settles only after all of its jobs did: nobody touches the caller's bytes
 *    afterwards.
 */
import { availableParallelism } from "node:os";
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import {
  type ClusterCodec,
  checkedLevel,
  checkMaxBytes,
  type CodecOptions,
  type DecompressItem,
  shortPayload,
} from "./codec.js";
import { deflateOn, inflateOn, type Payloads } from "./deflate-jobs.js";
import { PoolLease } from "./pool-lease.js";
import { createSyncInflate, type SyncInflate } from "./sync-inflate.js";

/** How much is inflated on the calling thread: 0.2 ms of work. */
const MAX_SYNC_BYTES = 128 * 1024;
/** The most threads when the caller names none. */
const MAX_DEFAULT_THREADS = 16;
/** A job of this many cluster bytes keeps a worker busy for about 10 ms … */
const DEFLATE_JOB_BYTES = 1024 * 1024;
/** … and here for 3 ms. Longer ones would let the last worker of a batch work alone. */
const INFLATE_JOB_BYTES = 2 * 1024 * 1024;

export class NodeDeflateCodec implements ClusterCodec {
  readonly name = "deflate";
  readonly #level: number;
  readonly #lease: PoolLease;
  readonly #inflate: SyncInflate = createSyncInflate();
  readonly #underWay = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  constructor(options: CodecOptions) {
    this.#level = checkedLevel(options);
    this.#lease = new PoolLease(checkedThreads(options));
  }

  compress(clusters: readonly Uint8Array[], maxBytes: number): MaybePromise<Payloads> {
    this.#checkOpen();
    checkMaxBytes(maxBytes);
    const { pool } = this.#lease;
    // Two jobs per worker: one that ends early helps the other.
    const parts = split(clusters, pool.threads * 2, DEFLATE_JOB_BYTES, (bytes) => bytes.length);
    if (parts.length === 0) return [];
    const jobs = parts.map((part) => deflateOn(pool, part, this.#level, maxBytes));
    return this.#track(allOf(jobs).then((payloads) => payloads.flat()));
  }

  decompress(payload: Uint8Array, target: Uint8Array): MaybePromise<void> {
    this.#checkOpen();
    if (target.length > MAX_SYNC_BYTES) return this.decompressMany([{ payload, target }]);
    if (!this.#inflate(payload, target)) throw shortPayload({ payload, target });
  }

  decompressMany(items: readonly DecompressItem[]): MaybePromise<void> {
    this.#checkOpen();
    let lengthBytes = 0;
    for (const { target } of items) lengthBytes += target.length;
    if (lengthBytes <= MAX_SYNC_BYTES) {
      for (const item of items) {
        if (!this.#inflate(item.payload, item.target)) throw shortPayload(item);
      }
      return;
    }
    const { pool } = this.#lease;
    const parts = split(items, pool.threads, INFLATE_JOB_BYTES, (item) => item.target.length);
    const jobs = parts.map((part) => inflateOn(pool, part));
    return this.#track(allOf(jobs).then(() => undefined));
  }

  close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#underWay).then(() => this.#lease.return());
    return this.#closed;
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new BlockError("ECLOSED", "the codec is closed");
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    const done = (): void => void this.#underWay.delete(work);
    work.then(done, done);
    return work;
  }
}

function checkedThreads(options: CodecOptions): number {
  const threads = options.threads ?? Math.min(availableParallelism(), MAX_DEFAULT_THREADS);
  if (Number.isSafeInteger(threads) && threads >= 1) return threads;
  throw new BlockError("EINVAL", `a codec cannot have ${threads} threads`);
}

/** Cuts a list into at least `minParts` parts, if it has so many, of at most `maxBytes` (or one item) each. */
function split<T>(
  items: readonly T[],
  minParts: number,
  maxBytes: number,
  lengthOf: (item: T) => number,
): T[][] {
  const maxItems = Math.ceil(items.length / minParts);
  const parts: T[][] = [];
  let part: T[] = [];
  let partBytes = 0;
  for (const item of items) {
    const length = lengthOf(item);
    if (part.length > 0 && (part.length === maxItems || partBytes + length > maxBytes)) {
      parts.push(part);
      part = [];
      partBytes = 0;
    }
    part.push(item);
    partBytes += length;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

/** Like Promise.all, but waits for all of them also when one fails. */
async function allOf<T>(jobs: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(jobs);
  return outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason as Error;
    return outcome.value;
  });
}
