/**
 * The queue that every lock waits in.
 *
 * Below it stands nothing; above it every lock of this package, and the arena of aligned-io.
 *
 * 1. A waiter is in the list, or granted, or aborted, and leaves the list exactly once. There is no state
 *    in between, so no wake-up is lost: a grant goes to a waiter that will see it, whatever its signal
 *    does afterwards.
 * 2. The listener on the signal lives as long as the wait, and no longer.
 * 3. A granted waiter goes on after the turn of whoever granted it: no code of a waiter runs inside
 *    `grant` or inside an abort.
 *
 * Locking: none. Every method is one step of the event loop.
 */
import { assert, ignoreAbort, listenForAbort } from "@blocklayer/bytes";
import { abortedError } from "./lease.js";

/** One wait. `value` is what its promise resolves with. */
export class Waiter<T> {
  readonly value: T;
  readonly promise: Promise<T>;
  /** @internal */
  previousWaiter: Waiter<T> | undefined;
  /** @internal */
  nextWaiter: Waiter<T> | undefined;
  /** @internal undefined once the wait is over */
  list: WaiterList<T> | undefined;
  readonly #signal: AbortSignal | undefined;
  #resolve!: (value: T) => void;
  #reject!: (reason: unknown) => void;

  /** @internal */
  constructor(list: WaiterList<T>, value: T, signal: AbortSignal | undefined) {
    this.list = list;
    this.value = value;
    this.#signal = signal;
    this.promise = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The waiter is its own listener: no closure.
    if (signal !== undefined) listenForAbort(signal, this);
  }

  /** The waiter behind this one. */
  get next(): Waiter<T> | undefined {
    return this.nextWaiter;
  }

  /** Ends the wait with its value. */
  grant(): void {
    this.#leave();
    this.#resolve(this.value);
  }

  /** @internal The signal was aborted. */
  aborted(): void {
    const list = this.list;
    const signal = this.#signal;
    // Another listener of the same signal may have granted this waiter a moment ago.
    if (list === undefined || signal === undefined) return;
    this.#leave();
    this.#reject(abortedError(list.name, signal));
    list.onAbort?.(this.value);
  }

  #leave(): void {
    const list = this.list;
    assert(list !== undefined, "a waiter leaves its list once");
    this.list = undefined;
    list.unlink(this);
    if (this.#signal !== undefined) ignoreAbort(this.#signal, this);
  }
}

/** Waiters, first come first. */
export class WaiterList<T> {
  /** For messages. */
  readonly name: string;
  /** @internal */
  readonly onAbort: ((value: T) => void) | undefined;
  #head: Waiter<T> | undefined;
  #tail: Waiter<T> | undefined;
  #length = 0;

  /**
   * @param name - of the lock, for messages
   * @param onAbort - called after a waiter left by abort: those behind it may be able to go on now
   */
  constructor(name: string, onAbort?: (value: T) => void) {
    this.name = name;
    this.onAbort = onAbort;
  }

  get length(): number {
    return this.#length;
  }

  /** Who came first. */
  get head(): Waiter<T> | undefined {
    return this.#head;
  }

  /**
   * A new wait at the end of the queue.
   *
   * Requires: the signal is not aborted; its event would never come.
   */
  enqueue(value: T, signal?: AbortSignal): Waiter<T> {
    assert(signal?.aborted !== true, "the signal of a new wait is not aborted");
    const waiter = new Waiter(this, value, signal);
    waiter.previousWaiter = this.#tail;
    if (this.#tail === undefined) this.#head = waiter;
    else this.#tail.nextWaiter = waiter;
    this.#tail = waiter;
    this.#length++;
    return waiter;
  }

  /** @internal */
  unlink(waiter: Waiter<T>): void {
    const { previousWaiter, nextWaiter } = waiter;
    if (previousWaiter === undefined) this.#head = nextWaiter;
    else previousWaiter.nextWaiter = nextWaiter;
    if (nextWaiter === undefined) this.#tail = previousWaiter;
    else nextWaiter.previousWaiter = previousWaiter;
    waiter.previousWaiter = undefined;
    waiter.nextWaiter = undefined;
    this.#length--;
  }
}
