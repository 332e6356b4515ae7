/** A right driver with narrow limits that throws when the suite itself breaks a promise of the graph. */
import { type IoVector, isAligned, type MaybePromise } from "@blocklayer/bytes";
import {
  type BlockLimits,
  limitsOf,
  type RequestOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { ArrayDriver } from "./array-driver.js";

const UNIT = 4096;

export class StrictDriver extends ArrayDriver {
  override readonly limits: BlockLimits = limitsOf({
    requestAlignment: UNIT,
    memoryAlignment: 512,
    maxTransfer: 16 * UNIT,
    maxWriteZeroes: 10 * UNIT + 5,
    maxDiscard: 9 * UNIT,
  });
  #isFlushing = false;
  #isFlushed = false;

  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.#checkVector(offset, target);
    this.begin(options, false);
    // The array may end inside the last unit.
    const fits = Math.min(target.lengthBytes, this.lengthBytes - offset);
    return super.readv(offset, target.slice(0, fits), options);
  }

  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    this.#checkVector(offset, source);
    return super.writev(offset, source, options);
  }

  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    this.#checkRange(offset, length, 10 * UNIT);
    return super.writeZeroes(offset, length, options);
  }

  override discard(offset: number, length: number, options?: RequestOptions): MaybePromise<void> {
    this.#checkRange(offset, length, 9 * UNIT);
    return super.discard(offset, length, options);
  }

  override flushToOs(): void {
    this.#isFlushed = true;
  }

  override async flushToDisk(): Promise<void> {
    if (!this.#isFlushed || this.#isFlushing) throw new Error("flushToDisk() out of order");
    this.#isFlushing = true;
    await Promise.resolve();
    this.#isFlushing = false;
  }

  #checkVector(offset: number, vector: IoVector): void {
    this.#checkRange(offset, vector.lengthBytes, this.limits.maxTransfer);
    for (const part of vector.parts) {
      if (!isAligned(part.byteOffset, 512)) throw new Error("the memory of a part is unaligned");
      if (!isAligned(part.length, UNIT)) throw new Error("the length of a part is unaligned");
    }
  }

  #checkRange(offset: number, length: number, limit: number): void {
    if (!isAligned(offset, UNIT) || !isAligned(length, UNIT)) throw new Error("unaligned request");
    if (length <= 0 || length > limit) throw new Error(`a request of ${length} bytes`);
  }
}
