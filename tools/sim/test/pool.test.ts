import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { planOf } from "../src/job.mjs";
import { runPool } from "../src/pool.mjs";
import { simulate, summaryOf } from "../src/simulate.mjs";

type Verdict = Parameters<Parameters<typeof runPool>[1]["onVerdict"]>[0];

const program = fileURLToPath(new URL("stuck-worker.mjs", import.meta.url));

describe("runPool()", () => {
  test("must report a seed whose run never ends, or ends its process, and go on with the others", async () => {
    const verdicts: Verdict[] = [];
    const jobs = [1, 2, 3, 5, 7].map((seed) => ({ mode: "schedules", seed }) as const);
    await runPool(jobs.values(), {
      workers: 2,
      timeoutMs: 4000,
      program,
      onVerdict: (verdict) => verdicts.push(verdict) > 0,
    });
    verdicts.sort((one, other) => one.seed - other.seed);
    expect(verdicts.map(({ seed, failure }) => [seed, failure?.message])).toEqual([
      [1, undefined],
      [2, "the run has not ended after 4000 ms"],
      [3, "the run has ended its process: 7"],
      [5, undefined],
      [7, undefined],
    ]);
    // What is reported can be run again.
    expect(verdicts[1]?.failure).toMatchObject(planOf("schedules", 2));
  });
});

describe("simulate()", () => {
  test("must begin no more seeds when its budget is over, and say so", async () => {
    const sum = await simulate({
      mode: "schedules",
      first: 1,
      seeds: 50,
      workers: 1,
      budgetMs: 1,
    });
    expect(sum).toMatchObject({ seeds: 1, cutShort: true, failures: [] });
    expect(summaryOf("schedules", sum)).toContain("CUT SHORT");
  });

  test("must not call a batch cut short that has run to its end", async () => {
    const wish = { mode: "schedules", first: 1, seeds: 1, workers: 1, budgetMs: 1 } as const;
    const sum = await simulate(wish);
    expect(sum).toMatchObject({ seeds: 1, cutShort: false });
    expect(summaryOf("schedules", sum)).not.toContain("CUT SHORT");
  });

  test("must give the lowest seed that fails first, whoever ends first", async () => {
    const sum = await simulate({ mode: "schedules", first: 11, seeds: 2, workers: 2, program });
    expect(sum.failures.map(({ seed }) => seed)).toEqual([11, 12]);
  });
});
