import { AssertionError } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { MetadataCache, type Table } from "../src/index.js";
import { eio, FakeStore, SIZE, VectorStore } from "./fake-store.js";

function cacheOf(store: FakeStore, maxTables = 4, name = "T"): MetadataCache {
  return new MetadataCache({ name, tableSizeBytes: SIZE, maxTables, store });
}

async function change(cache: MetadataCache, at: number, value: number): Promise<void> {
  const table = await cache.get(at);
  table.view.setUint32(0, value);
  cache.markDirty(table);
  cache.release(table);
}

async function touch(cache: MetadataCache, ...offsets: number[]): Promise<void> {
  for (const at of offsets) cache.release(await cache.get(at));
}

describe("lookups", () => {
  test("get() must read a table once and then return it at once", async () => {
    const store = new FakeStore();
    store.written.set(SIZE, new Uint8Array(SIZE).fill(7));
    const cache = cacheOf(store);
    expect(cache.peek(SIZE)).toBeUndefined();
    const loading = cache.get(SIZE);
    expect(loading).toBeInstanceOf(Promise);
    expect(cache.peek(SIZE)).toBeUndefined();
    const table = await loading;
    expect(table.bytes[SIZE - 1]).toBe(7);
    expect(cache.get(SIZE)).toBe(table);
    expect(cache.peek(SIZE)).toBe(table);
    expect(store.readCount).toBe(1);
    expect(cache.stats).toMatchObject({ hits: 2, misses: 1 });
  });

  test("get() over a store that answers at once must answer at once", () => {
    const table = cacheOf(new FakeStore({ sync: true })).get(0);
    expect(table).not.toBeInstanceOf(Promise);
  });

  test("get() whose read fails must leave nothing behind, whether it throws or rejects", async () => {
    for (const sync of [true, false]) {
      const store = new FakeStore({ sync });
      const cache = cacheOf(store, 1);
      const read = store.read.bind(store);
      const fail = (): void => {
        throw eio();
      };
      store.read = () => (sync ? fail() : Promise.reject(eio()));
      await expect((async () => cache.get(0))()).rejects.toThrow("injected");
      expect(cache.peek(0)).toBeUndefined();
      store.read = read;
      expect((await cache.get(0)).bytes[0]).toBe(0);
    }
  });

  test("getEmpty() must give zeroes without reading, also for a table in memory", async () => {
    const store = new FakeStore();
    store.written.set(0, new Uint8Array(SIZE).fill(9));
    const cache = cacheOf(store);
    const fresh = await cache.getEmpty(0);
    expect(fresh.bytes.every((byte) => byte === 0)).toBe(true);
    expect(store.readCount).toBe(0);
    fresh.bytes.fill(5);
    cache.markDirty(fresh);
    cache.release(fresh);
    const again = await cache.getEmpty(0);
    expect(again.bytes.every((byte) => byte === 0)).toBe(true);
    cache.release(again);
    await cache.flush();
    expect(store.durable.get(0)?.every((byte) => byte === 0)).toBe(true);
  });

  test("getEmpty() must be forgotten at release unless it was marked dirty", async () => {
    const store = new FakeStore();
    store.written.set(0, new Uint8Array(SIZE).fill(9));
    const cache = cacheOf(store);
    cache.release(await cache.getEmpty(0));
    expect((await cache.get(0)).bytes[0]).toBe(9);
  });

  test("getEmpty() must reuse memory that holds other bytes only after zeroing it", async () => {
    const store = new FakeStore();
    store.written.set(0, new Uint8Array(SIZE).fill(9));
    const cache = cacheOf(store, 1);
    await touch(cache, 0);
    expect((await cache.getEmpty(SIZE)).bytes.every((byte) => byte === 0)).toBe(true);
  });
});

