/**
 * Seeded pseudo-random numbers: the same seed gives the same run on every machine.
 *
 * The generator is sfc32 (Chris Doty-Humphrey's small fast counter, 128 bits of state). It is for tests,
 * never for keys.
 */

/** Rounds that are thrown away so that near seeds give unlike streams. */
const WARM_UP_ROUNDS = 15;

/** A stream of numbers. Not shared between parallel users that must not influence each other: see `fork`. */
export class Random {
  /** What it was made from: print it when something fails. */
  readonly seed: number;
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  /** @param seed - any safe integer, not negative */
  constructor(seed: number) {
    this.seed = seed;
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 2 ** 32) | 0;
    this.#c = 0x6b636f6c;
    this.#counter = 1;
    for (let round = 0; round < WARM_UP_ROUNDS; round++) this.uint32();
  }

  /** The next 32 bits, as a number that is not negative. */
  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** A number in `[0, 1)`. */
  fraction(): number {
    return this.uint32() / 2 ** 32;
  }

  /**
   * A whole number in `[0, limit)`.
   *
   * Requires: `1 <= limit <= 2 ** 32`. The bias below 2^-20 of small limits does not matter to a test.
   */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  /** A whole number in `[low, high]`. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** `true` once in `times` calls on average. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of the items. Requires: there is one. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** The items in another order; the array that is given stays as it is. */
  shuffled<T>(items: readonly T[]): T[] {
    const copy = [...items];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const moved = copy[i] as T;
      copy[i] = copy[j] as T;
      copy[j] = moved;
    }
    return copy;
  }

  /** Fresh random bytes. */
  bytes(lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    for (let i = 0; i < lengthBytes; i++) bytes[i] = this.uint32();
    return bytes;
  }

  /** Another stream, which this one's later use does not disturb. */
  fork(): Random {
    return new Random(this.uint32() * 2 ** 20 + (this.uint32() >>> 12));
  }
}
