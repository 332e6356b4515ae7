/**
 * The two kinds of job: compress some clusters, decompress some clusters.
 *
 * Above: NodeCodec. Below: WorkerPool (which runs them), shared-memory.
 *
 * 1. Memory is taken when a worker is free, not while a job queues.
 * 2. A job's promise settles when the worker no longer touches the caller's bytes.
 */
import type { BlockError } from "@blocklayer/bytes";
import type { DecompressItem } from "./codec.js";
import { privateLength, SharedSpans } from "./shared-memory.js";
import type { Job, WorkerPool } from "./worker-pool.js";
import type { WorkerCodec, WorkerReply, WorkerRequest } from "./worker-source.js";

/** A payload for each cluster, or undefined. */
export type Payloads = readonly (Uint8Array | undefined)[];

/** Compresses clusters on a worker. */
export function compressOn(
  pool: WorkerPool,
  codec: WorkerCodec,
  clusters: readonly Uint8Array[],
  level: number,
  maxBytes: number,
): Promise<Payloads> {
  return new Promise((resolve, reject) => {
    pool.submit(new CompressJob(codec, clusters, level, maxBytes, resolve, reject));
  });
}

/**
 * Decompresses clusters on a worker, each from one stream or frame.
 *
 * @returns the items whose targets could not be filled
 */
export function decompressOn<T extends DecompressItem>(
  pool: WorkerPool,
  codec: WorkerCodec,
  items: readonly T[],
): Promise<T[]> {
  return new Promise((resolve, reject) => {
    pool.submit(new DecompressJob(codec, items, resolve, reject));
  });
}

class CompressJob implements Job {
  readonly #codec: WorkerCodec;
  readonly #clusters: readonly Uint8Array[];
  readonly #level: number;
  readonly #maxBytes: number;
  readonly #resolve: (payloads: Payloads) => void;
  readonly #reject: (error: BlockError) => void;
  #shared: SharedSpans | undefined;

  constructor(
    codec: WorkerCodec,
    clusters: readonly Uint8Array[],
    level: number,
    maxBytes: number,
    resolve: (payloads: Payloads) => void,
    reject: (error: BlockError) => void,
  ) {
    this.#codec = codec;
    this.#clusters = clusters;
    this.#level = level;
    this.#maxBytes = maxBytes;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  prepare(): Omit<WorkerRequest, "id"> {
    const shared = new SharedSpans(privateLength(this.#clusters));
    this.#shared = shared;
    for (const cluster of this.#clusters) shared.addInput(cluster);
    const { buffers, spans } = shared;
    const [codec, level, maxBytes] = [this.#codec, this.#level, this.#maxBytes];
    return { op: "compress", codec, level, maxBytes, buffers, spans };
  }

  finish(reply: WorkerReply): void {
    this.#shared?.release();
    const { lengths = [], bytes = new Uint8Array(0) } = reply;
    let at = 0;
    this.#resolve(
      lengths.map((length) => {
        if (length < 0) return undefined;
        at += length;
        return bytes.subarray(at - length, at);
      }),
    );
  }

  fail(error: BlockError): void {
    this.#shared?.release();
    this.#reject(error);
  }
}

class DecompressJob<T extends DecompressItem> implements Job {
  readonly #codec: WorkerCodec;
  readonly #items: readonly T[];
  readonly #resolve: (failed: T[]) => void;
  readonly #reject: (error: BlockError) => void;
  /** Where the worker writes what cannot be shared, by item. */
  readonly #outputs: (Uint8Array | undefined)[] = [];
  #shared: SharedSpans | undefined;

  constructor(
    codec: WorkerCodec,
    items: readonly T[],
    resolve: (failed: T[]) => void,
    reject: (error: BlockError) => void,
  ) {
    this.#codec = codec;
    this.#items = items;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  prepare(): Omit<WorkerRequest, "id"> {
    const ranges = this.#items.flatMap((item) => [item.payload, item.target]);
    const shared = new SharedSpans(privateLength(ranges));
    this.#shared = shared;
    for (const item of this.#items) {
      shared.addInput(item.payload);
      this.#outputs.push(shared.addOutput(item.target));
    }
    return {
      op: "decompress",
      codec: this.#codec,
      level: 0,
      maxBytes: 0,
      buffers: shared.buffers,
      spans: shared.spans,
    };
  }

  finish(reply: WorkerReply): void {
    const failed = new Set(reply.failed);
    this.#copyOutputs();
    this.#shared?.release();
    this.#resolve(this.#items.filter((_, index) => failed.has(index)));
  }

  fail(error: BlockError): void {
    this.#shared?.release();
    this.#reject(error);
  }

  /** Those of failed items too: their targets may hold anything. */
  #copyOutputs(): void {
    for (const [index, item] of this.#items.entries()) {
      const output = this.#outputs[index];
      if (output !== undefined) item.target.set(output);
    }
  }
}
