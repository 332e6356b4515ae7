/** Bytes to write, and numbers to choose with: all from seeds, so that a failure can be run again. */

/** A small seeded generator (mulberry32). For tests only. */
export class Prng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** The next 32 bits, not negative. */
  uint32(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A whole number in `[0, limit)`. */
  below(limit: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * limit);
  }

  /** One of the items. Requires: there is one. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/**
 * Bytes of which none is zero, different for every seed and at every place: what is stale, moved or zeroed
 * shows.
 */
export function pattern(seed: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  const random = new Prng(seed * 0x9e3779b1);
  for (let i = 0; i < lengthBytes; i += 4) {
    const word = random.uint32() | 0x01010101;
    for (let j = 0; j < 4 && i + j < lengthBytes; j++) bytes[i + j] = word >>> (8 * j);
  }
  return bytes;
}

/**
 * Cuts bytes into parts over the same memory.
 *
 * @param count - how many at most; each part but the last is a multiple of `unit` and at least one `unit`
 */
export function split(bytes: Uint8Array, count: number, unit = 1): Uint8Array[] {
  const units = Math.ceil(bytes.length / unit);
  const parts: Uint8Array[] = [];
  const used = Math.max(1, Math.min(count, units));
  for (let i = 0; i < used; i++) {
    // Uneven parts: the bounds lie on a curve, so that a driver cannot rely on equal lengths.
    const start = Math.floor(units * (i / used) ** 1.5) * unit;
    const end = i + 1 === used ? bytes.length : Math.floor(units * ((i + 1) / used) ** 1.5) * unit;
    if (end > start) parts.push(bytes.subarray(start, end));
  }
  return parts;
}
