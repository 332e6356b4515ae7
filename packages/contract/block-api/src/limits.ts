/** What a driver can take in one request. Whoever sends requests pads, splits and bounces to fit. */
import { assert, isAligned, isPowerOfTwo } from "@blocklayer/bytes";

/** All in bytes. A driver never sees a request that breaks its limits. */
export interface BlockLimits {
  /** Offsets and lengths are multiples of this. A power of two; 1 when any byte will do. */
  readonly requestAlignment: number;
  /** Buffers start at addresses that are multiples of this. A power of two; 1 when any will do. */
  readonly memoryAlignment: number;
  /** Longest read or write. A multiple of `requestAlignment`. */
  readonly maxTransfer: number;
  /** The length that suits best, for whoever can choose; 0 when there is none. */
  readonly optimalTransfer: number;
  /** Zeroing at multiples of this is efficient (the cluster size, say); 1 when any will do. */
  readonly writeZeroesAlignment: number;
  /** Longest `writeZeroes`. */
  readonly maxWriteZeroes: number;
  /** Discards are useful at multiples of this; what lies outside is ignored. */
  readonly discardAlignment: number;
  /** Longest `discard`. */
  readonly maxDiscard: number;
}

/** No request is longer than this, whatever a driver declares: 1 GiB. */
export const MAX_TRANSFER_BYTES: number = 2 ** 30;

/** Any byte, any address, any length. */
export const UNLIMITED: BlockLimits = {
  requestAlignment: 1,
  memoryAlignment: 1,
  maxTransfer: MAX_TRANSFER_BYTES,
  optimalTransfer: 0,
  writeZeroesAlignment: 1,
  maxWriteZeroes: Number.MAX_SAFE_INTEGER,
  discardAlignment: 1,
  maxDiscard: Number.MAX_SAFE_INTEGER,
};

/**
 * Fills in what is not given, and checks the rest.
 *
 * @example limitsOf({ requestAlignment: 512, memoryAlignment: 512 })
 */
export function limitsOf(given: Partial<BlockLimits>): BlockLimits {
  const limits = { ...UNLIMITED, ...given };
  assert(isPowerOfTwo(limits.requestAlignment), "requestAlignment is a power of two");
  assert(isPowerOfTwo(limits.memoryAlignment), "memoryAlignment is a power of two");
  assert(
    limits.maxTransfer > 0 && isAligned(limits.maxTransfer, limits.requestAlignment),
    "maxTransfer is a multiple of requestAlignment",
  );
  return limits;
}
