/**
 * A lock over byte ranges: who asks for bytes that somebody holds waits, the others do not.
 *
 * 1. Held ranges never overlap, so a sorted list finds a conflict by bisection (see DisjointRanges).
 * 2. First come, first served among requests that overlap: a request waits for every earlier one, held
 *    or waiting, that shares a byte with it. Those it waits for are its *blockers*.
 * 3. A waiter with no blockers left is granted in the step that removes the last of them. Blockers are
 *    always earlier requests, so they form no cycle.
 * 4. With nothing held nothing waits.
 *
 * Cost with n held and w waiting: an acquire takes log n comparisons, and w more when somebody waits.
 */
import { assert, type MaybePromise } from "@blocklayer/bytes";
import { DisjointRanges } from "./disjoint-ranges.js";
import { type AcquireOptions, type Lease, refuseAborted } from "./lease.js";
import { type Waiter, WaiterList } from "./waiter-list.js";

/** A range that is held. */
export interface RangeLease extends Lease {
  readonly offset: number;
  readonly lengthBytes: number;
}

class RangeLeaseState implements RangeLease {
  readonly offset: number;
  /** Exclusive. */
  readonly end: number;
  readonly owner: object | undefined;
  waiter: Waiter<RangeLeaseState> | undefined;
  /** Earlier requests in the way. Only while waiting. */
  blockers: Set<RangeLeaseState> | undefined;
  /** Later requests that this one is in the way of, in order of arrival. */
  dependents: Set<RangeLeaseState> | undefined;
  #lock: RangeLock | undefined;

  constructor(lock: RangeLock, offset: number, end: number, owner: object | undefined) {
    this.#lock = lock;
    this.offset = offset;
    this.end = end;
    this.owner = owner;
  }

  get lengthBytes(): number {
    return this.end - this.offset;
  }

  release(): void {
    const lock = this.#lock;
    assert(lock !== undefined, "a range lease is released once");
    this.#lock = undefined;
    lock.leave(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** First come, first served among requests that share a byte. */
export class RangeLock {
  /** For messages. */
  readonly name: string;
  readonly #held = new DisjointRanges<RangeLeaseState>();
  readonly #waiters: WaiterList<RangeLeaseState>;

  constructor(name = "range lock") {
    this.name = name;
    this.#waiters = new WaiterList(name, (lease) => this.#unblockDependents(lease));
  }

  /** How many ranges are held. With 0 nobody waits either. */
  get size(): number {
    return this.#held.size;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * Takes a range, waiting for the earlier requests that share a byte with it.
   *
   * @param offset - of the first byte
   * @param length - in bytes, at least 1
   * @returns the lease, at once when nothing is in the way
   * @throws BlockError `ECANCELED` when aborted; AssertionError when the owner holds bytes of the range
   *   already
   */
  acquire(offset: number, length: number, options?: AcquireOptions): MaybePromise<RangeLease> {
    const end = checkedEnd(offset, length);
    const lease = new RangeLeaseState(this, offset, end, options?.owner);
    if (options !== undefined) refuseAborted(this.name, options);
    if (this.#isFree(offset, end)) {
      this.#held.insert(lease);
      return lease;
    }
    this.#block(lease);
    const waiter = this.#waiters.enqueue(lease, options?.signal);
    lease.waiter = waiter;
    return waiter.promise;
  }

  /** Takes a range if no earlier request, held or waiting, shares a byte with it. */
  tryAcquire(offset: number, length: number, options?: AcquireOptions): RangeLease | undefined {
    const end = checkedEnd(offset, length);
    if (!this.#isFree(offset, end)) return undefined;
    const lease = new RangeLeaseState(this, offset, end, options?.owner);
    this.#held.insert(lease);
    return lease;
  }

  /** Whether a request, held or waiting, shares a byte with the range: whether `acquire` would wait. */
  overlaps(offset: number, length: number): boolean {
    return !this.#isFree(offset, checkedEnd(offset, length));
  }

  /** @internal A lease was released. */
  leave(lease: RangeLeaseState): void {
    this.#held.remove(lease);
    this.#unblockDependents(lease);
  }

  #isFree(offset: number, end: number): boolean {
    const next = this.#held.firstEndingAfter(offset);
    if (next !== undefined && next.offset < end) return false;
    for (let waiter = this.#waiters.head; waiter !== undefined; waiter = waiter.next) {
      if (waiter.value.offset < end && waiter.value.end > offset) return false;
    }
    return true;
  }

  /** Notes whom the new request waits for. */
  #block(lease: RangeLeaseState): void {
    const blockers = new Set<RangeLeaseState>();
    for (const other of this.#held.overlapping(lease.offset, lease.end)) {
      assert(
        lease.owner === undefined || other.owner !== lease.owner,
        "a range is not locked recursively",
      );
      blockers.add(other);
    }
    for (let waiter = this.#waiters.head; waiter !== undefined; waiter = waiter.next) {
      const other = waiter.value;
      if (other.offset < lease.end && other.end > lease.offset) blockers.add(other);
    }
    for (const blocker of blockers) {
      blocker.dependents ??= new Set();
      blocker.dependents.add(lease);
    }
    lease.blockers = blockers;
  }

  /** The request is gone, released or aborted: whom it was in the way of may go on. */
  #unblockDependents(lease: RangeLeaseState): void {
    const { blockers, dependents } = lease;
    lease.blockers = undefined;
    lease.dependents = undefined;
    if (blockers !== undefined) for (const blocker of blockers) blocker.dependents?.delete(lease);
    if (dependents === undefined) return;
    for (const dependent of dependents) {
      dependent.blockers?.delete(lease);
      if (dependent.blockers?.size === 0) this.#grant(dependent);
    }
  }

  #grant(lease: RangeLeaseState): void {
    const { waiter } = lease;
    assert(waiter !== undefined, "a range that is granted was waited for");
    lease.blockers = undefined;
    lease.waiter = undefined;
    this.#held.insert(lease);
    waiter.grant();
  }
}

function checkedEnd(offset: number, length: number): number {
  const end = offset + length;
  assert(Number.isSafeInteger(offset) && offset >= 0, "the range's offset is a safe integer");
  assert(length > 0 && Number.isSafeInteger(end), "the range is not empty and ends below 2^53");
  return end;
}
