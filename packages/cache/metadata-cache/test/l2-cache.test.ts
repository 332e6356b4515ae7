import { AssertionError } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { L2Cache } from "../src/index.js";
import { FakeStore, SIZE } from "./fake-store.js";

function cacheOf(entrySizeBytes: 8 | 16, store = new FakeStore()): L2Cache {
  return new L2Cache({
    name: "L2 cache",
    tableSizeBytes: SIZE,
    maxTables: 2,
    store,
    entrySizeBytes,
  });
}

test("setEntry() must store both halves big-endian and mark the slice dirty", async () => {
  const store = new FakeStore();
  const cache = cacheOf(8, store);
  expect(cache.entriesPerTable).toBe(64);
  const table = await cache.get(SIZE);
  cache.setEntry(table, 63, 0x8000_0001, 0xfedc_ba98);
  expect(cache.entryHigh(table, 63)).toBe(0x8000_0001);
  expect(cache.entryLow(table, 63)).toBe(0xfedc_ba98);
  await cache.flush();
  const bytes = store.durable.get(SIZE)?.subarray(SIZE - 8);
  expect([...(bytes ?? [])]).toEqual([0x80, 0, 0, 1, 0xfe, 0xdc, 0xba, 0x98]);
});

test("setBitmap() must store the bitmap behind its entry, and leave the entry alone", async () => {
  const cache = cacheOf(16);
  expect(cache.entriesPerTable).toBe(32);
  const table = await cache.get(0);
  cache.setEntry(table, 2, 1, 2);
  cache.setBitmap(table, 2, 0xffff_0000, 0x0000_ffff);
  expect([...table.bytes.subarray(32, 48)]).toEqual([
    0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff,
  ]);
  expect(cache.bitmapHigh(table, 2)).toBe(0xffff_0000);
  expect(cache.bitmapLow(table, 2)).toBe(0x0000_ffff);
  expect([cache.entryHigh(table, 2), cache.entryLow(table, 2)]).toEqual([1, 2]);
});

test("setEntry() must refuse an entry outside of the slice and a foreign table unchanged", async () => {
  const cache = cacheOf(8);
  const table = await cache.get(0);
  expect(() => cache.setEntry(table, 64, 0, 0)).toThrow(AssertionError);
  expect(() => cache.setEntry(table, -1, 0, 0)).toThrow(AssertionError);
  expect(() => cacheOf(8).setEntry(table, 0, 1, 1)).toThrow(AssertionError);
  expect(table.bytes.every((byte) => byte === 0)).toBe(true);
  expect(() => cache.bitmapLow(table, 0)).toThrow(AssertionError);
  expect(() => cache.setBitmap(table, 0, 0, 0)).toThrow(AssertionError);
});
