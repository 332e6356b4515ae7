import { TiB } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { CHUNK_BYTES, SparseStore } from "../src/sparse-store.js";
import { randomOf } from "./random.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 60);

describe("SparseStore", () => {
  test("extent() on a terabyte must find the few bytes that were written, and hold no more than them", () => {
    const store = new SparseStore(TiB);
    store.write(TiB - 3, Uint8Array.of(1, 2, 3));
    expect(store.storedBytes).toBe(CHUNK_BYTES);
    const hole = store.extent(0, TiB);
    expect(hole).toEqual({ stored: false, lengthBytes: TiB - CHUNK_BYTES });
    expect(store.extent(hole.lengthBytes, CHUNK_BYTES)).toEqual({
      stored: true,
      lengthBytes: CHUNK_BYTES,
    });
    store.zero(0, TiB);
    expect(store.storedBytes).toBe(0);
  });

  test("truncate() must not bring back bytes that were cut off", () => {
    const store = new SparseStore();
    store.write(0, new Uint8Array(100).fill(7));
    store.truncate(10);
    store.truncate(100);
    const bytes = new Uint8Array(100);
    store.read(0, bytes);
    expect([...bytes.subarray(0, 10)]).toEqual(Array.from({ length: 10 }, () => 7));
    expect([...bytes.subarray(10)]).toEqual(Array.from({ length: 90 }, () => 0));
  });

  test("discard() must free whole chunks and leave the edges as they are", () => {
    const store = new SparseStore();
    store.write(0, new Uint8Array(3 * CHUNK_BYTES + 5).fill(9));
    store.discard(1, 2 * CHUNK_BYTES);
    const bytes = new Uint8Array(store.lengthBytes);
    store.read(0, bytes);
    expect(bytes[CHUNK_BYTES - 1]).toBe(9);
    expect(bytes[CHUNK_BYTES]).toBe(0);
    expect(bytes[2 * CHUNK_BYTES]).toBe(9);
    store.discard(3 * CHUNK_BYTES, 100);
    expect(store.lengthBytes).toBe(3 * CHUNK_BYTES + 5);
    expect(store.storedBytes).toBe(2 * CHUNK_BYTES);
  });

  test("every operation must leave what a flat array would hold", () => {
    for (let seed = 1; seed <= RUNS; seed++) {
      const random = randomOf(seed);
      const store = new SparseStore();
      let model = new Uint8Array(0);
      const grow = (length: number): void => {
        if (length <= model.length) return;
        const longer = new Uint8Array(length);
        longer.set(model);
        model = longer;
      };
      for (let step = 0; step < 40; step++) {
        const offset = random(6) * CHUNK_BYTES + (random(2) === 0 ? 0 : random(CHUNK_BYTES));
        const length = random(2) === 0 ? random(300) : random(3) * CHUNK_BYTES;
        switch (random(3)) {
          case 0:
            if (length > 0) grow(offset + length);
            model.fill(step + 1, offset, offset + length);
            store.write(offset, new Uint8Array(length).fill(step + 1));
            break;
          case 1:
            grow(offset + length);
            model.fill(0, offset, offset + length);
            store.zero(offset, length);
            break;
          default:
            grow(offset);
            model = model.slice(0, offset);
            store.truncate(offset);
        }
      }
      expect(store.lengthBytes, `seed ${seed}`).toBe(model.length);
      const bytes = new Uint8Array(model.length).fill(255);
      store.read(0, bytes);
      expect(Buffer.compare(bytes, model), `seed ${seed}`).toBe(0);
      let at = 0;
      while (at < model.length) {
        const extent = store.extent(at, model.length - at);
        expect(extent.lengthBytes).toBeGreaterThan(0);
        const run = model.subarray(at, at + extent.lengthBytes);
        expect(extent.stored || run.every((byte) => byte === 0)).toBe(true);
        at += extent.lengthBytes;
      }
      expect(at).toBe(model.length);
    }
  });
});
