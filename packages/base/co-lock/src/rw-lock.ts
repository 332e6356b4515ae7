/**
 * A readers-writer lock for coroutines.
 *
 * 1. Many readers or one writer. Strictly in order: a reader who comes after a waiting writer waits too,
 *    so neither side starves.
 * 2. An upgrade keeps its read lock while it waits: what it has read stays true. It waits for the other
 *    readers only and goes ahead of the queue, which could not move before it anyway. Nobody new is let
 *    in meanwhile.
 * 3. Two upgrades would wait for each other, so the second is refused with `EBUSY`. It still has its read
 *    lock; it releases that and takes a write lock, and then reads again what it knew.
 * 4. With nobody holding the lock nobody waits.
 */
import { assert, BlockError, type MaybePromise } from "@blocklayer/bytes";
import { type AcquireOptions, type Lease, refuseAborted } from "./lease.js";
import { WaiterList } from "./waiter-list.js";

/** What the holder of a readers-writer lock may do now. */
export type RwMode = "read" | "write";

/** A readers-writer lock that is held. */
export interface RwLease extends Lease {
  readonly mode: RwMode;
  /**
   * Turns a write lock into a read lock without letting a writer in between. Waiting readers join if no
   * writer came before them.
   *
   * @throws AssertionError when this is no write lock
   */
  downgrade(): void;
  /**
   * Turns a read lock into a write lock; at once when there is no other reader. A write lock stays one.
   * The lease must not be released before the upgrade has ended.
   *
   * @throws BlockError `EBUSY` when another upgrade waits already; `ECANCELED` when aborted. **After
   *   failure:** the read lock is still held
   */
  upgrade(options?: Pick<AcquireOptions, "signal">): MaybePromise<void>;
}

class RwLeaseState implements RwLease {
  readonly owner: object | undefined;
  mode: RwMode;
  upgrading = false;
  #lock: CoRwLock | undefined;

  constructor(lock: CoRwLock, mode: RwMode, owner: object | undefined) {
    this.#lock = lock;
    this.mode = mode;
    this.owner = owner;
  }

  release(): void {
    const lock = this.#lock;
    assert(lock !== undefined, "a readers-writer lease is released once");
    assert(!this.upgrading, "a lease is not released while its upgrade waits");
    this.#lock = undefined;
    lock.leave(this);
  }

