/** A fixed batch of random command lists through blk and through QEMU's tools; `npm run test:long` runs as many as fit. */
import { expect, test } from "vitest";
import { runSeeds } from "../src/differential.mjs";
import { missingFeatures, withoutMissing } from "../src/twins/features.mjs";
import { planOf } from "../src/twins/plan.mjs";
import { runPlan, shrunken } from "../src/twins/run.mjs";
import { scriptOf } from "../src/twins/script.mjs";
import saved from "../src/twins/seeds.json" with { type: "json" };
import { describeWithQemu } from "./support.js";

/** Beside those that found something once. */
const FIRST_SEED = 1;
const COUNT = 4;
const QUICK_SAVED = 3;

describeWithQemu("differential", () => {
  test("the twins must stay the same", { timeout: 300_000 }, async () => {
    const fixed = Array.from({ length: COUNT }, (_, index) => FIRST_SEED + index);
    const seeds = [...saved.slice(0, QUICK_SAVED).map(({ seed }) => seed), ...fixed];
    const { runs, failures } = await runSeeds(seeds);
    expect(failures.map(({ report }) => report)).toEqual([]);
    expect(runs).toBe(seeds.length);
  });

  test("a twin that differs must be found, shortened, and shown as a script", async () => {
    const length = 262_144;
    const write = (offset: number) => ({
      does: "io" as const,
      image: "@top.qcow2",
      op: { kind: "write" as const, offset, length: 512, pattern: 7 },
    });
    const create = ["create", "-q", "-f", "qcow2", "@top.qcow2", `${length}`];
    const plan = {
      seed: 0,
      setup: [{ does: "img" as const, words: create }],
      steps: [write(0), write(65_536), { does: "spoil" as const, offset: 65_536 }, write(1024)],
    };
    const { difference } = await runPlan(plan);
    expect(difference?.about).toBe("guest bytes of the twins");
    const short = await shrunken(plan, "guest bytes of the twins");
    expect(short.steps).toEqual([write(65_536), { does: "spoil", offset: 65_536 }]);
    const script = scriptOf(short, [...short.setup, ...short.steps], difference?.message ?? "");
    expect(script).toContain("theirs qemu-img create -q -f qcow2 top.qcow2 262144");
    expect(script).toContain("ours io -f qcow2 -c 'write -P 1 65536 512' top.qcow2");
  });

  test("planOf() must be the same for the same seed, and draw every kind of step", () => {
    expect(planOf(7)).toEqual(planOf(7));
    const plans = Array.from({ length: 60 }, (_, seed) => planOf(seed));
    const steps = plans.flatMap((plan) => [...plan.setup, ...plan.steps]);
    const kinds = new Set(
      steps.map((step) => (step.does === "img" ? String(step.words[0]) : step.does)),
    );
    expect([...kinds].sort()).toEqual(
      "adopt amend bitmap check commit convert create damage io judge measure raw rebase resize snapshot swap".split(
        " ",
      ),
    );
  });

  test("withoutMissing() must leave out what blk refuses by name, and nothing else", async () => {
    const plan = planOf(7);
    expect(withoutMissing(plan, new Set())).toEqual(plan);
    const missing = new Set(["snapshot", "lazy_refcounts=on", "check -r"]);
    const { setup, steps } = withoutMissing(plan, missing);
    const words = [...setup, ...steps].map((step) =>
      step.does === "img" ? step.words.join(" ") : "",
    );
    expect(words.filter((line) => /^snapshot|lazy_refcounts=on|^check.* -r/.test(line))).toEqual(
      [],
    );
    // What blk supports today must not fall out again.
    const found = await missingFeatures();
    expect([...found]).toEqual([]);
  });
});
