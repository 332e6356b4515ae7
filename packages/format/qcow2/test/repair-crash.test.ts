/**
 * A repair that a crash cuts off at any point: what could be read can be read, and another repair ends what the first
 * began.
 */
import type { RepairKind } from "@blocklayer/block-api";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { crashStates, SimDisk, Trace } from "@blocklayer/sim";
import { BlockError } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { checkQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { BROKEN, imageWithSnapshot, soundImage } from "./support/broken-images.js";
import { type GuestView, lostIn, viewAll } from "./support/guest-view.js";
import { mutate } from "./support/mutate.js";
import { Rng } from "./support/rng.js";

const RUNS = Number(process.env["BLOCKLAYER_CRASH_RUNS"] ?? 1);
/** Images that are broken at random. */
const MUTATIONS = 60 * RUNS;
/** Those that once were lost, beyond the first. */
const SAVED_SEEDS = [105, 475, 707];
const MAX_SUBSETS = Number(process.env["BLOCKLAYER_CRASH_SUBSETS"] ?? 6);

async function expectAllThere(
  before: ReadonlyMap<string, GuestView>,
  bytes: Uint8Array,
  when: string,
): Promise<void> {
  const after = await viewAll(bytes);
  for (const [name, view] of before) {
    const kept = after.get(name);
    const lost = kept === undefined ? ["all"] : lostIn(view, kept);
    expect({ when, name, lost }).toEqual({ when, name, lost: [] });
  }
}

/** Clusters that are counted less often than they are used: a writer could take them away from their users. */
async function countedTooLow(file: BlockChild): Promise<Set<string>> {
  const { findings } = await checkQcow2(file, await readHeader(file));
  const low = new Set<string>();
  for (const { message } of findings) {
    const cluster = /^ERROR cluster (\d+) /.exec(message)?.[1];
    if (cluster !== undefined) low.add(cluster);
  }
  return low;
}

async function enumerate(bytes: Uint8Array, fix: RepairKind, seed: number): Promise<number> {
  const before = await viewAll(bytes);
  const { clusterBits } = await readHeader(directChild(new SimDisk({ content: bytes })));
  const clusters = bytes.length / 2 ** clusterBits;
  const trace = new Trace();
  const file = new SimDisk({ content: bytes, trace });
  await repairQcow2(directChild(file), await readHeader(directChild(file)), { fix });
  // What reaches behind the end of the file is counted once that is longer, with its part in the file: unsafe before, too.
  const longer = new Uint8Array(Math.max(bytes.length, file.lengthBytes));
  longer.set(bytes);
  const low = await countedTooLow(directChild(new SimDisk({ content: bytes })));
  for (const one of await countedTooLow(directChild(new SimDisk({ content: longer }))))
    low.add(one);
  let states = 0;
  for (const state of crashStates(trace, { seed, maxSubsets: MAX_SUBSETS, tear: true })) {
    states++;
    const when = state.describe();
    await expectAllThere(before, state.bytes, when);
    // No step makes another cluster unsafe on the way; what a longer file brings to light was named before.
    const lowNow = await countedTooLow(directChild(state.open()));
    const unsafe = [...lowNow].filter((one) => !low.has(one) && Number(one) < clusters);
    expect({ when, unsafe }).toEqual({ when, unsafe: [] });
    const again = state.open();
    const child = directChild(again);
    const { result } = await repairQcow2(child, await readHeader(child), { fix });
    const { corruptions, leaks, checkErrors } = await checkQcow2(child, await readHeader(child));
    expect({ when, corruptions, leaks, checkErrors, findings: result.findings }).toMatchObject({
      corruptions: 0,
      leaks: 0,
      checkErrors: 0,
    });
    await expectAllThere(before, again.bytes, `${when}, repaired again`);
  }
  return states;
}

describe("repairQcow2() that a crash cuts off", () => {
  test.each(BROKEN)(
    "must lose nothing, and be ended by another: $name",
    async ({ bytes, name }) => {
      let states = 0;
      for (let run = 0; run < RUNS; run++) states += await enumerate(bytes(), "all", 1 + run);
      console.log(`crash states: ${states} (repair of ${name})`);
      expect(states).toBeGreaterThan(1);
    },
  );

  test(
    `must lose nothing, and be ended by another, in ${MUTATIONS} images that are broken at random`,
    async () => {
      const sound = [
        imageWithSnapshot().bytes,
        soundImage().bytes,
        soundImage({ version: 2, clusterBits: 10 }).bytes,
        soundImage({ refcountOrder: 1 }).bytes,
      ];
      let states = 0;
      const first = Array.from({ length: MUTATIONS }, (_, i) => i + 1);
      for (const seed of new Set([...first, ...SAVED_SEEDS])) {
        const rng = new Rng(seed);
        const bytes = mutate(rng.pick(sound), rng);
        try {
          await readHeader(directChild(new SimDisk({ content: bytes })));
        } catch (error) {
          if (error instanceof BlockError) continue;
          throw error;
        }
        try {
          states += await enumerate(bytes, "all", seed);
        } catch (cause) {
          throw new Error(`seed ${seed}`, { cause });
        }
      }
      console.log(`crash states: ${states} (repair of mutated images)`);
      expect(states).toBeGreaterThan(MUTATIONS * 2);
    },
    60_000 * (1 + RUNS),
  );

  test("must lose nothing when it only frees leaks", async () => {
    const leaky = BROKEN.find(({ name }) => name === "leaked clusters");
    expect(await enumerate((leaky as (typeof BROKEN)[number]).bytes(), "leaks", 1)).toBeGreaterThan(
      1,
    );
  });
});
