/**
 * A codec on Node: worker threads for batches and large clusters, this thread for small ones.
 *
 * Above: createCodec of the Node entry. Below: codec-jobs, pool-lease; node-deflate and node-zstd,
 * which know one compression type each.
 *
 * 1. Compressing always happens in workers. Decompressing up to `MAX_SYNC_BYTES` happens here and
 *    now: a cluster of 64 KiB takes 0.1 ms, a message to a worker and back 0.05 ms and a thread
 *    switch more. More than that goes to workers, so that the event loop is never held for long.
 * 2. What a worker cannot decompress, this thread tries again: so workers know only what is simple,
 *    and errors say what is wrong.
 * 3. A call that fails settles only after all of its jobs did: nobody touches the caller's bytes
 *    afterwards.
 */
import { availableParallelism } from "node:os";
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import {
  checkedLevel,
  checkMaxBytes,
  type ClusterCodec,
  type CodecName,
  type CodecOptions,
  type DecompressItem,
} from "./codec.js";
import { compressOn, decompressOn, type Payloads } from "./codec-jobs.js";
import { PoolLease } from "./pool-lease.js";
import type { WorkerCodec } from "./worker-source.js";

/** What a codec has to know of its compression type. */
export interface NodeAlgorithm {
  /** What the workers are told. Requires: loaded. */
  readonly worker: WorkerCodec;
  /** Gets what is missing for work; undefined when nothing is. */
  load(): Promise<void> | undefined;
  /**
   * The bytes of an item that a worker may decompress into its target.
   *
   * @returns undefined for an item that only `decompress` can do
   */
  streamOf(item: DecompressItem): Uint8Array | undefined;
  /**
   * Fills the target, on this thread. Requires: loaded.
   *
   * @throws BlockError `EIO` when that cannot be done
   */
  decompress(item: DecompressItem): void;
}

/** An item, cut for a worker. */
interface StreamItem extends DecompressItem {
  readonly whole: DecompressItem;
}

/** How much is decompressed on the calling thread: 0.2 ms of work. */
const MAX_SYNC_BYTES = 128 * 1024;
/** The most threads when the caller names none. */
const MAX_DEFAULT_THREADS = 16;
/** A job of this many cluster bytes keeps a worker busy for about 10 ms … */
const COMPRESS_JOB_BYTES = 1024 * 1024;
/** … and here for 3 ms. Longer ones would let the last worker of a batch work alone. */
const DECOMPRESS_JOB_BYTES = 2 * 1024 * 1024;

export class NodeCodec implements ClusterCodec {
  readonly name: CodecName;
  readonly #algorithm: NodeAlgorithm;
  readonly #level: number;
  readonly #lease: PoolLease;
  readonly #underWay = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** @throws BlockError `EINVAL` for a level or a number of threads that does not exist */
  constructor(name: CodecName, algorithm: NodeAlgorithm, options: CodecOptions) {
    this.name = name;
    this.#algorithm = algorithm;
    this.#level = checkedLevel(name, options);
    this.#lease = new PoolLease(checkedThreads(options));
  }

  compress(clusters: readonly Uint8Array[], maxBytes: number): MaybePromise<Payloads> {
    this.#checkOpen();
    checkMaxBytes(maxBytes);
    if (clusters.length === 0) return [];
    const loading = this.#algorithm.load();
    const work = loading?.then(() => this.#compressInWorkers(clusters, maxBytes));
    return this.#track(work ?? this.#compressInWorkers(clusters, maxBytes));
  }

  decompress(payload: Uint8Array, target: Uint8Array): MaybePromise<void> {
    return this.decompressMany([{ payload, target }]);
  }

  decompressMany(items: readonly DecompressItem[]): MaybePromise<void> {
    this.#checkOpen();
    let lengthBytes = 0;
    for (const { target } of items) lengthBytes += target.length;
    const decompress = (): MaybePromise<void> =>
      lengthBytes <= MAX_SYNC_BYTES
        ? this.#decompressHere(items)
        : this.#decompressInWorkers(items);
    const loading = this.#algorithm.load();
    const work = loading === undefined ? decompress() : loading.then(decompress);
    return work instanceof Promise ? this.#track(work) : work;
  }

  close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#underWay).then(() => this.#lease.return());
    return this.#closed;
  }

  async #compressInWorkers(clusters: readonly Uint8Array[], maxBytes: number): Promise<Payloads> {
    const { pool } = this.#lease;
    const { worker } = this.#algorithm;
    // Two jobs per worker: one that ends early helps the other.
    const parts = split(clusters, pool.threads * 2, COMPRESS_JOB_BYTES, (bytes) => bytes.length);
    const jobs = parts.map((part) => compressOn(pool, worker, part, this.#level, maxBytes));
    return (await allOf(jobs)).flat();
  }

  #decompressHere(items: readonly DecompressItem[]): void {
    for (const item of items) this.#algorithm.decompress(item);
  }

  async #decompressInWorkers(items: readonly DecompressItem[]): Promise<void> {
    const { pool } = this.#lease;
    const { worker } = this.#algorithm;
    const streams: StreamItem[] = [];
    const here: DecompressItem[] = [];
    for (const whole of items) {
      const payload = this.#algorithm.streamOf(whole);
      if (payload === undefined) here.push(whole);
      else streams.push({ payload, target: whole.target, whole });
    }
    const parts = split(streams, pool.threads, DECOMPRESS_JOB_BYTES, (item) => item.target.length);
    const failed = await allOf(parts.map((part) => decompressOn(pool, worker, part)));
    this.#decompressHere(here);
    this.#decompressHere(failed.flat().map((item) => item.whole));
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
