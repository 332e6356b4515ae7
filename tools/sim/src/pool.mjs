// Seeds on several processes: one seed at a time for each, and a watch over those that do not come back.
//
// A run that waits for ever is found by its scheduler, or by at-once.mjs; one that goes round in circles, or ends its
// process, only from outside. It is a failure of its seed as any other, and the next seeds go to a new process.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { planOf } from "./job.mjs";

const WORKER = fileURLToPath(new URL("./worker.mjs", import.meta.url));
/** For one run of a list, which takes a tenth of a second, or two for the longest: so much more is no busy machine. */
const DEFAULT_TIMEOUT_MS = 180_000;

/**
 * Runs jobs until there are none left, or `onVerdict` wants no more.
 *
 * @param {Iterator<import("./job.mjs").Job>} jobs
 * @param {object} options
 * @param {number} options.workers
 * @param {string} [options.defect]
 * @param {number} [options.timeoutMs] - for one run of a seed's list
 * @param {string} [options.program] - what the processes run, by default worker.mjs
 * @param {(verdict: import("./job.mjs").Verdict) => boolean} options.onVerdict - whether to go on
 * @throws Error when the simulator itself is broken
 */
export async function runPool(
  jobs,
  { workers, defect, timeoutMs = DEFAULT_TIMEOUT_MS, program = WORKER, onVerdict },
) {
  let isOver = false;
  const next = () => {
    if (isOver) return undefined;
    const { value, done } = jobs.next();
    return done ? undefined : value;
  };
  const lane = async () => {
    const worker = new Worker({ defect, timeoutMs, program });
    try {
      for (let job = next(); job !== undefined; job = next()) {
        if (!onVerdict(await worker.run(job))) isOver = true;
      }
    } finally {
      isOver = true;
      worker.end();
    }
  };
  await Promise.all(Array.from({ length: workers }, lane));
}

/** One process; started when it is first needed, and anew after it was given up. */
class Worker {
  #options;
  #process;

  constructor(options) {
    this.#options = options;
  }

  /** @returns {Promise<import("./job.mjs").Verdict>} */
  run(job) {
    const { defect, timeoutMs, program } = this.#options;
    this.#process ??= fork(program);
    const child = this.#process;
    return new Promise((resolve, reject) => {
      let timer;
      let problem;
      const done = (settle) => {
        clearTimeout(timer);
        child.removeAllListeners();
        settle();
      };
      const giveUp = (why) =>
        done(() => {
          this.end();
          resolve(givenUp(job, why, problem));
        });
      const watch = (milliseconds) => {
        clearTimeout(timer);
        timer = setTimeout(() => giveUp(`has not ended after ${milliseconds} ms`), milliseconds);
      };
      // Its process may have to start first.
      watch(Math.max(timeoutMs, DEFAULT_TIMEOUT_MS));
      child.once("exit", (code, signal) => giveUp(`has ended its process: ${signal ?? code}`));
      child.on("message", ({ run, verdict, crash }) => {
        if (run !== undefined) {
          ({ problem } = run);
          watch(timeoutMs);
        } else if (crash !== undefined) {
          const error = new Error(`${job.mode}: seed ${job.seed} broke the simulator:\n${crash}`);
          done(() => reject(error));
        } else done(() => resolve(verdict));
      });
      child.send({ job, defect });
    });
  }

  /** Also one that goes round in circles and hears no signal that it may handle. */
  end() {
    this.#process?.kill("SIGKILL");
    this.#process = undefined;
  }
}

/** The verdict on a seed whose process was given up. */
function givenUp({ mode, seed }, why, problem) {
  const message =
    problem === undefined
      ? `the run ${why}`
      : `${problem}\n(and a run of a shorter list ${why}, so this one is as it was)`;
  return { seed, totals: {}, failure: { message, ...planOf(mode, seed) } };
}
