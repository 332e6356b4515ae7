/**
 * Ranges that never overlap, sorted: the held part of a RangeLock. Pure, no locking.
 *
 * 1. The ranges lie in short runs (arrays), the runs in one array, all in order. No run is empty, save the
 *    only one: a lock that comes and goes alone allocates nothing here.
 * 2. As ranges are disjoint, their ends are in the order of their offsets: one bisection finds the first
 *    that ends behind a byte, which is the only one that can cover it.
 * 3. A change moves the slots of one run, so its cost does not grow with the number of ranges; a run that
 *    is full is split, and two short neighbours are joined.
 */
import { assert } from "@blocklayer/bytes";

/** Slots of a run. Long enough that runs are few, short enough that moving half of one costs little. */
const MAX_RUN = 32;

/** `[offset, end)`. */
interface Range {
  readonly offset: number;
  readonly end: number;
}

export class DisjointRanges<R extends Range> {
  readonly #runs: R[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The first range that ends behind `offset`. */
  firstEndingAfter(offset: number): R | undefined {
    if (this.#size === 0) return undefined;
    const run = this.#runs[this.#runIndex(offset)];
    return run === undefined ? undefined : run[slotIndex(run, offset)];
  }

  /** All ranges that share a byte with `[offset, end)`, in order. */
  overlapping(offset: number, end: number): R[] {
    const found: R[] = [];
    for (let index = this.#runIndex(offset); index < this.#runs.length; index++) {
      for (const range of this.#runs[index] as R[]) {
        if (range.offset >= end) return found;
        if (range.end > offset) found.push(range);
      }
    }
    return found;
  }

  /** Requires: the range overlaps none that is there. */
  insert(range: R): void {
    this.#size++;
    const runs = this.#runs;
    if (runs.length === 0) {
      runs.push([range]);
      return;
    }
    const index = Math.min(this.#runIndex(range.offset), runs.length - 1);
    const run = runs[index] as R[];
    const slot = slotIndex(run, range.offset);
    run.push(range);
    for (let i = run.length - 1; i > slot; i--) run[i] = run[i - 1] as R;
    run[slot] = range;
    if (run.length === MAX_RUN) runs.splice(index + 1, 0, run.splice(MAX_RUN / 2));
  }

  /** Requires: the range is there. */
  remove(range: R): void {
    const runs = this.#runs;
    const index = this.#runIndex(range.offset);
    const run = runs[index];
    const slot = run === undefined ? 0 : slotIndex(run, range.offset);
    assert(run !== undefined && run[slot] === range, "a range that is removed is there");
    this.#size--;
    for (let i = slot + 1; i < run.length; i++) run[i - 1] = run[i] as R;
    run.pop();
    if (run.length <= MAX_RUN / 4 && runs.length > 1) this.#joinNext(index, run);
  }

  /** Joins a short run with the one behind it if that is short too; an empty run goes away. */
  #joinNext(index: number, run: R[]): void {
    const next = this.#runs[index + 1];
    if (run.length === 0) {
      this.#runs.splice(index, 1);
    } else if (next !== undefined && run.length + next.length <= MAX_RUN / 2) {
      run.push(...next);
      this.#runs.splice(index + 1, 1);
    }
  }

  /** Index of the first run whose last range ends behind `offset`. */
  #runIndex(offset: number): number {
    const runs = this.#runs;
    let low = 0;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = runs[middle] as R[];
      const last = run[run.length - 1];
      if (last !== undefined && last.end > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Index of the first range of a run that ends behind `offset`. */
function slotIndex(run: readonly Range[], offset: number): number {
  let low = 0;
  let high = run.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((run[middle] as Range).end > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}
