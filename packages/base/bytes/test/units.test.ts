import { expect, test } from "vitest";
import { BlockError, formatSize, GiB, hasCode, KiB, parseSize, PiB, TiB } from "../src/index.js";

test("parseSize() must read sizes as qemu-img does", () => {
  const cases: [string, number][] = [
    ["0", 0],
    ["512", 512],
    ["512b", 512],
    ["64k", 64 * KiB],
    ["64K", 64 * KiB],
    ["1.5G", 1.5 * GiB],
    [".5k", 512],
    ["1T", TiB],
    ["7P", 7 * PiB],
    ["0x200", 512],
  ];
  for (const [text, bytes] of cases) expect(parseSize(text)).toBe(bytes);
});

test("parseSize() must refuse what is no size, and what no safe integer holds", () => {
  for (const text of ["", "x", "-1", "1kb", "1 k k", "k", "1e3", "0x", "NaN"]) {
    expect(() => parseSize(text)).toThrow(BlockError);
  }
  let thrown: unknown;
  try {
    parseSize("8E");
  } catch (error) {
    thrown = error;
  }
  expect(hasCode(thrown, "ERANGE")).toBe(true);
});

test("formatSize() must print three digits and the binary unit", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [512, "512 B"],
    [999, "999 B"],
    [196 * KiB, "196 KiB"],
    [1.5 * GiB, "1.5 GiB"],
    [1000 * KiB, "0.977 MiB"],
    [64 * TiB, "64 TiB"],
  ];
  for (const [bytes, text] of cases) expect(formatSize(bytes)).toBe(text);
});