describe("memory", () => {
  test("get() must evict the table that was not used for longest, counting peek() as use", async () => {
    const cache = cacheOf(new FakeStore(), 3);
    await touch(cache, 0, SIZE, 2 * SIZE);
    cache.peek(0);
    await touch(cache, 3 * SIZE);
    expect(cache.peek(SIZE)).toBeUndefined();
    expect(cache.peek(0)).toBeDefined();
    expect(cache.stats.evictions).toBe(1);
  });

  test("get() must never evict a pinned table", async () => {
    const cache = cacheOf(new FakeStore(), 2);
    const pinned = await cache.get(0);
    for (let i = 1; i < 20; i++) await touch(cache, i * SIZE);
    expect(cache.peek(0)).toBe(pinned);
  });

  test("get() must count pins: one release of two does not free a table", async () => {
    const cache = cacheOf(new FakeStore(), 1);
    const table = await cache.get(0);
    await cache.get(0);
    cache.release(table);
    await expect((async () => cache.get(SIZE))()).rejects.toThrow("maxTables");
    cache.release(table);
    await touch(cache, SIZE);
  });

  test("get() with every table pinned must name maxTables, and work again after a release", async () => {
    const cache = cacheOf(new FakeStore(), 2);
    const first = await cache.get(0);
    await cache.get(SIZE);
    expect(() => cache.get(2 * SIZE)).toThrow(/T: fewer than maxTables \(2\) tables are pinned/);
    cache.release(first);
    expect((await cache.get(2 * SIZE)).hostOffset).toBe(2 * SIZE);
  });

  test("get() must write dirty tables before it evicts one, and read them back", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 2);
    for (let i = 0; i < 10; i++) await change(cache, i * SIZE, i + 100);
    for (let i = 0; i < 10; i++) {
      const table = await cache.get(i * SIZE);
      expect(table.view.getUint32(0)).toBe(i + 100);
      cache.release(table);
    }
    expect(new Set(store.events.map((e) => (e.kind === "write" ? e.at : -1))).size).toBe(10);
  });

  test("get() whose eviction cannot write must fail and keep the dirty table", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 1);
    await change(cache, 0, 5);
    store.onEvent = () => {
      throw eio();
    };
    await expect(cache.get(SIZE)).rejects.toThrow("injected");
    expect(cache.dirtyCount).toBe(1);
    expect(cache.peek(0)?.view.getUint32(0)).toBe(5);
    store.onEvent = () => {};
    await touch(cache, SIZE);
    await cache.flush();
    expect(store.durable.get(0)?.[3]).toBe(5);
  });

  test("memory must stay within maxTables tables over loads, failures, drops and evictions", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 3);
    const memory = new Set<ArrayBufferLike>();
    for (let i = 0; i < 40; i++) {
      const table = await cache.get((i % 7) * SIZE);
      memory.add(table.bytes.buffer);
      cache.release(table);
      if (i % 5 === 0) cache.drop(table.hostOffset, SIZE);
      if (i % 11 === 0) cache.release(await cache.getEmpty(i * SIZE));
    }
    expect(memory.size).toBeLessThanOrEqual(3);
  });
});

