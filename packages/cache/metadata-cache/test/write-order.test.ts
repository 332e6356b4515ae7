import { AssertionError } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { MetadataCache } from "../src/index.js";
import { eio, FakeStore, SIZE } from "./fake-store.js";

/** Caches over one store; the tables of cache n start at n * 100 tables. */
function caches(
  count: number,
  maxTables = 8,
): { store: FakeStore; all: MetadataCache[]; at: (cache: number, table?: number) => number } {
  const store = new FakeStore();
  const all = Array.from(
    { length: count },
    (_, i) => new MetadataCache({ name: `C${i}`, tableSizeBytes: SIZE, maxTables, store }),
  );
  return { store, all, at: (cache, table = 0) => (cache * 100 + table) * SIZE };
}

async function change(cache: MetadataCache, at: number): Promise<void> {
  const table = await cache.get(at);
  table.view.setUint32(0, table.view.getUint32(0) + 1);
  cache.markDirty(table);
  cache.release(table);
}

type Three = [MetadataCache, MetadataCache, MetadataCache];

describe("dependsOn() [C4]", () => {
  test("must have the other cache written and synced before any table is written", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1, 3));
    await change(b, at(1));
    await change(a, at(0));
    await a.dependsOn(b);
    await a.write();
    expect(store.log()).toBe(`w${at(1)} w${at(1, 3)} sync w${at(0)}`);
  });

  test("must not order anything without an edge, nor after the edge was met", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(0)}`);
    await change(a, at(0));
    await a.dependsOn(b);
    await a.write();
    await change(b, at(1));
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(0)} w${at(1)} sync w${at(0)} w${at(0)}`);
  });

  test("must sync also when the other cache was written already, but not synced", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await a.dependsOn(b);
    await b.write();
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must sync also when the other's written table was evicted", async () => {
    const { store, all, at } = caches(2, 1);
    const [a, b] = all as Three;
    await change(b, at(1));
    await a.dependsOn(b);
    b.release(await b.get(at(1, 1)));
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must cost no sync when the other is durable", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await b.flush();
    await a.dependsOn(b);
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must hold for a table that is written to make room", async () => {
    const { store, all, at } = caches(2, 1);
    const [a, b] = all as Three;
    await change(b, at(1));
    await change(a, at(0));
    await a.dependsOn(b);
    a.release(await a.get(at(0, 1)));
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must write both others and sync once when a cache depends on two", async () => {
    const { store, all, at } = caches(3);
    const [a, b, c] = all as Three;
    for (const [cache, i] of [a, b, c].map((x, n) => [x, n] as const)) await change(cache, at(i));
    expect(a.dependsOn(b)).toBeUndefined();
    expect(a.dependsOn(c)).toBeUndefined();
    await a.write();
    expect(store.log()).toBe(`w${at(1)} w${at(2)} sync w${at(0)}`);
  });

  test("must share its own sync with something else over the same store", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await change(a, at(0));
    await a.dependsOn({
      flush: () => Promise.reject(new Error("asked for a sync of its own")),
      writeToStore: () => store.write(7 * SIZE, new Uint8Array(SIZE)),
    });
    await a.dependsOn(b);
    await a.write();
    expect(store.log()).toBe(`w${7 * SIZE} w${at(1)} sync w${at(0)}`);
  });

  test("must keep its tables when that something cannot write", async () => {
    const { store, all, at } = caches(1);
    const [a] = all as Three;
    await change(a, at(0));
    let broken = true;
    await a.dependsOn({
      flush: () => undefined,
      writeToStore: () => {
        if (broken) throw eio();
      },
    });
    await expect(a.write()).rejects.toMatchObject({ code: "EIO" });
    expect(store.log()).toBe("");
    broken = false;
    await a.write();
    expect(store.log()).toBe(`sync w${at(0)}`);
  });

  test("must flush first what would make a cycle", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await change(a, at(0));
    await a.dependsOn(b);
    await b.dependsOn(a);
    expect(store.log()).toBe(`w${at(1)} sync`);
    await change(a, at(0));
    await change(b, at(1));
    await b.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)} sync w${at(1)}`);
  });

  test("must flush first what would make a chain at its end", async () => {
    const { store, all, at } = caches(3);
    const [a, b, c] = all as Three;
    await change(c, at(2));
    await change(b, at(1));
    await b.dependsOn(c);
    await a.dependsOn(b);
    expect(store.log()).toBe(`w${at(2)} sync`);
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w${at(2)} sync w${at(1)} sync w${at(0)}`);
  });

  test("must flush first what would make a chain at its start", async () => {
    const { store, all, at } = caches(3);
    const [a, b, c] = all as Three;
    for (const [cache, i] of [a, b, c].map((x, n) => [x, n] as const)) await change(cache, at(i));
    await a.dependsOn(b);
    await b.dependsOn(c);
    expect(store.log()).toBe(`w${at(1)} sync`);
    await b.write();
    await a.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must not add the edge when that flush fails", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    await change(b, at(1));
    await change(a, at(0));
    await a.dependsOn(b);
    store.onEvent = () => {
      throw eio();
    };
    await expect(b.dependsOn(a)).rejects.toThrow("injected");
    store.onEvent = () => {};
    await a.write();
    expect(store.log()).toBe(`w${at(1)} sync w${at(0)}`);
  });

  test("must keep the edge while the other's write or the sync fails [C17]", async () => {
    for (const failing of ["write", "sync"]) {
      const { store, all, at } = caches(2);
      const [a, b] = all as Three;
      await change(b, at(1));
      await change(a, at(0));
      await a.dependsOn(b);
      store.onEvent = (event) => {
        if (event.kind === failing) throw eio();
      };
      await expect(a.write()).rejects.toThrow("injected");
      await expect(a.flush()).rejects.toThrow("injected");
      expect(store.written.has(at(0))).toBe(false);
      store.onEvent = () => {};
      await a.write();
      expect(store.log().endsWith(`w${at(1)} sync w${at(0)}`)).toBe(true);
    }
  });

  test("must flush anything else that can be flushed, each time there is an edge", async () => {
    const { store, all, at } = caches(1);
    const [a] = all as Three;
    const other = { flush: () => void store.events.push({ kind: "write", at: 77 }) };
    await change(a, at(0));
    await a.dependsOn(other);
    await a.write();
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`w77 w${at(0)} w${at(0)}`);
  });

  test("must flush, not only write, a cache of another store", async () => {
    const { store, all, at } = caches(1);
    const foreignStore = new FakeStore();
    const foreign = new MetadataCache({
      name: "F",
      tableSizeBytes: SIZE,
      maxTables: 2,
      store: foreignStore,
    });
    const [a] = all as Three;
    await change(a, at(0));
    await change(foreign, 0);
    await a.dependsOn(foreign);
    store.onEvent = () => expect(foreignStore.log()).toBe("w0 sync");
    await a.write();
    expect(store.log()).toBe(`w${at(0)}`);
  });

  test("must refuse a cache that would depend on itself", () => {
    const [a] = caches(1).all as Three;
    expect(() => a.dependsOn(a)).toThrow(AssertionError);
  });
});

describe("dependsOnSync() [C5]", () => {
  test("must sync once before the next table is written", async () => {
    const { store, all, at } = caches(1);
    const [a] = all as Three;
    a.dependsOnSync();
    await change(a, at(0));
    await a.write();
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`sync w${at(0)} w${at(0)}`);
  });

  test("must be met by a sync that comes for another reason", async () => {
    const { store, all, at } = caches(2);
    const [a, b] = all as Three;
    a.dependsOnSync();
    await b.flush();
    await change(a, at(0));
    await a.write();
    expect(store.log()).toBe(`sync w${at(0)}`);
  });

  test("must stand while the sync fails", async () => {
    const { store, all, at } = caches(1);
    const [a] = all as Three;
    a.dependsOnSync();
    await change(a, at(0));
    store.onEvent = () => {
      throw eio();
    };
    await expect(a.write()).rejects.toThrow("injected");
    store.onEvent = () => {};
    await a.write();
    expect(store.log()).toBe(`sync w${at(0)}`);
  });
});
