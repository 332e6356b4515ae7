/**
 * The bits of one bitmap: granules of a disk, kept in chunks as the file has them.
 *
 * Above: load.ts, store.ts, bitmaps.ts. Below: nothing; no I/O.
 *
 * 1. A chunk is what one cluster of the file holds. A chunk without a dirty granule takes no memory, and none more
 *    than its part of the disk needs: with clusters of 2 MiB that is a thousandth for a small disk.
 * 2. Bit 0 of byte 0 is the first granule of a chunk.
 * 3. No bit behind the end of the disk is set.
 */
import { assert } from "@blocklayer/bytes";

/** Dirty bytes of the disk: `[start, end)`. */
export interface BitRange {
  readonly start: number;
  readonly end: number;
}

export class Bits {
  readonly granularityBytes: number;
  readonly #chunkBytes: number;
  readonly #chunks = new Map<number, Uint8Array>();
  #lengthBytes: number;

  /**
   * @param lengthBytes - of the disk
   * @param granularityBits - binary logarithm of the bytes behind one bit
   * @param chunkBytes - of a cluster
   */
  constructor(lengthBytes: number, granularityBits: number, chunkBytes: number) {
    this.#lengthBytes = lengthBytes;
    this.granularityBytes = 2 ** granularityBits;
    this.#chunkBytes = chunkBytes;
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** Chunks that the whole disk needs. */
  get chunkCount(): number {
    return Math.ceil(this.#bitCount / this.#bitsPerChunk);
  }

  /** Memory for a disk of which every byte is dirty. */
  get denseBytes(): number {
    return Math.ceil(this.#bitCount / 8);
  }

  /** The chunks with a dirty granule, in no order; the last may be shorter. Not to be changed. */
  get chunks(): ReadonlyMap<number, Uint8Array> {
    return this.#chunks;
  }

  /** Fills a chunk as the file has it; bits behind the end of the disk are taken away. */
  load(index: number, bytes: Uint8Array): void {
    assert(bytes.length === this.#chunkBytes, "a chunk is one cluster long");
    if (bytes.every((byte) => byte === 0)) return;
    this.#chunks.set(index, bytes.slice(0, this.#bytesOf(index)));
    this.#cutTail();
  }

  /** Makes every granule that a range touches dirty. Requires: the range lies on the disk. */
  mark(offset: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    const first = Math.floor(offset / this.granularityBytes);
    const last = Math.floor((offset + lengthBytes - 1) / this.granularityBytes);
    for (let bit = first; bit <= last; ) {
      const index = Math.floor(bit / this.#bitsPerChunk);
      const start = index * this.#bitsPerChunk;
      const stop = Math.min(last + 1, start + this.#bitsPerChunk);
      setBits(this.#chunkAt(index), bit - start, stop - start);
      bit = stop;
    }
  }

  /** Makes everything clean. */
  clear(): void {
    this.#chunks.clear();
  }

  /** The disk has another length now; what is new is clean. */
  resize(lengthBytes: number): void {
    this.#lengthBytes = lengthBytes;
    for (const index of this.#chunks.keys()) {
      if (index >= this.chunkCount) this.#chunks.delete(index);
      else this.#lengthen(index);
    }
    this.#cutTail();
  }

  /** The first dirty range at or behind an offset, as long as it goes. */
  nextRange(from: number): BitRange | undefined {
    // The last granule may reach past the end: an offset in that part is past it as well.
    if (from >= this.#lengthBytes) return undefined;
    const first = this.#nextBit(Math.floor(from / this.granularityBytes), true);
    if (first === undefined) return undefined;
    const end = this.#nextBit(first + 1, false) ?? this.#bitCount;
    return {
      start: Math.max(from, first * this.granularityBytes),
      end: Math.min(this.#lengthBytes, end * this.granularityBytes),
    };
  }

  get #bitsPerChunk(): number {
    return this.#chunkBytes * 8;
  }

  get #bitCount(): number {
    return Math.ceil(this.#lengthBytes / this.granularityBytes);
  }

  #chunkAt(index: number): Uint8Array {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint8Array(this.#bytesOf(index));
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }

  /** Bytes of a chunk that lie before the end of the disk. */
  #bytesOf(index: number): number {
    return Math.min(this.#chunkBytes, this.denseBytes - index * this.#chunkBytes);
  }

  /** The last chunk of a disk that grew has more to hold. */
  #lengthen(index: number): void {
    const chunk = this.#chunks.get(index);
    const needed = this.#bytesOf(index);
    if (chunk === undefined || chunk.length >= needed) return;
    const longer = new Uint8Array(needed);
    longer.set(chunk);
    this.#chunks.set(index, longer);
  }

  #nextBit(from: number, wanted: boolean): number | undefined {
    const count = this.#bitCount;
    for (let bit = from; bit < count; ) {
      const index = Math.floor(bit / this.#bitsPerChunk);
      const start = index * this.#bitsPerChunk;
      const chunk = this.#chunks.get(index);
      if (chunk === undefined && !wanted) return bit;
      const found = chunk === undefined ? -1 : findBit(chunk, bit - start, wanted);
      if (found >= 0) return start + found < count ? start + found : undefined;
      bit = start + this.#bitsPerChunk;
    }
    return undefined;
  }

  /** Clears the bits behind the end of the disk. */
  #cutTail(): void {
    const index = this.chunkCount - 1;
    const chunk = this.#chunks.get(index);
    if (chunk === undefined) return;
    const inside = this.#bitCount - index * this.#bitsPerChunk;
    const wholeBytes = Math.ceil(inside / 8);
    chunk.fill(0, wholeBytes);
    if (inside % 8 !== 0) {
      chunk[wholeBytes - 1] = (chunk[wholeBytes - 1] as number) & (2 ** (inside % 8) - 1);
    }
  }
}

/** Sets the bits `[first, end)`. */
function setBits(bytes: Uint8Array, first: number, end: number): void {
  const firstByte = first >>> 3;
  const lastByte = (end - 1) >>> 3;
  const head = (0xff << (first & 7)) & 0xff;
  const tail = 0xff >>> (7 - ((end - 1) & 7));
  if (firstByte === lastByte) {
    bytes[firstByte] = (bytes[firstByte] as number) | (head & tail);
    return;
  }
  bytes[firstByte] = (bytes[firstByte] as number) | head;
  bytes.fill(0xff, firstByte + 1, lastByte);
  bytes[lastByte] = (bytes[lastByte] as number) | tail;
}

/** The first bit at or behind `from` that is set, or clear; -1: none. */
function findBit(bytes: Uint8Array, from: number, wanted: boolean): number {
  const dull = wanted ? 0 : 0xff;
  for (let at = from >>> 3; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte === dull) continue;
    for (let bit = at * 8 === from - (from & 7) ? from & 7 : 0; bit < 8; bit++) {
      if (((byte >>> bit) & 1) === Number(wanted)) return at * 8 + bit;
    }
  }
  return -1;
}
