// One seed from its number to its verdict, and a failure to its shortest list.
import { shrinkList } from "@blocklayer/conformance/shrink";
import { configOf, isCrashes, isUpkeep } from "./config.mjs";
import { runCrashes } from "./crash-run.mjs";
import { operationsOf, simplerOperations } from "./operations.mjs";
import { QemuJudge } from "./qemu.mjs";
import { runSchedule } from "./schedule-run.mjs";
import { servicePlanOf } from "./service-plan.mjs";
import { runService } from "./service-run.mjs";
import { upkeepOperationsOf } from "./upkeep-operations.mjs";

const OPERATIONS = {
  schedules: 48,
  crashes: 32,
  "upkeep-schedules": 40,
  "upkeep-crashes": 24,
};
/** Runs that shrinking a list may take. */
const MAX_SHRINK_RUNS = 250;

/**
 * @typedef {object} Job
 * @property {import("./config.mjs").Mode} mode
 * @property {number} seed
 * @property {number} [qemuEvery] - one state in so many is judged by qemu-img too
 * @property {boolean} [shrink] - make the list of a failure short
 *
 * @typedef {object} Totals - counts of what was looked at
 * @property {number} [completions]
 * @property {number} [failedNodes]
 * @property {number} [states]
 * @property {number} [goneOn]
 * @property {number} [repaired]
 * @property {number} [cutOff] - states of repairs that were cut off
 * @property {number} [judged] - by qemu-img check
 * @property {number} [converted] - by qemu-img convert, and compared
 *
 * @typedef {object} Failure
 * @property {string} message
 * @property {import("./config.mjs").SimConfig} config
 * @property {readonly import("./operations.mjs").Operation[]} operations
 *
 * @typedef {{ seed: number, totals: Totals, failure?: Failure }} Verdict
 */

/** Faults of a seed: most schedules have some, a crash alone is trouble enough for most. */
function faultCount(mode, seed) {
  if (!isCrashes(mode)) return seed % 4;
  return seed % 3 === 0 ? 1 + (seed % 2) : 0;
}

/** What a seed stands for. */
export function planOf(mode, seed) {
  if (mode === "service-crashes") return servicePlanOf(seed);
  const config = configOf(mode, seed);
  const amount = { count: OPERATIONS[mode], faults: faultCount(mode, seed) };
  const listOf = isUpkeep(mode) ? upkeepOperationsOf : operationsOf;
  return { config, operations: listOf(config, amount) };
}

/**
 * @param {Job} job
 * @param {(problem?: string) => void} [onRun] - called before each run of it, with what was found so far
 * @returns {Promise<Verdict>}
 */
export async function runJob(job, onRun = () => undefined) {
  const { mode, seed } = job;
  const { config, operations } = planOf(mode, seed);
  onRun();
  try {
    return { seed, totals: await runPlan(mode, config, operations, job) };
  } catch (error) {
    const again = (list) => {
      onRun(error.message);
      return failureOf(mode, config, list);
    };
    const short = job.shrink === true ? await shortest(operations, again) : operations;
    const message = (await again(short)) ?? `only once: ${error.message}`;
    return { seed, totals: {}, failure: { message, config, operations: short } };
  }
}

/**
 * Runs a configuration and a list.
 *
 * @returns {Promise<Totals>}
 * @throws Violation
 */
export async function runPlan(mode, config, operations, { qemuEvery, seed = 0 } = {}) {
  if (!isCrashes(mode)) {
    const { completions, failed } = await runSchedule(config, operations);
    return { completions, failedNodes: failed ? 1 : 0 };
  }
  if (mode === "service-crashes") return await runService(config, operations);
  const judge = qemuEvery === undefined ? undefined : new QemuJudge(config);
  try {
    const onState = async (state, found) => {
      if (judge !== undefined && (state.index * 31 + seed * 7919) % qemuEvery === 0)
        await judge.judge(state, found);
    };
    return { ...(await runCrashes(config, operations, { onState })), ...judge?.totals };
  } finally {
    judge?.dispose();
  }
}

/** @returns the first lines of what goes wrong, or undefined */
async function failureOf(mode, config, operations) {
  try {
    await runPlan(mode, config, operations);
    return undefined;
  } catch (error) {
    return error.message;
  }
}

function shortest(operations, failureIn) {
  return shrinkList(operations, {
    stillFails: async (list) => (await failureIn(list)) !== undefined,
    simplerOnes: simplerOperations,
    maxAttempts: MAX_SHRINK_RUNS,
  });
}
