import fc from "fast-check";
import { expect, test } from "vitest";
import {
  AssertionError,
  CorruptImageError,
  joinU64,
  readU64,
  viewOf,
  writeU64,
} from "../src/index.js";

test("writeU64() then readU64() must return the number, as BigInt sees it", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.nat(16), (value, position) => {
      const view = viewOf(new Uint8Array(32));
      writeU64(view, position, value);
      expect(view.getBigUint64(position)).toBe(BigInt(value));
      expect(readU64(view, position, "field")).toBe(value);
    }),
  );
});

test("readU64() must refuse a value past 2^53 - 1 and say where it stands", () => {
  const view = viewOf(new Uint8Array(16));
  view.setBigUint64(8, 2n ** 53n);
  const read = () => readU64(view, 8, "header: l1_table_offset", 0x1000);
  expect(read).toThrow(CorruptImageError);
  expect(read).toThrow(
    "header: l1_table_offset at host offset 0x1008: value 0x20000000000000 is above 2^53 - 1",
  );
});

test("writeU64() must refuse what is no safe integer", () => {
  const view = viewOf(new Uint8Array(8));
  for (const bad of [-1, 0.5, 2 ** 53, Number.NaN]) {
    expect(() => writeU64(view, 0, bad)).toThrow(AssertionError);
  }
});

test("joinU64() must give -1 from the first value that is too large", () => {
  expect(joinU64(0x1fffff, 0xffffffff)).toBe(Number.MAX_SAFE_INTEGER);
  expect(joinU64(0x200000, 0)).toBe(-1);
});

test("viewOf() must look at the window of a subarray only", () => {
  const bytes = new Uint8Array([0, 0, 0, 7, 9]).subarray(1, 4);
  expect(viewOf(bytes).byteLength).toBe(3);
  expect(viewOf(bytes).getUint8(2)).toBe(7);
});
