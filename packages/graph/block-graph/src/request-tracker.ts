/**
 * The requests in flight at one node: who waits for whom, and how a node comes to rest.
 *
 * Above: NodeIo, which begins and ends a request around each call of the driver. Below: nothing.
 *
 * 1. The list is in order of age. A request waits only for older ones, so waiting never runs in a circle.
 * 2. A *serialising* request (one that reads bytes in order to write them back) waits for every older request that
 *    overlaps it, and every younger one that overlaps it waits for it. Others never wait for each other.
 * 3. A quiesced node lets no request begin; what is in flight ends. `drain` waits for that. Drains nest.
 * 4. After `close` every request is refused, also one that waits to begin.
 * 5. A request counts as ended before the code that awaits it goes on.
 *
 * The common path costs an insertion in a list and its removal: requests are pooled, with their two callbacks.
 */
import {
  type AbortListener,
  assert,
  type BlockError,
  ignoreAbort,
  listenForAbort,
  type MaybePromise,
  rangesOverlap,
} from "@blocklayer/bytes";
import { abortedError } from "./request-checks.js";

/** What a request does; decides which counter it feeds and whether it dirties the node. */
export type RequestKind = "read" | "write" | "flush" | "other";

/** How many idle request objects a node keeps. */
const MAX_POOLED_REQUESTS = 128;

/** One request in flight. Belongs to its tracker: nobody keeps it after its end. */
export class TrackedRequest {
  kind: RequestKind = "read";
  offset = 0;
  lengthBytes = 0;
  serialising = false;
  older: TrackedRequest | undefined = undefined;
  younger: TrackedRequest | undefined = undefined;
  /** Those who wait for this request to end; made when the first one comes. */
  waiters: (() => void)[] | undefined = undefined;
  /** Made once for each pooled object, so that a request allocates no closure. */
  readonly succeeded: () => void;
  readonly failed: () => void;

  constructor(tracker: RequestTracker) {
    this.succeeded = () => tracker.end(this, true);
    this.failed = () => tracker.end(this, false);
  }
}

/** Counts since the node was opened. */
export interface RequestCounters {
  reads: number;
  readBytes: number;
  writes: number;
  writtenBytes: number;
  flushes: number;
  failed: number;
}

