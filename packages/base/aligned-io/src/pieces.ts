/**
 * How a request is cut. Pure arithmetic.
 *
 * 1. Pieces follow each other without gap, and are cut at multiples of `requestAlignment`. So only the
 *    first can have a head that is not aligned, and only the last a tail.
 * 2. No piece, padding included, is longer than `maxTransfer`; one that is bounced is no longer than
 *    BOUNCE_PIECE_BYTES and than the arena's longest buffer.
 * 3. A *direct* piece needs neither padding nor bouncing.
 */
import { alignDown, alignUp, assert, type IoVector } from "@blocklayer/bytes";
import { isVectorAligned } from "./aligned-memory.js";
import type { AlignedArena } from "./arena.js";
import type { AlignedLimits } from "./device.js";

/** The longest bounce: so that one long request leaves memory for others. */
const BOUNCE_PIECE_BYTES = 1024 * 1024;
/** An aligned run before an unaligned tail gets a request of its own from this length on. */
const MIN_DIRECT_RUN_BYTES = 65536;

/** One piece. Offsets are bytes on the device. */
export interface Piece {
  /** First byte that is asked for. */
  readonly offset: number;
  /** Exclusive. */
  readonly end: number;
  /** `offset` rounded down, `end` rounded up: what the device is asked for. */
  readonly alignedOffset: number;
  readonly alignedEnd: number;
  /** The caller's bytes for `[offset, end)`. */
  readonly vector: IoVector;
  /** The device can take the vector as it is. */
  readonly direct: boolean;
  /** The vector's memory is not aligned enough, so a copy is made; otherwise padding is put around it. */
  readonly bounce: boolean;
  readonly requestAlignment: number;
}

export class Pieces {
  /** Exclusive end of the request. */
  readonly end: number;
  readonly #offset: number;
  readonly #vector: IoVector;
  readonly #limits: AlignedLimits;
  readonly #maxPieceBytes: number;
  readonly #maxBounceBytes: number;

  /** Requires: the vector is not empty. */
  constructor(offset: number, vector: IoVector, limits: AlignedLimits, arena: AlignedArena) {
    const { requestAlignment, maxTransfer } = limits;
    this.end = offset + vector.lengthBytes;
    assert(Number.isSafeInteger(offset) && offset >= 0, "a request's offset is a safe integer");
    assert(Number.isSafeInteger(alignUp(this.end, requestAlignment)), "a request ends below 2^53");
    this.#offset = offset;
    this.#vector = vector;
    this.#limits = limits;
    this.#maxPieceBytes = Math.max(alignDown(maxTransfer, requestAlignment), requestAlignment);
    const bounce = Math.min(this.#maxPieceBytes, BOUNCE_PIECE_BYTES, arena.maxBufferBytes);
    this.#maxBounceBytes = Math.max(alignDown(bounce, requestAlignment), requestAlignment);
  }

  /**
   * The piece that begins at `at`.
   *
   * @param at - the request's start, or where the piece before ended
   * @param end - where to stop, at most the request's end
   */
  next(at: number, end: number): Piece {
    const { requestAlignment, memoryAlignment } = this.#limits;
    const alignedOffset = alignDown(at, requestAlignment);
    if (memoryAlignment === 1) {
      return this.#piece(at, Math.min(end, alignedOffset + this.#maxPieceBytes), false);
    }
    if (alignedOffset === at) {
      const directEnd = Math.min(alignDown(end, requestAlignment), at + this.#maxPieceBytes);
      const worthwhile = directEnd === end || directEnd - at >= MIN_DIRECT_RUN_BYTES;
      if (worthwhile && this.#isAligned(at, directEnd)) return this.#piece(at, directEnd, false);
    }
    return this.#piece(at, Math.min(end, alignedOffset + this.#maxBounceBytes), true);
  }

  #isAligned(from: number, to: number): boolean {
    const { requestAlignment, memoryAlignment } = this.#limits;
    const vector = this.#vector.slice(from - this.#offset, to - this.#offset);
    return isVectorAligned(vector, memoryAlignment, requestAlignment);
  }

  #piece(offset: number, end: number, bounce: boolean): Piece {
    const { requestAlignment } = this.#limits;
    const alignedOffset = alignDown(offset, requestAlignment);
    const alignedEnd = alignUp(end, requestAlignment);
    return {
      offset,
      end,
      alignedOffset,
      alignedEnd,
      vector: this.#vector.slice(offset - this.#offset, end - this.#offset),
      direct: !bounce && alignedOffset === offset && alignedEnd === end,
      bounce,
      requestAlignment,
    };
  }
}
