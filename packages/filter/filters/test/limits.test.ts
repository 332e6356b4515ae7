import { UNLIMITED } from "@blocklayer/block-api";
import { KiB } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { type LimitOverrides, strictLimits } from "../src/blkdebug/limits.js";

test("strictLimits() without options must be the child's", () => {
  expect(strictLimits(UNLIMITED, {})).toEqual(UNLIMITED);
  const child = { ...UNLIMITED, requestAlignment: 512, maxTransfer: 64 * KiB };
  expect(strictLimits(child, {})).toMatchObject({ requestAlignment: 512, maxTransfer: 64 * KiB });
});

test("strictLimits() must take each option", () => {
  const given = {
    align: 512,
    maxTransfer: 1024,
    optWriteZero: 2048,
    maxWriteZero: 4096,
    optDiscard: 8192,
    maxDiscard: 16384,
  };
  expect(strictLimits(UNLIMITED, given)).toEqual({
    ...UNLIMITED,
    requestAlignment: 512,
    maxTransfer: 1024,
    writeZeroesAlignment: 2048,
    maxWriteZeroes: 4096,
    discardAlignment: 8192,
    maxDiscard: 16384,
  });
});

test("strictLimits() must never ask for less alignment than the child", () => {
  const child = { ...UNLIMITED, requestAlignment: 4096, maxTransfer: 64 * KiB };
  expect(strictLimits(child, { align: 512 }).requestAlignment).toBe(4096);
  const odd = { ...UNLIMITED, maxTransfer: 5000 };
  expect(strictLimits(odd, { align: 4096 }).maxTransfer).toBe(4096);
});

test.each<[LimitOverrides, string]>([
  [{ align: 3 }, "align 3"],
  [{ align: 2 ** 31 }, "align 2147483648"],
  [{ align: 4096, maxTransfer: 1000 }, "max-transfer 1000"],
  [{ maxTransfer: 2 ** 31 }, "max-transfer 2147483648"],
  [{ align: 512, optWriteZero: 100 }, "opt-write-zero 100"],
  [{ optWriteZero: 512, maxWriteZero: 1000 }, "max-write-zero 1000"],
  [{ align: 512, optDiscard: 100 }, "opt-discard 100"],
  [{ optDiscard: 4096, maxDiscard: 6144 }, "max-discard 6144"],
])("strictLimits(%j) must be refused by name", (given, what) => {
  expect(() => strictLimits(UNLIMITED, given)).toThrow(`cannot meet constraints with ${what}`);
});
