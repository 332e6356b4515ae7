/**
 * The flush walk of one node.
 *
 * Above: BlockNode.flush. Below: the driver, and the children's own flush walks.
 *
 * 1. The order is QEMU's: the driver hands its caches to the children (`flushToOs`), then makes what it has itself
 *    stable (`flushToDisk`), then the children that this node may write are flushed: `data-file` before `file`, so
 *    that data is stable before the metadata that names it.
 * 2. One walk runs at a time. Whoever comes while one runs shares the one walk that starts after it: the running one
 *    may have passed the caches before their writes ended. So a flush always ends after two walks at most.
 * 3. `flushToDisk` is skipped when nothing was written since the last walk that succeeded (a generation number that
 *    every ended change raises). `flushToOs` always runs: a driver may have dirtied its caches on its own account.
 * 4. A failed walk goes to everyone who shared it, and leaves the generation as it was: the next walk tries again.
 */
import { type MaybePromise, andThen } from "@blocklayer/bytes";
import type { BlockDriver, DebugEvent } from "@blocklayer/block-api";
import { announcedFlush } from "./announcing-device.js";
import type { RequestTracker } from "./request-tracker.js";

/** What a walk needs to know of its node. */
export interface FlushHost {
  readonly driver: BlockDriver;
  readonly tracker: RequestTracker;
  /** Hears of the steps: the driver of the main child, when it listens. */
  readonly flushListener: ((event: DebugEvent) => MaybePromise<void>) | undefined;
  /** The flushes of the children that this node may write, in the order of rule 1. */
  childFlushes(): readonly (() => MaybePromise<void>)[];
}

interface SharedWalk {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class FlushWalk {
  readonly #host: FlushHost;
  #flushedGeneration = 0;
  #running = false;
  #next: SharedWalk | undefined = undefined;

  constructor(host: FlushHost) {
    this.#host = host;
  }

  /** Flushes, or joins the next walk when one runs. */
  flush(): MaybePromise<void> {
    if (!this.#running) return this.#run();
    this.#next ??= sharedWalk();
    return this.#next.promise;
  }

  #run(): MaybePromise<void> {
    this.#running = true;
    let result: MaybePromise<void>;
    try {
      result = this.#walk();
    } catch (error) {
      this.#ended();
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.#ended());
    this.#ended();
    return undefined;
  }

  #walk(): MaybePromise<void> {
    const { driver, tracker, flushListener } = this.#host;
    const generation = tracker.writeGeneration;
    const isDirty = generation !== this.#flushedGeneration;
    const toOs = (): MaybePromise<void> =>
      announcedFlush(flushListener, "flush_to_os", () => driver.flushToOs());
    const toDisk = (): MaybePromise<void> =>
      announcedFlush(flushListener, "flush_to_disk", () => driver.flushToDisk());
    const own = driver.capabilities.write
      ? andThen(toOs(), () => (isDirty ? toDisk() : undefined))
      : undefined;
    return andThen(
      andThen(own, () => runInOrder(this.#host.childFlushes())),
      () => {
        this.#flushedGeneration = generation;
      },
    );
  }

  #ended(): void {
    this.#running = false;
    const next = this.#next;
    if (next === undefined) return;
    this.#next = undefined;
    try {
      const result = this.#run();
      if (result instanceof Promise) result.then(next.resolve, next.reject);
      else next.resolve();
    } catch (error) {
      next.reject(error);
    }
  }
}

function runInOrder(flushes: readonly (() => MaybePromise<void>)[]): MaybePromise<void> {
  let done: MaybePromise<void> = undefined;
  for (const flush of flushes) done = andThen(done, flush);
  return done;
}

function sharedWalk(): SharedWalk {
  let resolve: () => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<void>((onDone, onFail) => {
    resolve = onDone;
    reject = onFail;
  });
  return { promise, resolve, reject };
}
