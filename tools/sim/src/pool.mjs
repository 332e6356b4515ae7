// Seeds on several processes: one seed at a time for each, and a watch over those that do not come back.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

const WORKER = fileURLToPath(new URL("./worker.mjs", import.meta.url));
/** A seed takes a second; shrinking takes some hundred runs of it. What takes longer hangs. */
const DEFAULT_TIMEOUT_MS = 600_000;

/**
 * Runs jobs until there are none left, or `onVerdict` wants no more.
 *
 * @param {Iterator<import("./job.mjs").Job>} jobs
 * @param {object} options
 * @param {number} options.workers
 * @param {string} [options.defect]
 * @param {number} [options.timeoutMs] - for one seed
 * @param {(verdict: import("./job.mjs").Verdict) => boolean} options.onVerdict - whether to go on
 */
export async function runPool(
  jobs,
  { workers, defect, timeoutMs = DEFAULT_TIMEOUT_MS, onVerdict },
) {
  let isOver = false;
  const next = () => {
    if (isOver) return undefined;
    const { value, done } = jobs.next();
    return done ? undefined : value;
  };
  const lane = async () => {
    const worker = new Worker(defect, timeoutMs);
    try {
      for (let job = next(); job !== undefined; job = next()) {
        if (!onVerdict(await worker.run(job))) isOver = true;
      }
    } finally {
      worker.end();
    }
  };
  await Promise.all(Array.from({ length: workers }, lane));
}

/** One process; started when it is first needed, and anew after it was given up. */
class Worker {
  #process;

  constructor(defect, timeoutMs) {
    this.defect = defect;
    this.timeoutMs = timeoutMs;
  }

  /** @returns {Promise<import("./job.mjs").Verdict>} */
  run(job) {
    this.#process ??= fork(WORKER);
    const child = this.#process;
    return new Promise((resolve, reject) => {
      const done = (settle) => {
        clearTimeout(timer);
        child.removeAllListeners();
        settle();
      };
      const giveUp = (why) =>
        done(() => {
          this.end();
          reject(new Error(`${job.mode}: seed ${job.seed} ${why}`));
        });
      const timer = setTimeout(
        () => giveUp(`has not ended after ${this.timeoutMs} ms`),
        this.timeoutMs,
      );
      child.once("exit", (code, signal) => giveUp(`ended its process: ${signal ?? code}`));
      child.once("message", ({ verdict, crash }) => {
        if (crash !== undefined) giveUp(`broke the simulator:\n${crash}`);
        else done(() => resolve(verdict));
      });
      child.send({ job, defect: this.defect });
    });
  }

  end() {
    this.#process?.kill();
    this.#process = undefined;
  }
}
