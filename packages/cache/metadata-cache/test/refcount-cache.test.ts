import { AssertionError, CorruptImageError } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { type RefcountBits, RefcountCache } from "../src/index.js";
import { FakeStore, SIZE } from "./fake-store.js";

function cacheOf(refcountBits: RefcountBits, store = new FakeStore()): RefcountCache {
  return new RefcountCache({
    name: "refcounts",
    tableSizeBytes: SIZE,
    maxTables: 2,
    store,
    refcountBits,
  });
}

test("setRefcount() must reach the disk, at the last entry of each width", async () => {
  for (const bits of [1, 2, 4, 8, 16, 32, 64] as const) {
    const store = new FakeStore();
    const cache = cacheOf(bits, store);
    expect(cache.entriesPerTable).toBe((SIZE * 8) / bits);
    const table = await cache.get(SIZE);
    cache.setRefcount(table, cache.entriesPerTable - 1, cache.maxRefcount);
    cache.setRefcount(table, 0, 1);
    cache.release(table);
    await cache.empty();
    const again = await cache.get(SIZE);
    expect(cache.getRefcount(again, cache.entriesPerTable - 1)).toBe(cache.maxRefcount);
    expect(cache.getRefcount(again, 0)).toBe(1);
    expect(cache.getRefcount(again, 1)).toBe(0);
  }
});

test("getRefcount() past 2^53 - 1 must name the block", async () => {
  const store = new FakeStore();
  store.written.set(SIZE, new Uint8Array(SIZE).fill(0xff));
  const cache = cacheOf(64, store);
  const table = await cache.get(SIZE);
  expect(() => cache.getRefcount(table, 3)).toThrow(CorruptImageError);
  expect(() => cache.getRefcount(table, 3)).toThrow("host offset 0x200");
});

test("setRefcount() of a foreign table must change nothing", async () => {
  const table = await cacheOf(16).get(0);
  expect(() => cacheOf(16).setRefcount(table, 0, 1)).toThrow(AssertionError);
  expect(table.bytes[1]).toBe(0);
});
