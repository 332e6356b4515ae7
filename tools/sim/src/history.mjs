// A value that changes in time, when each change may or may not have reached the disk.

/**
 * @template T
 * @typedef {{ value: T, start: number, end: number }} Entry - `end` is Infinity until the change is known to be durable
 */

/** @template T */
export class History {
  /** @type {Entry<T>[]} */
  entries;

  /** @param {T} value */
  constructor(value) {
    this.entries = [{ value, start: -1, end: -1 }];
  }

  /** The value as of the last change that has ended. */
  get now() {
    return this.entries.findLast(({ end }) => end !== Number.POSITIVE_INFINITY).value;
  }

  /** A change begins. */
  begin(value, start) {
    const entry = { value, start, end: Number.POSITIVE_INFINITY };
    this.entries.push(entry);
    return entry;
  }

  /** A change was refused: it never was. */
  cancel(entry) {
    this.entries = this.entries.filter((one) => one !== entry);
  }

  /** The values that may be found after a crash: the last one that was durable by then, and those that had begun since. */
  allowedAt(position) {
    const begun = this.entries.filter(({ start }) => start <= position);
    const settled = begun.findLastIndex(({ end }) => end <= position);
    return begun.slice(settled).map(({ value }) => value);
  }
}
