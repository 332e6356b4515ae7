/**
 * A scatter-gather list: one request, several buffers.
 *
 * 1. An IoVector never copies and never owns: it names the caller's bytes.
 * 2. The order of the parts is the order on the disk. Empty parts are dropped.
 */
import { assert } from "./errors.js";

export class IoVector {
  readonly parts: readonly Uint8Array[];
  readonly lengthBytes: number;

  private constructor(parts: readonly Uint8Array[], lengthBytes: number) {
    this.parts = parts;
    this.lengthBytes = lengthBytes;
  }

  /** The vector of one buffer: the common case. */
  static of(buffer: Uint8Array): IoVector {
    return new IoVector([buffer], buffer.length);
  }

  /** The vector of several buffers, in order. */
  static from(buffers: readonly Uint8Array[]): IoVector {
    const parts = buffers.filter((part) => part.length > 0);
    let lengthBytes = 0;
    for (const part of parts) lengthBytes += part.length;
    return new IoVector(parts, lengthBytes);
  }

  /** A vector over fresh zeroes. */
  static allocate(lengthBytes: number): IoVector {
    return IoVector.of(new Uint8Array(lengthBytes));
  }

  /**
   * The part `[start, end)` of this vector, over the same bytes.
   *
   * Requires: `0 <= start <= end <= lengthBytes`.
   */
  slice(start: number, end: number): IoVector {
    assert(start >= 0 && start <= end && end <= this.lengthBytes, "the slice lies in the vector");
    if (start === 0 && end === this.lengthBytes) return this;
    const parts: Uint8Array[] = [];
    let at = 0;
    for (const part of this.parts) {
      const from = Math.max(start - at, 0);
      const to = Math.min(end - at, part.length);
      if (from < to) parts.push(part.subarray(from, to));
      at += part.length;
      if (at >= end) break;
    }
    return new IoVector(parts, end - start);
  }

  /** This vector followed by another. */
  concat(other: IoVector): IoVector {
    return new IoVector([...this.parts, ...other.parts], this.lengthBytes + other.lengthBytes);
  }

  /**
   * Fills `[start, end)` with one byte value.
   *
   * Requires: the range lies in the vector.
   */
  fill(value: number, start = 0, end: number = this.lengthBytes): void {
    if (start === 0 && end === this.lengthBytes) for (const part of this.parts) part.fill(value);
    else for (const part of this.slice(start, end).parts) part.fill(value);
  }

  /**
   * Copies bytes into this vector, from position `at` on.
   *
   * Requires: `at + source.length <= lengthBytes`.
   */
  copyFrom(source: Uint8Array, at = 0): void {
    let done = 0;
    for (const part of this.slice(at, at + source.length).parts) {
      part.set(source.subarray(done, done + part.length));
      done += part.length;
    }
  }

  /**
   * Copies the bytes from position `at` on into `target`, until it is full.
   *
   * Requires: `at + target.length <= lengthBytes`.
   */
  copyTo(target: Uint8Array, at = 0): void {
    let done = 0;
    for (const part of this.slice(at, at + target.length).parts) {
      target.set(part, done);
      done += part.length;
    }
  }

  /** All bytes as one buffer: the part itself when there is only one, else a copy. */
  toBytes(): Uint8Array {
    const only = this.parts[0];
    if (this.parts.length === 1 && only !== undefined) return only;
    const bytes = new Uint8Array(this.lengthBytes);
    this.copyTo(bytes);
    return bytes;
  }
}
