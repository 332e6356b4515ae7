/** How a SimDisk is made. */
import type { MaybePromise } from "@blocklayer/bytes";
import type { BlockLimits } from "@blocklayer/block-api";
import { ChunkStore } from "./chunk-store.js";
import type { SimRequest } from "./faults.js";
import type { SimScheduler } from "./scheduler.js";
import type { Trace } from "./trace.js";

/** How to make a disk. Everything is optional. */
export interface SimDiskOptions {
  /**
   * Content at the start, and durable; by default zeroes. Bytes are copied; a store is taken over: give a fork
   * of one that is used elsewhere.
   */
  readonly content?: Uint8Array | ChunkStore;
  /** Length at the start; by default that of the content, or 0. */
  readonly lengthBytes?: number;
  readonly limits?: Partial<BlockLimits>;
  readonly readOnly?: boolean;
  /** `false`: whatever is written is durable at once. By default `true`. */
  readonly volatileCache?: boolean;
  /** Where changes, flushes and marks are noted. */
  readonly trace?: Trace;
  /** Completes requests in an order of its own; without it they complete at once. */
  readonly scheduler?: SimScheduler;
  /** Called before every request: may throw to fail it, or return a promise to delay it. */
  readonly onRequest?: (request: SimRequest) => MaybePromise<void>;
  /**
   * Latency of a request, in completions of the scheduler that come before its own; without a scheduler nothing
   * waits, and this is not asked.
   */
  readonly latency?: (request: SimRequest) => number;
  /** How a discarded range reads. By default `zero`. */
  readonly discards?: "zero" | "keep";
  /** Growing past this fails with `ENOSPC`. */
  readonly maxLengthBytes?: number;
  /** The name in messages, by default `sim`. */
  readonly name?: string;
}

/** The store that a disk starts with. */
export function contentOf(options: SimDiskOptions): ChunkStore {
  const content = options.content;
  const store = content instanceof Uint8Array ? ChunkStore.from(content) : content;
  const base = store ?? new ChunkStore();
  if (options.lengthBytes !== undefined) base.resize(options.lengthBytes);
  return base;
}