describe("writing", () => {
  test("flush() must write dirty tables only, in ascending order, then sync", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 8);
    await touch(cache, 3 * SIZE);
    for (const i of [5, 1, 4]) await change(cache, i * SIZE, i);
    expect(cache.dirtyCount).toBe(3);
    await cache.flush();
    expect(store.log()).toBe(`w${SIZE} w${4 * SIZE} w${5 * SIZE} sync`);
    expect(cache.dirtyCount).toBe(0);
    expect(cache.dirty).toBe(false);
    expect(cache.stats.writes).toBe(3);
  });

  test("write() must not sync, and write nothing when nothing is dirty", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store);
    expect(cache.write()).toBeUndefined();
    await change(cache, 0, 1);
    await cache.write();
    expect(store.log()).toBe("w0");
    expect(cache.dirty).toBe(true);
  });

  test("write() must hand neighbours to a vectored store at once", async () => {
    const store = new VectorStore();
    const cache = cacheOf(store, 8);
    for (const i of [0, 1, 2, 4, 6, 7]) await change(cache, i * SIZE, i + 1);
    await cache.write();
    expect(store.runs).toEqual([
      [0, 3],
      [6 * SIZE, 2],
    ]);
    expect(store.log()).toBe([0, 1, 2, 4, 6, 7].map((i) => `w${i * SIZE}`).join(" "));
  });

  test("write() must show each range to beforeWrite first, and stop when it refuses [C16]", async () => {
    const store = new VectorStore();
    const seen: [number, number][] = [];
    const cache = new MetadataCache({
      name: "T",
      tableSizeBytes: SIZE,
      maxTables: 8,
      store,
      beforeWrite: (at, length) => {
        seen.push([at, length]);
        if (at === 4 * SIZE) throw eio();
      },
    });
    for (const i of [0, 1, 4, 6]) await change(cache, i * SIZE, i + 1);
    await expect(cache.write()).rejects.toThrow("injected");
    expect(seen).toEqual([
      [0, 2 * SIZE],
      [4 * SIZE, SIZE],
    ]);
    expect(store.log()).toBe(`w0 w${SIZE}`);
    expect(cache.dirtyCount).toBe(2);
  });

  test("flush() must keep failing until the failed table is on the disk [C17]", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 8);
    for (const i of [0, 1, 2]) await change(cache, i * SIZE, i + 1);
    store.onEvent = (event) => {
      if (event.kind === "write" && event.at === SIZE) throw eio();
    };
    await expect(cache.flush()).rejects.toThrow("injected");
    expect(store.log()).toBe(`w0 w${2 * SIZE}`);
    expect(cache.dirtyCount).toBe(1);
    await expect(cache.flush()).rejects.toThrow("injected");
    store.onEvent = () => {};
    await cache.flush();
    expect(store.log()).toBe(`w0 w${2 * SIZE} w${SIZE} sync`);
    expect(store.durable.get(SIZE)?.[3]).toBe(2);
  });

  test("flush() must fail when the sync fails, and write the tables again [C17]", async () => {
    const store = new FakeStore();
    store.losesOnFailedSync = true;
    const cache = cacheOf(store);
    await change(cache, 0, 1);
    store.onEvent = (event) => {
      if (event.kind === "sync") throw eio();
    };
    await expect(cache.flush()).rejects.toThrow("injected");
    expect(cache.dirtyCount).toBe(1);
    store.onEvent = () => {};
    await cache.flush();
    expect(store.durable.get(0)?.[3]).toBe(1);
  });

  test("flush() must make another cache's tables dirty when a sync of their store fails", async () => {
    const store = new FakeStore();
    store.losesOnFailedSync = true;
    const one = cacheOf(store, 4, "one");
    const two = cacheOf(store, 4, "two");
    await change(one, 0, 1);
    await one.write();
    store.onEvent = (event) => {
      if (event.kind === "sync") throw eio();
    };
    await expect(two.flush()).rejects.toThrow("injected");
    store.onEvent = () => {};
    await one.flush();
    expect(store.durable.get(0)?.[3]).toBe(1);
  });

  test("flush() must fail for ever when a failed sync covers a table that was evicted [C17]", async () => {
    const store = new FakeStore();
    store.losesOnFailedSync = true;
    const cache = cacheOf(store, 1);
    await change(cache, 0, 1);
    await touch(cache, SIZE);
    store.onEvent = (event) => {
      if (event.kind === "sync") throw eio();
    };
    await expect(cache.flush()).rejects.toThrow("injected");
    store.onEvent = () => {};
    await expect(cache.flush()).rejects.toThrow("injected");
    expect(store.log()).toBe("w0");
  });

  test("markDirty() while the table is being written must not be forgotten", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store);
    await change(cache, 0, 1);
    const table = cache.peek(0) as Table;
    store.onEvent = () => {
      store.onEvent = () => {};
      table.view.setUint32(0, 2);
      cache.markDirty(table);
    };
    await cache.write();
    expect(cache.dirtyCount).toBe(1);
  });

  test("drop() must forget dirty tables of the range and keep the others", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 8);
    for (const i of [0, 1, 2, 3]) await change(cache, i * SIZE, i + 1);
    cache.drop(SIZE, 2 * SIZE);
    await cache.flush();
    expect(store.log()).toBe(`w0 w${3 * SIZE} sync`);
    await change(cache, 0, 9);
    cache.drop(0, 2 ** 40);
    expect(cache.dirtyCount).toBe(0);
    expect(cache.peek(3 * SIZE)).toBeUndefined();
  });

  test("empty() must flush and forget everything", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store);
    await change(cache, 0, 1);
    await cache.empty();
    expect(store.log()).toBe("w0 sync");
    expect(cache.peek(0)).toBeUndefined();
    expect((await cache.get(0)).view.getUint32(0)).toBe(1);
  });
});

