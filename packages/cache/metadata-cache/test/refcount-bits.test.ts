import { AssertionError, CorruptImageError } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isRefcountBits,
  maxRefcount,
  type RefcountBits,
  readRefcount,
  writeRefcount,
} from "../src/index.js";

const WIDTHS: readonly RefcountBits[] = [1, 2, 4, 8, 16, 32, 64];

/** A second opinion: the block as one big integer per entry. */
function expected(bytes: Uint8Array, bits: number, index: number): bigint {
  if (bits >= 8) {
    const size = bits / 8;
    let value = 0n;
    for (const byte of bytes.subarray(index * size, (index + 1) * size))
      value = value * 256n + BigInt(byte);
    return value;
  }
  let whole = 0n;
  for (const byte of [...bytes].reverse()) whole = whole * 256n + BigInt(byte);
  return (whole >> BigInt(index * bits)) & ((1n << BigInt(bits)) - 1n);
}

describe("readRefcount()", () => {
  test("must take narrow counts from the least significant bit up", () => {
    const bytes = Uint8Array.of(0b1101_1000, 0b0000_0001);
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8].map((i) => readRefcount(bytes, 1, i))).toEqual([
      0, 0, 0, 1, 1, 0, 1, 1, 1,
    ]);
    expect([0, 1, 2, 3, 4].map((i) => readRefcount(bytes, 2, i))).toEqual([0, 2, 1, 3, 1]);
    expect([0, 1, 2].map((i) => readRefcount(bytes, 4, i))).toEqual([8, 13, 1]);
  });

  test("must take wide counts as big-endian", () => {
    const bytes = Uint8Array.of(
      0,
      1,
      0x80,
      2,
      0,
      0,
      0,
      0xff,
      0,
      0x1f,
      0xff,
      0xff,
      0xff,
      0xff,
      0xff,
      0xff,
    );
    expect(readRefcount(bytes, 8, 2)).toBe(0x80);
    expect(readRefcount(bytes, 16, 1)).toBe(0x8002);
    expect(readRefcount(bytes.subarray(2), 32, 0)).toBe(0x8002_0000);
    expect(readRefcount(bytes, 64, 1)).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("of a 64-bit count past 2^53 - 1 must throw CorruptImageError with its place", () => {
    const bytes = new Uint8Array(16);
    bytes[9] = 0x20;
    const read = (): number => readRefcount(bytes, 64, 1, 0x10000);
    expect(read).toThrow(CorruptImageError);
    expect(read).toThrow(
      "refcount block at host offset 0x10000: refcount of entry 1 is above 2^53 - 1",
    );
  });

  test("outside of the block must be an assertion", () => {
    for (const bits of WIDTHS) {
      const bytes = new Uint8Array(8);
      expect(() => readRefcount(bytes, bits, 64 / bits)).toThrow(AssertionError);
      expect(() => writeRefcount(bytes, bits, 64 / bits, 1)).toThrow(AssertionError);
      expect(() => writeRefcount(bytes, bits, -1, 1)).toThrow(AssertionError);
    }
  });
});

describe("writeRefcount()", () => {
  test("must store what readRefcount() returns and leave the neighbours alone, for each width", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...WIDTHS),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.nat(),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (bits, bytes, seed, fraction) => {
          const count = 256 / bits;
          const index = seed % count;
          const value = Math.floor(maxRefcount(bits) * fraction);
          const before = Array.from({ length: count }, (_, i) => expected(bytes, bits, i));
          writeRefcount(bytes, bits, index, value);
          before[index] = BigInt(value);
          for (let i = 0; i < count; i++) {
            expect(expected(bytes, bits, i)).toBe(before[i]);
            const old = before[i] as bigint;
            if (old <= BigInt(Number.MAX_SAFE_INTEGER)) {
              expect(readRefcount(bytes, bits, i)).toBe(Number(old));
            } else expect(() => readRefcount(bytes, bits, i)).toThrow(CorruptImageError);
          }
        },
      ),
    );
  });

  test("must refuse a value that does not fit", () => {
    for (const bits of WIDTHS) {
      const bytes = new Uint8Array(8);
      writeRefcount(bytes, bits, 0, maxRefcount(bits));
      expect(readRefcount(bytes, bits, 0)).toBe(maxRefcount(bits));
      for (const value of [maxRefcount(bits) + 1, -1, 0.5, Number.NaN]) {
        expect(() => writeRefcount(bytes, bits, 0, value)).toThrow(AssertionError);
      }
    }
  });
});

test("isRefcountBits() must accept the seven widths only", () => {
  expect(Array.from({ length: 130 }, (_, i) => i).filter(isRefcountBits)).toEqual([...WIDTHS]);
});
