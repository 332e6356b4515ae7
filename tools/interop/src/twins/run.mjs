// Runs plans: to the end, or to the first difference, which is made as short as it gets.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { shrinkList } from "@blocklayer/conformance/shrink";
import { judge } from "./judge.mjs";
import { Difference, TwinPair } from "./twin-pair.mjs";

/** Runs that a failure may take to be made shorter. */
const MAX_ATTEMPTS = 120;

/**
 * @typedef {import("./plan.mjs").Plan} Plan
 * @typedef {object} Run
 * @property {Difference | undefined} difference - none when the twins stayed the same
 * @property {import("./plan.mjs").Step[]} done - the steps up to there
 * @property {Map<string, number>} excused - reasons of deliberate.mjs, and how often they were used
 * @property {Map<string, {succeeded: number, refused: number}>} kinds - of steps, and how often they ran
 */

/**
 * Follows a plan in two new folders, which are gone afterwards.
 *
 * @param {Plan} plan
 * @returns {Promise<Run>}
 */
export async function runPlan({ setup, steps }) {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-twins-"));
  const pair = new TwinPair(folder);
  try {
    let rest = [...setup, ...steps];
    while (rest.length > 0) {
      const next = rest.findIndex(({ does }) => does === "judge");
      await pair.follow(next < 0 ? rest : rest.slice(0, next));
      await judge(pair);
      rest = next < 0 ? [] : rest.slice(next + 1);
    }
    return { difference: undefined, done: pair.done, excused: pair.excused, kinds: pair.kinds };
  } catch (error) {
    // What is neither a difference nor an end is a failure of ours, too: a tool that broke down.
    const difference =
      error instanceof Difference
        ? error
        : new Difference(`failure: ${error.message.slice(0, 60)}`, error.stack, "");
    return { difference, done: pair.done, excused: pair.excused, kinds: pair.kinds };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * The shortest list of steps that still shows the same kind of difference.
 *
 * @param {Plan} plan
 * @param {string} about - the kind of difference
 * @returns {Promise<Plan>}
 */
export async function shrunken(plan, about) {
  const stillFails = async (steps) =>
    (await runPlan({ ...plan, steps })).difference?.about === about;
  const { setup } = plan;
  const steps = await shrinkList(plan.steps, {
    stillFails,
    simplerOnes,
    maxAttempts: MAX_ATTEMPTS,
  });
  return { ...plan, setup, steps };
}

/** Plainer requests: shorter ones. */
function simplerOnes(step) {
  if (step.does !== "io" || step.op.kind === "flush") return [];
  const { offset, length, kind } = step.op;
  const ways = [];
  if (step.op.fua) ways.push([{ ...step, op: { ...step.op, fua: false } }]);
  const half = Math.floor(length / 2 / 512) * 512;
  if (half > 0 && kind !== "compressed") {
    ways.push([{ ...step, op: { ...step.op, length: half } }]);
    ways.push([{ ...step, op: { ...step.op, offset: offset + half, length: length - half } }]);
  }
  return ways;
}
