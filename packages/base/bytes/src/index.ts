/** The ground floor: arithmetic, vectors, sizes and errors. Start reading in errors.ts. */
export { type AbortListener, ignoreAbort, listenForAbort } from "./abort.js";
export {
  alignDown,
  alignUp,
  divideRoundUp,
  exactLog2,
  isAligned,
  isPowerOfTwo,
  rangesOverlap,
} from "./align.js";
export { joinU64, readU64, viewOf, writeU64 } from "./big-endian.js";
export {
  assert,
  AssertionError,
  BlockError,
  type BlockErrorCode,
  type BlockErrorDetails,
  CorruptImageError,
  type CorruptionSite,
  ERRNO_TEXT,
  errnoText,
  hasCode,
  hex,
  UnsupportedError,
} from "./errors.js";
export { IoVector } from "./io-vector.js";
export type { MaybePromise } from "./maybe-promise.js";
export { andThen } from "./maybe-promise.js";
export { decodeName, encodeName, hasOddBytes } from "./names.js";
export { formatSize, GiB, KiB, MiB, parseSize, PiB, SECTOR_SIZE_BYTES, TiB } from "./units.js";
export { firstNonZero, isZero } from "./zero.js";
