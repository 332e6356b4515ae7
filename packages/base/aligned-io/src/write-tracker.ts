/**
 * The aligned writes in flight, so that a read-modify-write can wait for those it overlaps: otherwise it
 * could read a block before such a write reached it, and put the old bytes back after it.
 *
 * A linked list, since every aligned write enters and leaves it and only a read-modify-write searches it.
 */
class TrackedWrite {
  readonly offset: number;
  /** Exclusive. */
  readonly end: number;
  previous: TrackedWrite | undefined;
  next: TrackedWrite | undefined;
  /** Settles when the write has ended and has left the list. */
  ended: Promise<void> | undefined;

  constructor(offset: number, end: number) {
    this.offset = offset;
    this.end = end;
  }
}

export class WriteTracker {
  #head: TrackedWrite | undefined;
  #size = 0;

  /** How many writes are in flight. */
  get size(): number {
    return this.#size;
  }

  /**
   * Follows a write until it ends.
   *
   * @returns a promise that ends as the write does, after the write was forgotten here
   */
  track(offset: number, end: number, write: Promise<void>): Promise<void> {
    const tracked = new TrackedWrite(offset, end);
    tracked.next = this.#head;
    if (this.#head !== undefined) this.#head.previous = tracked;
    this.#head = tracked;
    this.#size++;
    tracked.ended = write.then(
      () => this.#remove(tracked),
      (error: unknown) => {
        this.#remove(tracked);
        throw error;
      },
    );
    return tracked.ended;
  }

  /**
   * The end of all writes that share a byte with the range and are in flight now, whether they succeed or
   * fail; undefined when there are none.
   */
  overlapping(offset: number, end: number): Promise<unknown> | undefined {
    let found: Promise<void>[] | undefined;
    for (let write = this.#head; write !== undefined; write = write.next) {
      if (write.offset >= end || write.end <= offset || write.ended === undefined) continue;
      found ??= [];
      found.push(write.ended);
    }
    return found === undefined ? undefined : Promise.allSettled(found);
  }

  #remove(write: TrackedWrite): void {
    const { previous, next } = write;
    if (previous === undefined) this.#head = next;
    else previous.next = next;
    if (next !== undefined) next.previous = previous;
    this.#size--;
  }
}
