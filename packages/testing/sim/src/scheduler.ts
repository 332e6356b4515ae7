/**
 * A scheduler without a clock: what is pending completes in an order that a seed decides.
 *
 * SimDisk puts each request here; `run` lets them complete one at a time, and lets the code under test go on
 * between two. The order depends on the seed and on the code alone, as long as that code waits for nothing
 * but this scheduler.
 */
import { assert } from "@blocklayer/bytes";
import { Random } from "./random.js";

/** Turns of the microtask queue that code gets to come to rest between two completions. */
const DEFAULT_SETTLE_TURNS = 32;
/** Calls of `idle` in a row after which the work counts as stuck. */
const MAX_IDLE_CALLS = 10_000;
/** Completions after which `run` takes the work for one that never ends. */
const DEFAULT_MAX_COMPLETIONS = 10_000_000;

export interface SchedulerOptions {
  readonly seed: number;
  /**
   * Turns of the microtask queue between two completions. Too few for the longest chain of promises in the
   * code under test and a completion comes early: another order, still a legal and reproducible one.
   */
  readonly settleTurns?: number;
  /**
   * For work that also waits for something outside (a pool of threads): called when nothing is pending, and
   * resolves when it is worth looking again. Runs are then no longer reproducible to the last step.
   */
  readonly idle?: () => Promise<void>;
  /**
   * Lets waiting code come to rest in another way than by `settleTurns`: a turn of the host's event loop
   * (`setImmediate`), say, which ends only when no microtask is left, however long the chains of promises are.
   */
  readonly settle?: () => Promise<void>;
  /** `run` gives up after so many completions: work that goes round in circles. By default ten million. */
  readonly maxCompletions?: number;
}

/** How a completion is scheduled. */
export interface ScheduleOptions {
  /**
   * Latency: so many other completions come first, as long as there are any. In completions, not in time, so that
   * one slow request can be overtaken by a whole workload and the run can still be repeated. By default 0.
   */
  readonly afterCompletions?: number;
}

interface Pending {
  readonly label: string;
  readonly complete: () => void;
  /** It may be picked when so many completions have been. */
  readonly notBefore: number;
}

/** Pending completions, and the seed that picks among them. */
export class SimScheduler {
  readonly seed: number;
  readonly #random: Random;
  readonly #settleTurns: number;
  readonly #idle: (() => Promise<void>) | undefined;
  readonly #settle: (() => Promise<void>) | undefined;
  readonly #maxCompletions: number;
  readonly #pending: Pending[] = [];
  #completed = 0;

  constructor(options: SchedulerOptions) {
    this.seed = options.seed;
    this.#random = new Random(options.seed);
    this.#settleTurns = options.settleTurns ?? DEFAULT_SETTLE_TURNS;
    this.#idle = options.idle;
    this.#settle = options.settle;
    this.#maxCompletions = options.maxCompletions ?? DEFAULT_MAX_COMPLETIONS;
  }

  /** What waits, in order of arrival. */
  get pending(): readonly string[] {
    return this.#pending.map((entry) => entry.label);
  }

  /** How many have completed. */
  get completed(): number {
    return this.#completed;
  }

  /** Does `action` when its turn comes; the promise settles as the action ends. */
  schedule<T>(label: string, action: () => T, options: ScheduleOptions = {}): Promise<T> {
    const notBefore = this.#completed + (options.afterCompletions ?? 0);
    return new Promise<T>((resolve, reject) => {
      const complete = (): void => {
        try {
          resolve(action());
        } catch (error) {
          reject(error as Error);
        }
      };
      this.#pending.push({ label, complete, notBefore });
    });
  }

  /**
   * Completes one that is pending.
   *
   * @param index - which of `pending`; by default the seed picks among those whose latency is over, and when
   *   all are still held back the one that is due first
   * @returns its label, or `undefined` when nothing is pending
   */
  step(index?: number): string | undefined {
    if (this.#pending.length === 0) return undefined;
    const at = index ?? this.#pick();
    const [entry] = this.#pending.splice(at, 1);
    assert(entry !== undefined, "the index names a pending completion");
    this.#completed++;
    entry.complete();
    return entry.label;
  }

  /** Lets the code that waits go on until it has come to rest. */
  async settle(): Promise<void> {
    if (this.#settle !== undefined) return this.#settle();
    for (let turn = 0; turn < this.#settleTurns; turn++) await undefined;
  }

  /**
   * Completes what is pending, in the seed's order, until `work` has settled.
   *
   * @returns what the work returns
   * @throws what the work throws; an Error when the work waits and nothing is pending (a deadlock), or does not
   *   end within `maxCompletions` (a livelock)
   */
  async run<T>(work: Promise<T> | (() => Promise<T>)): Promise<T> {
    const started = typeof work === "function" ? work() : work;
    let settled = false;
    const noteEnd = (): void => {
      settled = true;
    };
    started.then(noteEnd, noteEnd);
    let idleCalls = 0;
    for (;;) {
      await this.settle();
      if (settled) return started;
      if (this.#completed >= this.#maxCompletions) {
        throw new Error(
          `scheduler (seed ${this.seed}): the work has not ended after ${this.#completed} completions; ` +
            `pending: ${this.pending.join(", ")}`,
        );
      }
      if (this.step() !== undefined) {
        idleCalls = 0;
      } else if (this.#idle !== undefined && idleCalls < MAX_IDLE_CALLS) {
        idleCalls++;
        await this.#idle();
      } else {
        throw new Error(
          `scheduler (seed ${this.seed}): nothing is pending after ${this.#completed} completions ` +
            "and the work has not ended: it waits for something that never happens",
        );
      }
    }
  }

  #pick(): number {
    const due: number[] = [];
    let first = 0;
    for (const [index, { notBefore }] of this.#pending.entries()) {
      if (notBefore <= this.#completed) due.push(index);
      if (notBefore < (this.#pending[first] as Pending).notBefore) first = index;
    }
    return due.length === 0 ? first : this.#random.pick(due);
  }
}