export class RequestTracker {
  readonly counters: RequestCounters = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writtenBytes: 0,
    flushes: 0,
    failed: 0,
  };
  /** Grows with every change that ended, whether well or not: what a flush compares. */
  writeGeneration = 0;
  /** Of the node, for messages. */
  readonly #name: string;
  #inFlight = 0;
  #serialising = 0;
  #quiesced = 0;
  #closed: BlockError | undefined = undefined;
  #youngest: TrackedRequest | undefined = undefined;
  readonly #pool: TrackedRequest[] = [];
  #admitted: (() => void)[] = [];
  #idle: (() => void)[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get quiesced(): boolean {
    return this.#quiesced > 0;
  }

  /** Whether a request that is not serialising may begin and go on without looking at the others. */
  get clear(): boolean {
    return this.#quiesced === 0 && this.#serialising === 0 && this.#closed === undefined;
  }

  /** Enters a request. Requires: not quiesced, or the caller is the one who drained the node. */
  begin(
    kind: RequestKind,
    offset: number,
    lengthBytes: number,
    serialising: boolean,
  ): TrackedRequest {
    const request = this.#pool.pop() ?? new TrackedRequest(this);
    request.kind = kind;
    request.offset = offset;
    request.lengthBytes = lengthBytes;
    request.serialising = serialising;
    if (serialising) this.#serialising++;
    const before = this.#youngest;
    request.older = before;
    if (before !== undefined) before.younger = request;
    this.#youngest = request;
    this.#inFlight++;
    return request;
  }

  /** Takes a request out, feeds the counters, and wakes whoever waited. */
  end(request: TrackedRequest, ok: boolean): void {
    const { older, younger } = request;
    if (older !== undefined) older.younger = younger;
    if (younger === undefined) this.#youngest = older;
    else younger.older = older;
    request.older = undefined;
    request.younger = undefined;
    if (request.serialising) this.#serialising--;
    this.#count(request, ok);
    const waiters = request.waiters;
    request.waiters = undefined;
    if (this.#pool.length < MAX_POOLED_REQUESTS) this.#pool.push(request);
    this.#inFlight--;
    if (waiters !== undefined) for (const wake of waiters) wake();
    if (this.#inFlight === 0 && this.#idle.length > 0) wakeAll(this.#idle.splice(0));
  }

  /** The result of a request, which ends with it: the caller gets the very promise of the driver. */
  settle<T>(request: TrackedRequest, result: MaybePromise<T>): MaybePromise<T> {
    if (result instanceof Promise) result.then(request.succeeded, request.failed);
    else this.end(request, true);
    return result;
  }

  /**
   * The slow way: waits until the node is not quiesced and no older request is in the way, then runs `work`.
   *
   * Suspends: the node's state may have changed when `work` runs.
   */
  async runSlowly<T>(
    kind: RequestKind,
    offset: number,
    lengthBytes: number,
    serialising: boolean,
    signal: AbortSignal | undefined,
    work: () => MaybePromise<T>,
  ): Promise<T> {
    while (this.#quiesced > 0) await this.#wait(this.#admitted, kind, signal);
    if (this.#closed !== undefined) throw this.#closed;
    const request = this.begin(kind, offset, lengthBytes, serialising);
    let ok = false;
    try {
      let obstacle = this.#obstacle(request);
      while (obstacle !== undefined) {
        obstacle.waiters ??= [];
        await this.#wait(obstacle.waiters, kind, signal);
        obstacle = this.#obstacle(request);
      }
      const result = await work();
      ok = true;
      return result;
    } finally {
      this.end(request, ok);
    }
  }

  /**
   * Lets no new request begin, and waits until none is in flight. Every drain is followed by one `resume`.
   *
   * Requires: the caller is no request in flight at this node.
   */
  drain(): MaybePromise<void> {
    this.#quiesced++;
    if (this.#inFlight === 0) return undefined;
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Undoes one `drain`; the last one lets the waiting requests begin, in the order they came. */
  resume(): void {
    assert(this.#quiesced > 0, "resume() follows drain()");
    this.#quiesced--;
    if (this.#quiesced === 0) wakeAll(this.#admitted.splice(0));
  }

  /** Refuses whatever comes from now on. Requires: drained. */
  close(reason: BlockError): void {
    this.#closed = reason;
  }

  /** The youngest older request that this one must wait for. */
  #obstacle(request: TrackedRequest): TrackedRequest | undefined {
    if (this.#serialising === 0) return undefined;
    for (let other = request.older; other !== undefined; other = other.older) {
      if (
        (other.serialising || request.serialising) &&
        rangesOverlap(other.offset, other.lengthBytes, request.offset, request.lengthBytes)
      ) {
        return other;
      }
    }
    return undefined;
  }

  /** Joins a queue; an abort leaves it again and rejects. */
  #wait(queue: (() => void)[], op: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal === undefined) {
        queue.push(resolve);
        return;
      }
      const wake = (): void => {
        ignoreAbort(signal, listener);
        resolve();
      };
      const aborted = (): void => {
        const place = queue.indexOf(wake);
        if (place >= 0) queue.splice(place, 1);
        reject(abortedError(op, this.#name, signal));
      };
      const listener: AbortListener = { aborted };
      if (signal.aborted) aborted();
      else {
        listenForAbort(signal, listener);
        queue.push(wake);
      }
    });
  }

  #count(request: TrackedRequest, ok: boolean): void {
    const counters = this.counters;
    if (!ok) counters.failed++;
    switch (request.kind) {
      case "read":
        counters.reads++;
        counters.readBytes += request.lengthBytes;
        break;
      case "write":
        // A write that failed may still have changed something.
        this.writeGeneration++;
        counters.writes++;
        counters.writtenBytes += request.lengthBytes;
        break;
      case "flush":
        counters.flushes++;
        break;
      case "other":
        break;
    }
  }
}

function wakeAll(waiters: readonly (() => void)[]): void {
  for (const wake of waiters) wake();
}