describe("misuse is an assertion", () => {
  test("release() of a table without pins, or of another cache, or one that was dropped", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store);
    const other = cacheOf(store);
    const table = await cache.get(0);
    expect(() => other.release(table)).toThrow(AssertionError);
    cache.release(table);
    expect(() => cache.release(table)).toThrow(AssertionError);
    cache.drop(0, SIZE);
    expect(() => cache.release(table)).toThrow(AssertionError);
  });

  test("markDirty() of another cache's table, or of one that was evicted", async () => {
    const store = new FakeStore();
    const cache = cacheOf(store, 1);
    const table = await cache.get(0);
    expect(() => cacheOf(store).markDirty(table)).toThrow(AssertionError);
    const { hostOffset, bytes, view } = table;
    expect(() => cache.markDirty({ hostOffset, bytes, view })).toThrow(AssertionError);
    cache.release(table);
    await touch(cache, SIZE);
    expect(() => cache.markDirty(table)).toThrow(AssertionError);
  });

  test("a host offset that is not a multiple of the table size, or no offset at all", async () => {
    const cache = cacheOf(new FakeStore());
    for (const at of [1, SIZE + 8, -SIZE, 0.5, Number.NaN, 2 ** 60]) {
      expect(() => cache.get(at)).toThrow(AssertionError);
      expect(() => cache.getEmpty(at)).toThrow(AssertionError);
      expect(() => cache.peek(at)).toThrow(AssertionError);
      expect(() => cache.drop(at, SIZE)).toThrow(AssertionError);
    }
    expect(() => cache.drop(0, 100)).toThrow(AssertionError);
  });

  test("two loads of one table at once", async () => {
    const cache = cacheOf(new FakeStore());
    const first = cache.get(0);
    expect(() => cache.get(0)).toThrow(AssertionError);
    expect(() => cache.getEmpty(0)).toThrow(AssertionError);
    expect((await first).hostOffset).toBe(0);
  });

  test("drop(), empty() and getEmpty() of a pinned table", async () => {
    const cache = cacheOf(new FakeStore());
    const table = await cache.get(0);
    expect(() => cache.drop(0, SIZE)).toThrow(AssertionError);
    expect(() => cache.getEmpty(0)).toThrow(AssertionError);
    await expect(cache.empty()).rejects.toThrow(AssertionError);
    expect(cache.peek(0)).toBe(table);
  });

  test("a table size that is no power of two, or a cache of no tables", () => {
    const store = new FakeStore();
    for (const tableSizeBytes of [0, 256, 1000, 4097]) {
      const make = (): unknown =>
        new MetadataCache({ name: "T", tableSizeBytes, maxTables: 1, store });
      expect(make).toThrow(AssertionError);
    }
    expect(() => cacheOf(store, 0)).toThrow(AssertionError);
    expect(new MetadataCache({ name: "T", maxTables: 1, store }).tableSizeBytes).toBe(4096);
  });
});
