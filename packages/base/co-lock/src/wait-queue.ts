/**
 * A queue of coroutines that wait for an event: a condition variable without a mutex of its own.
 *
 * 1. `wakeOne` and `wakeAll` wake only who waits at that moment, in order. A wake-up with nobody waiting
 *    is not kept, so check the condition before each wait.
 * 2. A wake-up that reached a waiter is not taken back by an abort that comes later.
 *
 * Who waits for a condition under a lock joins the queue before it lets go of the lock:
 * `const woken = queue.wait(); lease.release(); await woken; lease = await mutex.acquire();`
 */
import type { AcquireOptions } from "./lease.js";
import { abortedError } from "./lease.js";
import { WaiterList } from "./waiter-list.js";

/** First come, first woken. */
export class WaitQueue {
  readonly #waiters: WaiterList<void>;

  /** @param name - for messages */
  constructor(name = "wait queue") {
    this.#waiters = new WaiterList(name);
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * Waits for a wake-up.
   *
   * Suspends: always. The condition may have changed again when the waiter runs: check it again.
   * @throws BlockError `ECANCELED` when aborted
   */
  wait(options?: Pick<AcquireOptions, "signal">): Promise<void> {
    const signal = options?.signal;
    if (signal?.aborted === true) return Promise.reject(abortedError(this.#waiters.name, signal));
    return this.#waiters.enqueue(undefined, signal).promise;
  }

  /**
   * Wakes who has waited longest.
   *
   * @returns whether somebody waited
   */
  wakeOne(): boolean {
    const head = this.#waiters.head;
    head?.grant();
    return head !== undefined;
  }

  /**
   * Wakes all who wait now.
   *
   * @returns how many
   */
  wakeAll(): number {
    const count = this.#waiters.length;
    for (let i = 0; i < count; i++) this.#waiters.head?.grant();
    return count;
  }
}
