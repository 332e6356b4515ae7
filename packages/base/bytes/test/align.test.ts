import fc from "fast-check";
import { expect, test } from "vitest";
import {
  alignDown,
  alignUp,
  AssertionError,
  divideRoundUp,
  exactLog2,
  isAligned,
  isPowerOfTwo,
  rangesOverlap,
} from "../src/index.js";

const offset = fc.integer({ min: 0, max: 2 ** 52 });
const alignment = fc.integer({ min: 0, max: 30 }).map((exponent) => 2 ** exponent);

test("alignDown() and alignUp() must enclose the value by less than one unit, past 2^32 too", () => {
  fc.assert(
    fc.property(offset, alignment, (value, unit) => {
      const floor = alignDown(value, unit);
      const ceiling = alignUp(value, unit);
      expect(BigInt(floor) % BigInt(unit)).toBe(0n);
      expect(BigInt(ceiling) % BigInt(unit)).toBe(0n);
      expect(floor <= value && value <= ceiling).toBe(true);
      expect(ceiling - floor).toBe(isAligned(value, unit) ? 0 : unit);
    }),
  );
});

test("divideRoundUp() must count the last, partly empty unit", () => {
  expect([0, 1, 512, 513].map((value) => divideRoundUp(value, 512))).toEqual([0, 1, 1, 2]);
});

test("isPowerOfTwo() must know each power up to 2^53 and none of its neighbours", () => {
  for (let exponent = 0; exponent <= 53; exponent++) {
    expect(isPowerOfTwo(2 ** exponent)).toBe(true);
    expect(exactLog2(2 ** exponent)).toBe(exponent);
    if (exponent > 1 && exponent < 53) {
      expect(isPowerOfTwo(2 ** exponent + 1)).toBe(false);
      expect(isPowerOfTwo(2 ** exponent - 1)).toBe(false);
    }
  }
  for (const no of [0, -1, -2, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(isPowerOfTwo(no)).toBe(false);
  }
  expect(() => exactLog2(3)).toThrow(AssertionError);
});

test("rangesOverlap() must agree with a byte-by-byte look", () => {
  const small = fc.nat(12);
  fc.assert(
    fc.property(small, small, small, small, (offsetA, lengthA, offsetB, lengthB) => {
      const a = new Set(Array.from({ length: lengthA }, (_, i) => offsetA + i));
      const shared = Array.from({ length: lengthB }, (_, i) => offsetB + i).some((at) => a.has(at));
      expect(rangesOverlap(offsetA, lengthA, offsetB, lengthB)).toBe(shared);
    }),
  );
});
