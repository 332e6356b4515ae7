// Many seeds, counted: what the command line, the tests and CI share.
import { isCrashes } from "./config.mjs";
import { runPool } from "./pool.mjs";

/**
 * @typedef {object} Wish
 * @property {import("./config.mjs").Mode} mode
 * @property {number} first - the first seed; those after it follow
 * @property {number} [seeds] - how many
 * @property {readonly number[]} [list] - these seeds instead
 * @property {number} [states] - go on until so many states were looked at
 * @property {number} [qemuEvery]
 * @property {number} workers
 * @property {string} [defect]
 * @property {string} [program] - what the processes run: see pool.mjs
 * @property {boolean} [shrink]
 * @property {number} [maxFailures] - stop after so many, by default 1
 * @property {number} [budgetMs] - begin no more seeds after so long: what was asked for is then cut short
 * @property {(sum: Sum) => void} [onProgress] - called after each seed
 *
 * @typedef {object} Sum
 * @property {number} seeds
 * @property {import("./job.mjs").Totals} totals
 * @property {import("./job.mjs").Verdict[]} failures - in the order of their seeds, from the lowest that fails
 * @property {boolean} cutShort - the budget ended it
 * @property {number} milliseconds
 */

/** @param {Wish} wish @returns {Promise<Sum>} */
export async function simulate(wish) {
  const { workers, defect, program, states = Number.POSITIVE_INFINITY, maxFailures = 1 } = wish;
  const { budgetMs = Number.POSITIVE_INFINITY } = wish;
  const begin = performance.now();
  /** @type {Sum} */
  const sum = { seeds: 0, totals: {}, failures: [], cutShort: false, milliseconds: 0 };
  const onVerdict = (verdict) => {
    sum.seeds++;
    for (const [name, count] of Object.entries(verdict.totals)) {
      sum.totals[name] = (sum.totals[name] ?? 0) + count;
    }
    if (verdict.failure !== undefined) sum.failures.push(verdict);
    sum.milliseconds = performance.now() - begin;
    wish.onProgress?.(sum);
    if (sum.failures.length >= maxFailures || (sum.totals.states ?? 0) >= states) return false;
    sum.cutShort = sum.milliseconds >= budgetMs;
    return !sum.cutShort;
  };
  await runPool(jobsOf(wish), {
    workers,
    ...(defect === undefined ? {} : { defect }),
    ...(program === undefined ? {} : { program }),
    onVerdict,
  });
  const hasEnough = (sum.totals.states ?? 0) >= states || sum.failures.length >= maxFailures;
  sum.cutShort &&= !hasEnough && sum.seeds < (wish.list?.length ?? wish.seeds ?? states);
  // Seeds begin in their order, and what has begun is waited for: no lower seed fails than the first here.
  sum.failures.sort((one, other) => one.seed - other.seed);
  return sum;
}

function* jobsOf({ mode, first, seeds = Number.POSITIVE_INFINITY, list, qemuEvery, shrink }) {
  const job = (seed) => ({
    mode,
    seed,
    ...(qemuEvery === undefined ? {} : { qemuEvery }),
    ...(shrink === undefined ? {} : { shrink }),
  });
  if (list !== undefined) yield* list.map(job);
  else for (let seed = first; seed < first + seeds; seed++) yield job(seed);
}

/** The totals in one line. */
export function summaryOf(mode, /** @type {Sum} */ sum) {
  const { seeds, totals, failures, cutShort, milliseconds } = sum;
  const seconds = milliseconds / 1000;
  const words = [`${mode}: ${seeds} seeds`];
  if (isCrashes(mode)) {
    const { states = 0, goneOn = 0, judged = 0, converted = 0, repaired = 0, cutOff = 0 } = totals;
    words.push(`${states} states`, `${goneOn} of them written to again`);
    if (repaired > 0) words.push(`${repaired} repaired, ${cutOff} states of repairs cut off`);
    if (judged > 0) words.push(`${judged} checked by qemu-img, ${converted} converted`);
    words.push(`${Math.round(states / seconds)} states/s`);
  } else {
    const { completions = 0, failedNodes = 0 } = totals;
    words.push(`${completions} completions`, `${failedNodes} nodes failed`);
    words.push(`${Math.round(seeds / seconds)} seeds/s`);
  }
  words.push(`${seconds.toFixed(1)} s`, `${failures.length} violations`);
  if (cutShort)
    words.push("CUT SHORT: the time for it is over, and not all that was asked for ran");
  return words.join(", ");
}
