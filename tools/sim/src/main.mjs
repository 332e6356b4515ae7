#!/usr/bin/env node
// Simulates seeds from the command line: see README.md. Exit status: 0 all held, 1 a violation, 2 a wrong word.
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { describeConfig, isCrashes } from "./config.mjs";
import { DEFECTS } from "./defects.mjs";
import { planOf } from "./job.mjs";
import { hasQemuImg } from "./qemu.mjs";
import { reportOf } from "./report.mjs";
import { simulate, summaryOf } from "./simulate.mjs";

const MODES = ["schedules", "crashes", "upkeep-schedules", "upkeep-crashes", "service-crashes"];

const HELP = `usage: npm run sim -- MODE [options]

MODE
  schedules        requests side by side in a seeded order, with faults
  crashes          every state that a power failure may leave of a run
  upkeep-schedules, upkeep-crashes    the same, with snapshots, bitmaps, other lengths, other options and repairs
  service-crashes  crashes of jobs over whole images: commit, rebase, create
  teeth            deliberate defects, each of which must be caught
options
  --seeds A..B     these seeds (schedules: 1..1000 by default)
  --states N       crashes: go on until so many states were looked at (by default 100000)
  --seed N         one seed, with its list of operations
  --workers N      processes, by default one for each processor
  --qemu N         crashes: have about so many states judged by qemu-img as well
  --defect NAME    take a safeguard out: ${Object.keys(DEFECTS).join(", ")}
  --keep-going     all seeds, also after a violation
  --help`;

const PROGRESS_MS = 5000;
/** States of a seed, more or less: spreads what qemu-img judges over all of them. */
const DEFAULT_STATES = 100_000;
const DEFAULT_SEEDS = 1000;

process.exitCode = await main(process.argv.slice(2));

async function main(words) {
  let parsed;
  try {
    parsed = parse(words);
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    return 2;
  }
  if (parsed === undefined) {
    console.log(HELP);
    return 0;
  }
  return parsed.mode === "teeth" ? await teeth(parsed) : await run(parsed);
}

function parse(words) {
  const { values, positionals } = parseArgs({
    args: words,
    allowPositionals: true,
    options: {
      seeds: { type: "string" },
      states: { type: "string" },
      seed: { type: "string" },
      workers: { type: "string" },
      qemu: { type: "string" },
      defect: { type: "string" },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const [mode, ...others] = positionals;
  if (![...MODES, "teeth"].includes(mode ?? "") || others.length > 0) {
    throw new Error(`the first word is one of ${MODES.join(", ")}, teeth`);
  }
  if (values.defect !== undefined && DEFECTS[values.defect] === undefined) {
    throw new Error(`there is no defect '${values.defect}'`);
  }
  const number = (name) => (values[name] === undefined ? undefined : numberOf(name, values[name]));
  const seed = number("seed");
  const range = values.seeds === undefined ? undefined : rangeOf(values.seeds);
  return {
    mode,
    seed,
    first: seed ?? range?.first ?? 1,
    seeds: seed === undefined ? range?.seeds : 1,
    states: number("states"),
    workers: number("workers") ?? availableParallelism(),
    qemu: number("qemu") ?? 0,
    defect: values.defect,
    keepGoing: values["keep-going"],
  };
}

function numberOf(name, text) {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new Error(`--${name} takes a whole number, not '${text}'`);
}

function rangeOf(text) {
  const match = /^(\d+)\.\.(\d+)$/.exec(text);
  if (match === null) throw new Error(`--seeds takes A..B, not '${text}'`);
  const first = Number(match[1]);
  return { first, seeds: Number(match[2]) - first + 1 };
}

async function run(wish) {
  const { mode, seed, defect, keepGoing } = wish;
  if (seed !== undefined) printPlan(mode, seed);
  const hasStates = isCrashes(mode);
  const states =
    hasStates && wish.seeds === undefined ? (wish.states ?? DEFAULT_STATES) : wish.states;
  const seeds = wish.seeds ?? (hasStates ? undefined : DEFAULT_SEEDS);
  const sum = await simulate({
    ...wish,
    ...(seeds === undefined ? {} : { seeds }),
    ...(states === undefined ? {} : { states }),
    ...qemuShare(wish, states),
    shrink: true,
    maxFailures: keepGoing ? Number.POSITIVE_INFINITY : 1,
    onProgress: progress(mode),
  });
  for (const verdict of sum.failures) {
    console.log(reportOf(mode, verdict.seed, verdict.failure, defect));
  }
  console.log(summaryOf(mode, sum));
  return sum.failures.length === 0 ? 0 : 1;
}

function qemuShare({ mode, qemu, seeds = 1 }, states = seeds * 200) {
  if (!isCrashes(mode) || qemu === 0 || !hasQemuImg()) return {};
  return { qemuEvery: Math.max(1, Math.floor(states / qemu)) };
}

function printPlan(mode, seed) {
  const { config, operations } = planOf(mode, seed);
  if (config.service === undefined) console.log(describeConfig(config));
  console.log(JSON.stringify(config));
  for (const operation of operations) console.log(JSON.stringify(operation));
}

function progress(mode) {
  let last = performance.now();
  return (sum) => {
    if (performance.now() - last < PROGRESS_MS) return;
    last = performance.now();
    console.error(summaryOf(mode, sum));
  };
}

/** Every defect must be caught within the seeds that it names. */
async function teeth({ workers, defect: only }) {
  const missed = [];
  const names = only === undefined ? Object.keys(DEFECTS) : [only];
  for (const name of names) {
    const { mode, seeds, rule, what, hidden } = DEFECTS[name];
    if (hidden !== undefined) {
      console.log(
        `${name} [${rule}]: cannot show here; ${hidden.file} has the test: ${hidden.test}`,
      );
      continue;
    }
    const sum = await simulate({ mode, first: 1, seeds, workers, defect: name });
    const [caught] = sum.failures;
    const verdict =
      caught === undefined ? `NOT caught in ${seeds} seeds` : `caught by seed ${caught.seed}`;
    console.log(
      `${name} [${rule}]: ${verdict}, ${(sum.milliseconds / 1000).toFixed(1)} s: ${what}`,
    );
    if (caught === undefined) missed.push(name);
  }
  console.log(`teeth: ${missed.length} of ${names.length} defects missed that must be caught`);
  return missed.length === 0 ? 0 : 1;
}
