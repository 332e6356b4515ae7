/**
 * Allocations in flight: clusters that were taken and are not linked yet [C9, C11].
 *
 * Above: write, zero, discard, compressed/write. Below: co-lock.
 *
 * 1. Ranges are whole clusters of the disk, and no two overlap.
 * 2. Added, looked up and removed under the image lock (the fast path of a write looks without it).
 * 3. Whoever overlaps one waits for its end and then looks the mapping up again.
 */
import { assert } from "@blocklayer/bytes";
import { WaitQueue } from "@blocklayer/co-lock";
import type { GuestOffset, HostOffset } from "../geometry.js";

/** The part of an allocation's clusters that its write fills. */
export type DataRange = Pick<PendingAllocation, "dataStart" | "dataEnd" | "fresh">;

/** One allocation in flight. Its host clusters lie side by side. */
export class PendingAllocation {
  readonly guestStart: GuestOffset;
  readonly guestEnd: GuestOffset;
  /** Of the cluster at `guestStart`. */
  readonly hostOffset: HostOffset;
  /** The clusters were set aside before: nothing was taken, nothing is dropped. */
  readonly inPlace: boolean;
  /** The guest bytes that are written, copied ones included: the subclusters that it touches get data. */
  readonly dataStart: GuestOffset;
  readonly dataEnd: GuestOffset;
  /** None of these subclusters had data in the host clusters before. */
  readonly fresh: boolean;
  readonly waiters: WaitQueue = new WaitQueue("allocation in flight");

  constructor(
    guestStart: GuestOffset,
    guestEnd: GuestOffset,
    hostOffset: HostOffset,
    inPlace: boolean,
    data: DataRange = { dataStart: guestStart, dataEnd: guestEnd, fresh: true },
  ) {
    this.guestStart = guestStart;
    this.guestEnd = guestEnd;
    this.hostOffset = hostOffset;
    this.inPlace = inPlace;
    this.dataStart = data.dataStart;
    this.dataEnd = data.dataEnd;
    this.fresh = data.fresh;
  }

  get lengthBytes(): number {
    return this.guestEnd - this.guestStart;
  }
}

export class PendingAllocations {
  readonly #list: PendingAllocation[] = [];

  get size(): number {
    return this.#list.length;
  }

  add(allocation: PendingAllocation): void {
    assert(
      this.firstOverlapping(allocation.guestStart, allocation.guestEnd) === undefined,
      "allocations in flight do not overlap",
    );
    this.#list.push(allocation);
  }

  /** Takes one off the list and wakes who waits for it. */
  remove(allocation: PendingAllocation): void {
    const index = this.#list.indexOf(allocation);
    assert(index >= 0, "an allocation in flight ends once");
    this.#list.splice(index, 1);
    allocation.waiters.wakeAll();
  }

  /** The lowest one that overlaps the clusters of `[start, end)`. */
  firstOverlapping(start: GuestOffset, end: GuestOffset): PendingAllocation | undefined {
    let first: PendingAllocation | undefined;
    for (const one of this.#list) {
      if (one.guestStart >= end || one.guestEnd <= start) continue;
      if (first === undefined || one.guestStart < first.guestStart) first = one;
    }
    return first;
  }
}
