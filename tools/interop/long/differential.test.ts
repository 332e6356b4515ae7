/**
 * Random command lists through blk and through QEMU's tools, from a new seed at each run: `BLOCKLAYER_DIFF_RUNS` says how many
 * (200 by default), `BLOCKLAYER_DIFF_SEED` repeats a run. Those of src/twins/seeds.json come first.
 */
import { expect, test } from "vitest";
import { runSeeds } from "../src/differential.mjs";
import saved from "../src/twins/seeds.json" with { type: "json" };
import { describeWithQemu } from "../test/support.js";

const RUNS = Number(process.env["BLOCKLAYER_DIFF_RUNS"] ?? 200);
const SEED = Number(process.env["BLOCKLAYER_DIFF_SEED"] ?? Date.now() % 2 ** 31);

describeWithQemu("differential", () => {
  test("the twins must stay the same", { timeout: 7_200_000 }, async () => {
    const fresh = Array.from({ length: RUNS }, (_, index) => SEED + index);
    const seeds = [...saved.map(({ seed }) => seed), ...fresh];
    const { runs, steps, failures, excused, missing } = await runSeeds(seeds, { jobs: 3 });
    const left = [...missing].join(", ") || "nothing";
    console.log(`differential: ${runs} lists of ${steps} steps; seed ${SEED}; left out: ${left}`);
    for (const [why, count] of excused) console.log(`${count} × ${why}`);
    expect(failures.map(({ report }) => report)).toEqual([]);
    expect(runs).toBe(seeds.length);
  });
});
