// The differential test as a program: plans from a seed on, blk beside the real tools.
//
//   node src/differential.mjs [--seed 1] [--runs 100] [--jobs 2] [--minutes 10] [--failures FOLDER]
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { kindLines } from "./twins/kinds.mjs";
import { missingFeatures, withoutMissing } from "./twins/features.mjs";
import { planOf } from "./twins/plan.mjs";
import { runPlan, shrunken } from "./twins/run.mjs";
import { scriptOf } from "./twins/script.mjs";

/**
 * @typedef {object} Failure
 * @property {number} seed
 * @property {string} about
 * @property {string} report - seed, difference, the shortest list and its script
 */

/**
 * Runs the plans of seeds.
 *
 * @param {readonly number[]} seeds
 * @param {{jobs?: number, mayStart?: () => boolean, onFailure?: (failure: Failure) => void}} [options] - `mayStart` ends a
 *   run that has a bound in time
 * @returns {Promise<{runs: number, steps: number, failures: Failure[], excused: Map<string, number>,
 *   kinds: Map<string, {succeeded: number, refused: number}>, missing: ReadonlySet<string>}>}
 */
export async function runSeeds(seeds, { jobs = 2, mayStart = () => true, onFailure } = {}) {
  const missing = await missingFeatures();
  const queue = [...seeds];
  const total = { runs: 0, steps: 0, failures: [], excused: new Map(), kinds: new Map(), missing };
  const work = async () => {
    while (queue.length > 0 && mayStart()) {
      const plan = withoutMissing(planOf(queue.shift()), missing);
      const { difference, done, excused, kinds } = await runPlan(plan);
      total.runs++;
      total.steps += done.length;
      for (const [why, count] of excused)
        total.excused.set(why, (total.excused.get(why) ?? 0) + count);
      addKinds(total.kinds, kinds);
      if (difference === undefined) continue;
      const failure = await failureOf(plan, difference);
      total.failures.push(failure);
      onFailure?.(failure);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return total;
}

function addKinds(sums, kinds) {
  for (const [kind, { succeeded, refused }] of kinds) {
    const sum = sums.get(kind) ?? { succeeded: 0, refused: 0 };
    sums.set(kind, { succeeded: sum.succeeded + succeeded, refused: sum.refused + refused });
  }
}

async function failureOf(plan, difference) {
  const short = await shrunken(plan, difference.about);
  const { difference: again = difference, done } = await runPlan(short);
  const script = scriptOf(plan, done, again.message);
  const report = `seed ${plan.seed}: ${again.message}\n\n${script}`;
  return { seed: plan.seed, about: again.about, report };
}

async function main() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      runs: { type: "string", default: "100" },
      jobs: { type: "string", default: "2" },
      minutes: { type: "string", default: "1000" },
      failures: { type: "string" },
    },
  });
  const [seed, runs] = [Number(values.seed), Number(values.runs)];
  const seeds = Array.from({ length: runs }, (_, index) => seed + index);
  if (values.failures !== undefined) mkdirSync(values.failures, { recursive: true });
  const onFailure = ({ seed, about, report }) => {
    console.log(`seed ${seed}: ${about}`);
    if (values.failures === undefined) console.log(report);
    else writeFileSync(join(values.failures, `${seed}.sh`), report);
  };
  const end = Date.now() + Number(values.minutes) * 60_000;
  const mayStart = () => Date.now() < end;
  const result = await runSeeds(seeds, { jobs: Number(values.jobs), mayStart, onFailure });
  console.log(`${result.runs} lists, ${result.steps} steps, ${result.failures.length} differences`);
  console.log(
    `left out, since blk does not support it yet: ${[...result.missing].join(", ") || "nothing"}`,
  );
  for (const line of kindLines(result.kinds)) console.log(line);
  for (const [why, count] of result.excused) console.log(`${count} × ${why}`);
  process.exitCode = result.failures.length === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
