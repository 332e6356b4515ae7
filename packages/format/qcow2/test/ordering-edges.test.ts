/**
 * Each ordering edge of writeback/order.ts is needed: with all of them no crash breaks a promise, and with one of
 * them taken out, everything else being as it is, some crash does. So no edge can be lost without a test that fails.
 */
import { MetadataCache } from "@blocklayer/metadata-cache";
import { Random, stampedBytes } from "@blocklayer/sim";
import { afterEach, describe, expect, test, vi } from "vitest";
import * as order from "../src/writeback/order.js";
import { type CrashScenario, crashOutcome } from "./support/crash-run.js";
import { keepCodecWarm } from "./support/warm-codec.js";

type Edge = keyof typeof order;

const taken = vi.hoisted(() => ({ edge: "" }));

vi.mock("../src/writeback/order.js", async (importOriginal) => {
  const real = await importOriginal<Record<string, (...args: unknown[]) => unknown>>();
  const entries = Object.entries(real).map(([name, edge]) => [
    name,
    (...args: unknown[]) => (taken.edge === name ? undefined : edge(...args)),
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
});

keepCodecWarm();

afterEach(() => {
  taken.edge = "";
  vi.restoreAllMocks();
});

const CLUSTER = 512;
/** 64 clusters to an L2 table, and to a refcount block: everything is near. */
const small = { cluster_size: CLUSTER, refcount_bits: 64 };
const L2_COVERAGE = 64 * CLUSTER;

/** Guest bytes after which the file is nearly as long as one cluster of refcount table counts. */
const FULL_TABLE_BYTES = 3960 * CLUSTER;

const bytes = (tag: number, offset: number, length: number = CLUSTER): Uint8Array =>
  stampedBytes(tag, offset, length);

/** Random in the first half, so that about half a cluster is left after compression. */
function compressible(seed: number): Uint8Array {
  const content = new Uint8Array(CLUSTER);
  content.set(new Random(seed).bytes(CLUSTER / 2));
  return content;
}

/** A disk whose first cluster is there, with its tables. */
async function firstCluster({ write, flush }: Parameters<CrashScenario["run"]>[0]): Promise<void> {
  await write(0, bytes(1, 0));
  await flush();
}

/** A run that needs an edge, and what a crash shows without it. */
interface EdgeScenario extends CrashScenario {
  readonly finds: RegExp;
}

/** For each edge a run; for one that serves two tables, two. */
const SCENARIOS: Readonly<Record<Edge, EdgeScenario>> & Readonly<Record<string, EdgeScenario>> = {
  // A new cluster in tables that stand: its refcount, then the entry that names it.
  l2WaitsForRefcounts: {
    create: { size: L2_COVERAGE, ...small },
    before: firstCluster,
    run: async ({ write, flush }) => {
      await write(CLUSTER, bytes(2, CLUSTER));
      await flush();
    },
    finds: /^check: ERROR cluster \d+ refcount=0 reference=1/,
  },
  // A cluster that reads as zeroes and keeps old bytes: the new ones, then the entry that shows them.
  l2WaitsForData: {
    create: { size: L2_COVERAGE, ...small },
    before: async (guest) => {
      await firstCluster(guest);
      await guest.zero(0, CLUSTER);
      await guest.flush();
    },
    run: async ({ write, flush }) => {
      await write(0, bytes(2, 0));
      await flush();
    },
    finds: /sector 0 .* holds data with tag 1/,
  },
  // The cache of L2 slices runs full while compressed data is in memory.
  l2WaitsForCompressed: {
    create: { size: 10 * L2_COVERAGE, ...small },
    open: {
      "l2-cache-size": "4k",
      "l2-cache-entry-size": 512,
      "compressed-write-cache": "on",
    },
    before: async ({ write, flush }) => {
      for (let i = 0; i < 10; i++) await write(i * L2_COVERAGE, bytes(1, i * L2_COVERAGE));
      await flush();
    },
    run: async ({ write, read, flush }) => {
      await write(0, compressible(3), true);
      for (let i = 1; i < 10; i++) await read(i * L2_COVERAGE, CLUSTER);
      await flush();
    },
    finds: /exceeding the end of the file/,
  },
  // A discard: the entry that drops the cluster, then its refcount.
  refcountsWaitForL2: {
    create: { size: L2_COVERAGE, ...small },
    before: firstCluster,
    run: async ({ discard, flush }) => {
      await discard(0, CLUSTER);
      await flush();
    },
    finds: /^check: ERROR cluster \d+ refcount=0 reference=1/,
  },
  // The first write under an L1 entry: table and refcount, then the entry.
  l1WaitsForTable: {
    create: { size: 2 * L2_COVERAGE, ...small },
    before: firstCluster,
    run: async ({ write, flush }) => {
      await write(L2_COVERAGE, bytes(2, L2_COVERAGE));
      await flush();
    },
    finds: /^check: ERROR cluster \d+ refcount=0 reference=1/,
  },
  // A file that grows past what its refcount block counts: the new block, then the entry that names it.
  refcountTableWaitsForBlock: {
    create: { size: 2 * L2_COVERAGE, ...small },
    before: async ({ write, flush }) => {
      await write(0, bytes(1, 0, 56 * CLUSTER));
      await flush();
    },
    run: async ({ write, flush }) => {
      await write(56 * CLUSTER, bytes(2, 56 * CLUSTER, 7 * CLUSTER));
      await flush();
    },
    finds: /^check: ERROR refcount block 1 is outside image/,
  },
  // A longer disk: the longer L1 table, then the header that names it.
  headerWaitsForTable: {
    create: { size: 64 * L2_COVERAGE, ...small },
    grownBytes: 65 * L2_COVERAGE,
    before: firstCluster,
    run: async ({ disk, flush }) => {
      await disk.truncate(65 * L2_COVERAGE);
      await flush();
    },
    finds: /^check: ERROR cluster \d+ refcount=0 reference=1/,
  },
  // A file that grows past what its refcount table counts: the longer table, then the header that names it.
  "headerWaitsForTable (refcount table)": {
    create: { size: 80 * L2_COVERAGE, ...small },
    before: async ({ write, flush }) => {
      await write(0, bytes(1, 0, FULL_TABLE_BYTES));
      await flush();
    },
    run: async ({ write, flush }) => {
      await write(FULL_TABLE_BYTES, bytes(2, FULL_TABLE_BYTES, 8 * CLUSTER));
      await flush();
    },
    finds: /^(check: ERROR|content: )/,
  },
  // A disk that becomes as long as its backing file, which must not show: zeroes, then the size.
  sizeWaitsForZeroes: {
    create: { size: 8 * CLUSTER, ...small },
    grownBytes: 16 * CLUSTER,
    backing: stampedBytes(9, 0, 16 * CLUSTER),
    run: async ({ disk, flush }) => {
      await disk.truncate(16 * CLUSTER, { zeroWrite: true });
      await flush();
    },
    finds: /sector 8 .* holds data with tag 9/,
  },
};

const RUNS = Object.entries(SCENARIOS).map(([name, scenario]) => ({
  name,
  edge: name.split(" ")[0] as Edge,
  scenario,
}));

async function violationsOf(scenario: CrashScenario): Promise<readonly string[]> {
  return (await crashOutcome(scenario)).violations;
}

describe("order.ts", () => {
  test("must have no edge that is not tried here", () => {
    const tried = new Set(RUNS.map(({ edge }) => edge));
    expect([...tried].toSorted()).toEqual(Object.keys(order).toSorted());
  });

  test.each(RUNS)("must keep every promise in a crash: the run for $name", async ({ scenario }) => {
    const { states, violations } = await crashOutcome(scenario);
    expect(violations).toEqual([]);
    expect(states).toBeGreaterThan(4);
  });

  test.each(RUNS)("must not do without $name", async ({ edge, scenario }) => {
    taken.edge = edge;
    const violations = await violationsOf(scenario);
    expect(violations).toContainEqual(expect.stringMatching(scenario.finds));
  });
});

describe("MetadataCache under the driver", () => {
  test.each([
    ["dependsOn", "l2WaitsForRefcounts"],
    ["dependsOn", "l2WaitsForCompressed"],
    ["dependsOnSync", "l2WaitsForData"],
  ] as const)("must not do without %s, in the run for %s", async (method, edge) => {
    vi.spyOn(MetadataCache.prototype, method).mockReturnValue(undefined);
    const violations = await violationsOf(SCENARIOS[edge]);
    expect(violations).toContainEqual(expect.stringMatching(SCENARIOS[edge].finds));
  });
});
