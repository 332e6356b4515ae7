/**
 * The file below a qcow2 image fails once at each event of the driver, with EIO and with ENOSPC, at its first, a
 * middle and its last occurrence, in every workload. What may come of it: requests that fail, leaks; never wrong
 * bytes, a flush that succeeds without having done its work, or something that is held for ever.
 */
import { readdir, readFile } from "node:fs/promises";
import { DEBUG_EVENTS, type DebugEvent } from "@blocklayer/block-api";
import { createCodec } from "@blocklayer/codec";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WORKLOADS } from "./support/event-workloads.js";
import {
  ERRNOS,
  type FaultOutcome,
  type Fixture,
  makeFixture,
  runWithFault,
} from "./support/fault-run.js";

/** Every event that the qcow2 driver announces, and nothing else. */
const ANNOUNCED: readonly DebugEvent[] = [
  "l1_update",
  "l1_grow_alloc_table",
  "l1_grow_write_table",
  "l1_grow_activate_table",
  "l1_shrink_write_table",
  "l1_shrink_free_l2_clusters",
  "l2_load",
  "l2_update",
  "l2_update_compressed",
  "l2_alloc_cow_read",
  "l2_alloc_write",
  "read_aio",
  "read_backing_aio",
  "read_compressed",
  "write_aio",
  "write_compressed",
  "cow_read",
  "cow_write",
  "reftable_load",
  "reftable_grow",
  "refblock_load",
  "refblock_update_part",
  "refblock_alloc",
  "refblock_alloc_hookup",
  "refblock_alloc_write",
  "refblock_alloc_write_blocks",
  "refblock_alloc_write_table",
  "refblock_alloc_switch_table",
  "cluster_alloc",
  "cluster_alloc_bytes",
  "cluster_free",
  "cluster_alloc_space",
  "vmstate_load",
  "vmstate_save",
];

/** What the graph announces of the writes and flushes that these events are about: met as well, failed in long runs. */
const GRAPHS: readonly DebugEvent[] = [
  "flush_to_os",
  "flush_to_disk",
  "pwritev",
  "pwritev_zero",
  "pwritev_done",
  "pwritev_rmw_head",
  "pwritev_rmw_after_head",
  "pwritev_rmw_tail",
  "pwritev_rmw_after_tail",
];

/** `test:long` lets every occurrence fail. */
const EVERY = process.env["BLOCKLAYER_FAULT_RUNS"] !== undefined;

const QCOW2_SOURCES = new URL("../../../format/qcow2/src/", import.meta.url);

const TIMEOUT_MS = EVERY ? 1_200_000 : 120_000;

const codec = createCodec("deflate");
const fixtures = new Map<string, Fixture>();
/** By workload: what happens when nothing fails. */
const undisturbed = new Map<string, FaultOutcome>();

// The codec's threads stay for all runs.
beforeAll(async () => {
  await codec.compress([new Uint8Array(512)], 511);
  for (const workload of WORKLOADS) {
    const fixture = await makeFixture(workload);
    fixtures.set(workload.name, fixture);
    undisturbed.set(workload.name, await runWithFault(fixture));
  }
}, TIMEOUT_MS);

afterAll(async () => {
  await codec.close();
});

/** Which occurrences of an event fail: the first, a middle and the last one, or every one in long runs. */
function chosen(count: number): Iterable<number> {
  if (EVERY) return Array.from({ length: count }, (_, i) => i + 1);
  return new Set([1, Math.ceil(count / 2), count]);
}

/** Names of events that stand in the driver's sources as strings. */
async function eventsInSources(): Promise<Set<string>> {
  const names = await readdir(QCOW2_SOURCES, { recursive: true });
  const found = new Set<string>();
  for (const name of names.filter((one) => one.endsWith(".ts"))) {
    const text = await readFile(new URL(name, QCOW2_SOURCES), "utf8");
    for (const event of DEBUG_EVENTS) if (text.includes(`"${event}"`)) found.add(event);
  }
  return found;
}

describe("the events of the qcow2 driver", () => {
  test("must be those of the table, in its sources and in the workloads", async () => {
    const met = new Set([...undisturbed.values()].flatMap(({ events }) => [...events.keys()]));
    expect([...met].toSorted()).toEqual([...ANNOUNCED, ...GRAPHS].toSorted());
    expect([...(await eventsInSources())].toSorted()).toEqual(ANNOUNCED.toSorted());
  });

  test.each(WORKLOADS)(
    "must each fail once with EIO and once with ENOSPC: $name",
    { timeout: TIMEOUT_MS },
    async ({ name }) => {
      const fixture = fixtures.get(name) as Fixture;
      const { events, problems: broken } = undisturbed.get(name) as FaultOutcome;
      expect(broken).toEqual([]);
      const problems: string[] = [];
      let runs = 0;
      let struck = 0;
      for (const [event, count] of events) {
        if (!EVERY && GRAPHS.includes(event)) continue;
        for (const nth of chosen(count)) {
          for (const code of Object.keys(ERRNOS) as (keyof typeof ERRNOS)[]) {
            const outcome = await runWithFault(fixture, { event, nth, code });
            runs++;
            if (outcome.failures > 0) struck++;
            const where = `${event} ${nth} of ${count}, ${code}`;
            problems.push(...outcome.problems.map((one) => `${where}: ${one}`));
          }
        }
      }
      console.log(`fault runs: ${runs}, of which a request saw ${struck} (${name})`);
      expect(problems).toEqual([]);
      expect(struck).toBeGreaterThan(runs / 2);
    },
  );
});
