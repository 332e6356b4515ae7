import { describe, expect, test } from "vitest";
import { ExtentCache } from "../src/extent-cache.js";

describe("ExtentCache", () => {
  test("find() must give the extent that covers an offset, and no other", () => {
    const cache = new ExtentCache();
    const extent = { start: 10, end: 20, data: true };
    cache.keep(extent);
    expect(cache.find(9)).toBeUndefined();
    expect(cache.find(10)).toBe(extent);
    expect(cache.find(19)).toBe(extent);
    expect(cache.find(20)).toBeUndefined();
    cache.forget();
    expect(cache.find(10)).toBeUndefined();
  });

  test("keep() must not keep holes that somebody else may fill", () => {
    const cache = new ExtentCache();
    cache.keep({ start: 0, end: 10, data: false });
    expect(cache.find(0)).toBeUndefined();
    cache.mayKeepHoles = true;
    cache.keep({ start: 0, end: 10, data: false });
    expect(cache.find(0)).toBeDefined();
  });

  test("noteWritten() must drop a hole that it touches, and nothing else", () => {
    const cache = new ExtentCache();
    cache.mayKeepHoles = true;
    cache.keep({ start: 10, end: 20, data: false });
    cache.noteWritten(0, 10);
    cache.noteWritten(20, 30);
    expect(cache.find(15)).toBeDefined();
    cache.noteWritten(19, 25);
    expect(cache.find(15)).toBeUndefined();
    cache.keep({ start: 10, end: 20, data: true });
    cache.noteWritten(0, 30);
    expect(cache.find(15)).toBeDefined();
  });
});
