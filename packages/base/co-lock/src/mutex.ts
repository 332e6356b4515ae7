/**
 * A mutex for coroutines: one holder, the others wait in order.
 *
 * 1. Release hands the lock to the first waiter in the same step: nobody who comes later can slip in.
 * 2. Without a holder there are no waiters.
 */
import { assert, type MaybePromise } from "@blocklayer/bytes";
import { type AcquireOptions, type Lease, refuseAborted } from "./lease.js";
import { WaiterList } from "./waiter-list.js";

class MutexLease implements Lease {
  readonly owner: object | undefined;
  #mutex: CoMutex | undefined;

  constructor(mutex: CoMutex, owner: object | undefined) {
    this.#mutex = mutex;
    this.owner = owner;
  }

  release(): void {
    const mutex = this.#mutex;
    assert(mutex !== undefined, "a mutex lease is released once");
    this.#mutex = undefined;
    mutex.handOver();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** First come, first served. An `acquire` that need not wait returns its lease at once. */
export class CoMutex {
  /** For messages. */
  readonly name: string;
  readonly #waiters: WaiterList<MutexLease>;
  #holder: MutexLease | undefined;

  constructor(name = "mutex") {
    this.name = name;
    this.#waiters = new WaiterList(name);
  }

  get locked(): boolean {
    return this.#holder !== undefined;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * Takes the lock, waiting for it when somebody else holds it.
   *
   * @returns the lease, at once when the lock is free
   * @throws BlockError `ECANCELED` when aborted; AssertionError when the owner holds the lock already
   * @example
   * const lease = await mutex.acquire();
   * try {
   *   // alone here
   * } finally {
   *   lease.release();
   * }
   */
  acquire(options?: AcquireOptions): MaybePromise<Lease> {
    if (options !== undefined) this.#check(options);
    const lease = new MutexLease(this, options?.owner);
    if (this.#holder !== undefined) return this.#waiters.enqueue(lease, options?.signal).promise;
    this.#holder = lease;
    return lease;
  }

  /**
   * Takes the lock if it is free now.
   *
   * @throws AssertionError when the owner holds the lock already
   */
  tryAcquire(options?: AcquireOptions): Lease | undefined {
    if (options !== undefined) this.#check(options);
    if (this.#holder !== undefined) return undefined;
    this.#holder = new MutexLease(this, options?.owner);
    return this.#holder;
  }

  /** @internal The holder's lease was released. */
  handOver(): void {
    const next = this.#waiters.head;
    this.#holder = next?.value;
    next?.grant();
  }

  #check(options: AcquireOptions): void {
    const { owner } = options;
    assert(
      owner === undefined || this.#holder?.owner !== owner,
      "a mutex is not locked recursively",
    );
    refuseAborted(this.name, options);
  }
}
