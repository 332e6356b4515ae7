/** Alignment arithmetic on safe integers. Shifts would cut offsets to 32 bits, so none is used here. */
import { assert } from "./errors.js";

/** The largest multiple of `alignment` that is not above `value`. */
export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

/** The smallest multiple of `alignment` that is not below `value`. */
export function alignUp(value: number, alignment: number): number {
  const rest = value % alignment;
  return rest === 0 ? value : value - rest + alignment;
}

/** Whether `value` is a multiple of `alignment`. */
export function isAligned(value: number, alignment: number): boolean {
  return value % alignment === 0;
}

/** How many units of `size` are needed to hold `value`; the last may be partly empty. */
export function divideRoundUp(value: number, size: number): number {
  return Math.ceil(value / size);
}

/** Whether `value` is 1, 2, 4, 8, … up to 2^53. */
export function isPowerOfTwo(value: number): boolean {
  if (!Number.isInteger(value) || value < 1) return false;
  return 2 ** Math.round(Math.log2(value)) === value;
}

/**
 * The exponent of a power of two: `exactLog2(65536)` is 16.
 *
 * Requires: `value` is a power of two.
 */
export function exactLog2(value: number): number {
  assert(isPowerOfTwo(value), `${value} is a power of two`);
  return Math.round(Math.log2(value));
}

/** Whether two byte ranges share a byte. Empty ranges share none. */
export function rangesOverlap(
  offsetA: number,
  lengthA: number,
  offsetB: number,
  lengthB: number,
): boolean {
  return lengthA > 0 && lengthB > 0 && offsetA < offsetB + lengthB && offsetB < offsetA + lengthA;
}