  downgrade(): void {
    assert(this.#lock !== undefined, "a released lease is not downgraded");
    this.#lock.downgrade(this);
  }

  upgrade(options?: Pick<AcquireOptions, "signal">): MaybePromise<void> {
    assert(this.#lock !== undefined, "a released lease is not upgraded");
    return this.#lock.upgrade(this, options);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** First come, first served; readers who stand side by side in the queue go in together. */
export class CoRwLock {
  /** For messages. */
  readonly name: string;
  readonly #waiters: WaiterList<RwLeaseState>;
  /** At most one. */
  readonly #upgraders: WaiterList<void>;
  #upgrader: RwLeaseState | undefined;
  #writer: RwLeaseState | undefined;
  #readers = 0;
  /** Of the readers. Made when the first is named. */
  #owners: Set<object> | undefined;

  constructor(name = "readers-writer lock") {
    this.name = name;
    this.#waiters = new WaiterList(name, () => this.#pump());
    this.#upgraders = new WaiterList(name, () => this.#upgradeAborted());
  }

  /** How many hold a read lock. */
  get readers(): number {
    return this.#readers;
  }

  /** Whether somebody holds the write lock. */
  get writing(): boolean {
    return this.#writer !== undefined;
  }

  /** How many wait, upgrades included. */
  get waiting(): number {
    return this.#waiters.length + this.#upgraders.length;
  }

  /**
   * Takes a read lock.
   *
   * @returns the lease, at once when there is no writer and nobody waits
   * @throws BlockError `ECANCELED` when aborted; AssertionError when the owner holds the lock already: a
   *   writer between its two read locks would wait for the first and hold up the second
   */
  acquireRead(options?: AcquireOptions): MaybePromise<RwLease> {
    return this.#acquire("read", options);
  }

  /**
   * Takes the write lock.
   *
   * @returns the lease, at once when nobody holds the lock
   * @throws BlockError `ECANCELED` when aborted; AssertionError when the owner holds the lock already
   */
  acquireWrite(options?: AcquireOptions): MaybePromise<RwLease> {
    return this.#acquire("write", options);
  }

  #acquire(mode: RwMode, options: AcquireOptions | undefined): MaybePromise<RwLease> {
    if (options !== undefined) this.#check(options);
    const lease = new RwLeaseState(this, mode, options?.owner);
    if (this.waiting > 0 || !this.#admits(mode)) {
      return this.#waiters.enqueue(lease, options?.signal).promise;
    }
    this.#enter(lease);
    return lease;
  }

  /** @internal */
  leave(lease: RwLeaseState): void {
    if (lease.mode === "write") this.#writer = undefined;
    else this.#removeReader(lease);
    this.#pump();
  }

  /** @internal */
  downgrade(lease: RwLeaseState): void {
    assert(lease.mode === "write", "only a write lock is downgraded");
    this.#writer = undefined;
    lease.mode = "read";
    this.#enter(lease);
    this.#pump();
  }

  /** @internal */
  upgrade(
    lease: RwLeaseState,
    options: Pick<AcquireOptions, "signal"> | undefined,
  ): MaybePromise<void> {
    assert(!lease.upgrading, "a lease is upgraded once at a time");
    if (lease.mode === "write") return undefined;
    refuseAborted(this.name, options);
    if (this.#upgrader !== undefined) {
      throw new BlockError("EBUSY", `${this.name}: another reader waits to become the writer`);
    }
    if (this.#readers === 1) {
      this.#promote(lease);
      return undefined;
    }
    lease.upgrading = true;
    this.#upgrader = lease;
    return this.#upgraders.enqueue(undefined, options?.signal).promise;
  }

  #promote(lease: RwLeaseState): void {
    this.#removeReader(lease);
    lease.mode = "write";
    this.#enter(lease);
  }

  #upgradeAborted(): void {
    const lease = this.#upgrader;
    assert(lease !== undefined, "an aborted upgrade was waiting");
    lease.upgrading = false;
    this.#upgrader = undefined;
    this.#pump();
  }

  /** Lets in whoever may go in now. */
  #pump(): void {
    const upgrader = this.#upgrader;
    if (upgrader !== undefined) {
      if (this.#readers > 1) return;
      this.#upgrader = undefined;
      upgrader.upgrading = false;
      this.#promote(upgrader);
      this.#upgraders.head?.grant();
      return;
    }
    let head = this.#waiters.head;
    while (head !== undefined && this.#admits(head.value.mode)) {
      this.#enter(head.value);
      head.grant();
      head = this.#waiters.head;
    }
  }

  #admits(mode: RwMode): boolean {
    return this.#writer === undefined && (mode === "read" || this.#readers === 0);
  }

  #enter(lease: RwLeaseState): void {
    if (lease.mode === "write") {
      this.#writer = lease;
      return;
    }
    this.#readers++;
    if (lease.owner === undefined) return;
    this.#owners ??= new Set();
    this.#owners.add(lease.owner);
  }

  #removeReader(lease: RwLeaseState): void {
    this.#readers--;
    if (lease.owner !== undefined) this.#owners?.delete(lease.owner);
  }

  #check(options: AcquireOptions): void {
    const { owner } = options;
    const holds =
      owner !== undefined && (this.#writer?.owner === owner || this.#owners?.has(owner) === true);
    assert(!holds, "a readers-writer lock is not locked recursively");
    refuseAborted(this.name, options);
  }
}
