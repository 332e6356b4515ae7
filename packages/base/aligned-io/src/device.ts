/**
 * What AlignedIo needs of the store below it: a part of block-api's `BlockIo`, by structure, so that any
 * driver or child fits without this package knowing the contract.
 */
import type { IoVector, MaybePromise } from "@blocklayer/bytes";

/** What the device takes in one request. All in bytes, see block-api's `BlockLimits`. */
export interface AlignedLimits {
  /** Offsets and lengths are multiples of this. A power of two up to 2^30. */
  readonly requestAlignment: number;
  /** Buffers start at addresses that are multiples of this. A power of two. */
  readonly memoryAlignment: number;
  /** Longest read or write. A multiple of `requestAlignment`. */
  readonly maxTransfer: number;
}

/** Options of a read, and of every wait. */
export interface AlignedReadOptions {
  readonly signal?: AbortSignal;
}

/** Options of a write. All but the signal go down to the device as they are. */
export interface AlignedWriteOptions extends AlignedReadOptions {
  readonly fua?: boolean;
  readonly compressed?: boolean;
}

/**
 * A store that accepts only requests within its limits.
 *
 * 1. It accepts aligned requests up to `lengthBytes` rounded up to `requestAlignment`; bytes past
 *    `lengthBytes` read as zeroes.
 * 2. A promise of its settles only when the device will touch neither the memory nor the medium for that
 *    request any more, also when the request failed or was aborted.
 */
export interface AlignedDevice {
  readonly lengthBytes: number;
  readonly limits: AlignedLimits;
  readv(offset: number, target: IoVector, options?: AlignedReadOptions): MaybePromise<void>;
  writev(offset: number, source: IoVector, options?: AlignedWriteOptions): MaybePromise<void>;
}

/** The moments of a read-modify-write: before and after the block at its head, or its tail, is read. */
export type EdgeMoment = "head" | "after-head" | "tail" | "after-tail";

/** Hears of these moments; the read-modify-write waits for what it returns. It must not fail. */
export type EdgeListener = (moment: EdgeMoment) => MaybePromise<void>;
