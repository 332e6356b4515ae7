import { expect, test } from "vitest";
import { parseCacheMode } from "../src/index.js";

test.each([
  ["none", true, false, false],
  ["off", true, false, false],
  ["writeback", false, false, false],
  ["writethrough", false, false, true],
  ["directsync", true, false, true],
  ["unsafe", false, true, false],
])("parseCacheMode() must read %s as QEMU does", (word, direct, noFlush, writethrough) => {
  expect(parseCacheMode(word)).toMatchObject({ direct, noFlush, writethrough });
});

test("parseCacheMode() must refuse other words and name the known ones", () => {
  expect(() => parseCacheMode("fast")).toThrow(/'fast' is unknown; known are: none, writeback/);
});
