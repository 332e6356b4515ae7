/**
 * A counting semaphore: at most so many permits are out.
 *
 * 1. Strictly in order: who asks for many permits is not overtaken by who asks for few.
 * 2. Whoever waits first cannot be served from what is available now.
 */
import { assert, type MaybePromise } from "@blocklayer/bytes";
import { type AcquireOptions, type Lease, refuseAborted } from "./lease.js";
import { WaiterList } from "./waiter-list.js";

class SemaphoreLease implements Lease {
  readonly count: number;
  readonly owner: object | undefined;
  #semaphore: CoSemaphore | undefined;

  constructor(semaphore: CoSemaphore, count: number, owner: object | undefined) {
    this.#semaphore = semaphore;
    this.count = count;
    this.owner = owner;
  }

  release(): void {
    const semaphore = this.#semaphore;
    assert(semaphore !== undefined, "a semaphore lease is released once");
    this.#semaphore = undefined;
    semaphore.giveBack(this.count, this.owner);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** First come, first served, also among requests of different size. */
export class CoSemaphore {
  /** For messages. */
  readonly name: string;
  /** How many permits there are in all. */
  readonly permits: number;
  readonly #waiters: WaiterList<SemaphoreLease>;
  #available: number;
  /** Made when the first owner is named. */
  #owners: Set<object> | undefined;

  /** @param permits - how many there are, at least 1 */
  constructor(permits: number, name = "semaphore") {
    assert(Number.isSafeInteger(permits) && permits >= 1, "a semaphore has at least one permit");
    this.permits = permits;
    this.name = name;
    this.#available = permits;
    this.#waiters = new WaiterList(name, () => this.#pump());
  }

  /** How many permits are not out. */
  get available(): number {
    return this.#available;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * Takes permits, waiting for them when there are too few, or when others wait already.
   *
   * @param count - 1 to `permits`
   * @throws BlockError `ECANCELED` when aborted; AssertionError when `count` could never be had, and
   *   when the owner holds permits already: two such owners could wait for each other
   */
  acquire(count = 1, options?: AcquireOptions): MaybePromise<Lease> {
    this.#check(count, options);
    const lease = new SemaphoreLease(this, count, options?.owner);
    if (this.#waiters.length > 0 || count > this.#available) {
      return this.#waiters.enqueue(lease, options?.signal).promise;
    }
    this.#take(lease);
    return lease;
  }

  /** Takes permits if they can be had now without overtaking anybody. */
  tryAcquire(count = 1, options?: AcquireOptions): Lease | undefined {
    this.#check(count, options);
    if (this.#waiters.length > 0 || count > this.#available) return undefined;
    const lease = new SemaphoreLease(this, count, options?.owner);
    this.#take(lease);
    return lease;
  }

  /** @internal A lease was released. */
  giveBack(count: number, owner: object | undefined): void {
    this.#available += count;
    if (owner !== undefined) this.#owners?.delete(owner);
    this.#pump();
  }

  #take(lease: SemaphoreLease): void {
    this.#available -= lease.count;
    if (lease.owner === undefined) return;
    this.#owners ??= new Set();
    this.#owners.add(lease.owner);
  }

  #pump(): void {
    let head = this.#waiters.head;
    while (head !== undefined && head.value.count <= this.#available) {
      this.#take(head.value);
      head.grant();
      head = this.#waiters.head;
    }
  }

  #check(count: number, options: AcquireOptions | undefined): void {
    assert(Number.isSafeInteger(count) && count >= 1, "a request asks for at least one permit");
    assert(count <= this.permits, "a request asks for no more permits than there are");
    if (options === undefined) return;
    const { owner } = options;
    assert(
      owner === undefined || this.#owners?.has(owner) !== true,
      "a semaphore is not locked recursively",
    );
    refuseAborted(this.name, options);
  }
}
