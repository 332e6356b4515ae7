/**
 * The two kinds of job: deflate some clusters, inflate some clusters.
 *
 * Above: NodeDeflateCodec. Below: WorkerPool (which runs them), shared-memory.
 *
 * 1. Memory is taken when a worker is free, not while a job queues.
 * 2. A job's promise settles when the worker no longer touches the caller's bytes.
 */
import type { BlockError } from "@blocklayer/bytes";
import { type DecompressItem, shortPayload } from "./codec.js";
import { privateLength, SharedSpans } from "./shared-memory.js";
import type { Job, WorkerPool } from "./worker-pool.js";
import type { WorkerReply, WorkerRequest } from "./worker-source.js";

/** A payload for each cluster, or undefined. */
export type Payloads = readonly (Uint8Array | undefined)[];

/** Deflates clusters on a worker. */
export function deflateOn(
  pool: WorkerPool,
  clusters: readonly Uint8Array[],
  level: number,
  maxBytes: number,
): Promise<Payloads> {
  return new Promise((resolve, reject) => {
    pool.submit(new DeflateJob(clusters, level, maxBytes, resolve, reject));
  });
}

/** Inflates clusters on a worker. */
export function inflateOn(pool: WorkerPool, items: readonly DecompressItem[]): Promise<void> {
  return new Promise((resolve, reject) => {
    pool.submit(new InflateJob(items, resolve, reject));
  });
}

class DeflateJob implements Job {
  readonly #clusters: readonly Uint8Array[];
  readonly #level: number;
  readonly #maxBytes: number;
  readonly #resolve: (payloads: Payloads) => void;
  readonly #reject: (error: BlockError) => void;
  #shared: SharedSpans | undefined;

  constructor(
    clusters: readonly Uint8Array[],
    level: number,
    maxBytes: number,
    resolve: (payloads: Payloads) => void,
    reject: (error: BlockError) => void,
  ) {
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
    return { op: "compress", level: this.#level, maxBytes: this.#maxBytes, buffers, spans };
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

class InflateJob implements Job {
  readonly #items: readonly DecompressItem[];
  readonly #resolve: () => void;
  readonly #reject: (error: BlockError) => void;
  /** Where the worker writes what cannot be shared, by item. */
  readonly #outputs: (Uint8Array | undefined)[] = [];
  #shared: SharedSpans | undefined;

  constructor(
    items: readonly DecompressItem[],
    resolve: () => void,
    reject: (error: BlockError) => void,
  ) {
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
      level: 0,
      maxBytes: 0,
      buffers: shared.buffers,
      spans: shared.spans,
    };
  }

  finish(reply: WorkerReply): void {
    const firstFailed = reply.failed?.[0];
    if (firstFailed === undefined) this.#copyOutputs();
    this.#shared?.release();
    if (firstFailed === undefined) this.#resolve();
    else this.#reject(shortPayload(this.#items[firstFailed] as DecompressItem));
  }

  fail(error: BlockError): void {
    this.#shared?.release();
    this.#reject(error);
  }

  #copyOutputs(): void {
    for (const [index, item] of this.#items.entries()) {
      const output = this.#outputs[index];
      if (output !== undefined) item.target.set(output);
    }
  }
}
