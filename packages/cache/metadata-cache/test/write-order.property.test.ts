/**
 * Random work of three caches over one store that fails at random, against a model of what each edge
 * promises: whenever a table is written, all that its cache depended on is durable. Looked at before
 * every single write, so it holds in every prefix of what reached the disk.
 */
import { hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { expect, test } from "vitest";
import { MetadataCache } from "../src/index.js";
import { eio, FakeStore, SIZE, versionOf } from "./fake-store.js";

const CACHES = 3;
const TABLES = 6;
const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 400);

type Operation =
  | { readonly kind: "change" | "drop" | "empty"; readonly cache: number; readonly table: number }
  | { readonly kind: "depend"; readonly cache: number; readonly on: number }
  | { readonly kind: "owe" | "write" | "flush" | "data"; readonly cache: number };

const cacheNumber = fc.nat(CACHES - 1);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("change" as const),
      cache: cacheNumber,
      table: fc.nat(TABLES - 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom("drop" as const, "empty" as const),
      cache: cacheNumber,
      table: fc.nat(TABLES - 1),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("depend" as const),
      cache: cacheNumber,
      on: cacheNumber,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("owe" as const, "write" as const, "flush" as const, "data" as const),
      cache: cacheNumber,
    }),
  },
);

/** What must be durable: this version of the table there, or a later one. */
interface Promised {
  readonly at: number;
  readonly version: number;
}

function mustHold(condition: boolean, rule: string): void {
  if (!condition) throw new Error(rule);
}

class World {
  readonly store: FakeStore = new FakeStore();
  readonly caches: MetadataCache[];
  /** The newest version of each table that is not dropped. */
  readonly versions: Map<number, number> = new Map();
  readonly promises: Promised[][] = Array.from({ length: CACHES }, () => []);
  /** Data that was written without a table, as copy-on-write does, and by whom it is awaited. */
  dataWritten = 0;
  dataDurable = 0;
  readonly dataPromised: number[] = Array.from({ length: CACHES }, () => 0);
  healed = false;

  constructor(faults: readonly boolean[], maxTables: number) {
    this.caches = Array.from(
      { length: CACHES },
      (_, i) =>
        new MetadataCache({ name: `C${i}`, tableSizeBytes: SIZE, maxTables, store: this.store }),
    );
    this.store.losesOnFailedSync = true;
    let step = 0;
    this.store.onEvent = (event) => {
      if (event.kind === "write") this.#checkPromises(event.at);
      if (faults[step++] === true && !this.healed) throw eio();
      if (event.kind === "sync") this.dataDurable = this.dataWritten;
    };
  }

  static at(cache: number, table: number): number {
    return (cache * TABLES + table) * SIZE;
  }

  async run(op: Operation): Promise<void> {
    const cache = this.caches[op.cache] as MetadataCache;
    if (op.kind === "change") {
      const at = World.at(op.cache, op.table);
      const table = await cache.get(at);
      const version = Math.max(this.versions.get(at) ?? 0, table.view.getUint32(0)) + 1;
      table.view.setUint32(0, version);
      cache.markDirty(table);
      cache.release(table);
      this.versions.set(at, version);
    } else if (op.kind === "drop") {
      const at = World.at(op.cache, op.table);
      cache.drop(at, SIZE);
      this.versions.delete(at);
      for (const list of this.promises) {
        for (let i = list.length - 1; i >= 0; i--) if (list[i]?.at === at) list.splice(i, 1);
      }
    } else if (op.kind === "depend") {
      if (op.on === op.cache) return;
      await cache.dependsOn(this.caches[op.on] as MetadataCache);
      for (let table = 0; table < TABLES; table++) {
        const at = World.at(op.on, table);
        const version = this.versions.get(at);
        if (version !== undefined) this.promises[op.cache]?.push({ at, version });
      }
    } else if (op.kind === "data") {
      this.dataWritten++;
    } else if (op.kind === "owe") {
      cache.dependsOnSync();
      this.dataPromised[op.cache] = this.dataWritten;
    } else if (op.kind === "write") await cache.write();
    else if (op.kind === "flush") await cache.flush();
    else await cache.empty();
    if (op.kind === "flush" || op.kind === "empty") this.#checkFlushed(op.cache);
  }

  #checkPromises(at: number): void {
    const cache = Math.floor(at / SIZE / TABLES);
    for (const promised of this.promises[cache] ?? []) {
      const durable = versionOf(this.store.durable.get(promised.at));
      mustHold(durable >= promised.version, `C${cache} writes after ${promised.at}`);
    }
    mustHold(
      this.dataDurable >= (this.dataPromised[cache] ?? 0),
      `C${cache} writes after its data`,
    );
  }

  #checkFlushed(cache: number): void {
    for (let table = 0; table < TABLES; table++) {
      const at = World.at(cache, table);
      const version = this.versions.get(at);
      if (version === undefined) continue;
      mustHold(versionOf(this.store.durable.get(at)) === version, `${at} is flushed`);
    }
  }
}

async function play(
  operations: readonly Operation[],
  faults: readonly boolean[],
  maxTables: number,
): Promise<void> {
  const world = new World(faults, maxTables);
  for (const op of operations) {
    try {
      await world.run(op);
    } catch (error) {
      if (!hasCode(error, "EIO")) throw error;
    }
    for (const cache of world.caches) expect(cache.dirtyCount).toBeLessThanOrEqual(maxTables);
  }
  world.healed = true;
  for (let cache = 0; cache < CACHES; cache++) {
    try {
      await world.run({ kind: "flush", cache });
    } catch (error) {
      // Only what was evicted between its write and a failed sync cannot be written again.
      if (!hasCode(error, "EIO") || maxTables >= TABLES) throw error;
    }
  }
}

test("caches must keep every promise of their edges in every prefix, whatever fails [C4] [C5] [C17]", async () => {
  const faults = fc.array(
    fc.oneof(
      { weight: 7, arbitrary: fc.constant(false) },
      { weight: 1, arbitrary: fc.constant(true) },
    ),
    { maxLength: 60 },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { maxLength: 60 }),
      faults,
      fc.integer({ min: 1, max: 8 }),
      play,
    ),
    { numRuns: RUNS },
  );
});
