/** What the tests of the simulator share. */
import { availableParallelism } from "node:os";
import { readFileSync } from "node:fs";
import { runPlan } from "../src/job.mjs";
import { reportOf } from "../src/report.mjs";
import { simulate, summaryOf } from "../src/simulate.mjs";

type Wish = Parameters<typeof simulate>[0];
type Sum = Awaited<ReturnType<typeof simulate>>;
type Mode = Wish["mode"];

/** Two are enough to have one seed run while another starts. */
const WORKERS = Math.min(2, availableParallelism());

/** A run that failed once, shortened: it stays what it is when the generator changes. */
interface SavedPlan {
  readonly mode: Mode;
  readonly why: string;
  readonly config: Parameters<typeof runPlan>[1];
  readonly operations: Parameters<typeof runPlan>[2];
}

const saved = JSON.parse(readFileSync(new URL("../seeds.json", import.meta.url), "utf8"));
export const savedPlans: readonly SavedPlan[] = saved.plans;

/** Seeds that reach corners. */
export function savedSeeds(mode: Mode): readonly number[] {
  return saved[mode].map(({ seed }: { seed: number }) => seed);
}

/** Runs seeds; a violation is an error with its report. */
export async function mustHold(wish: Omit<Wish, "workers">): Promise<Sum> {
  const sum = await simulate({ shrink: true, ...wish, workers: WORKERS });
  const [verdict] = sum.failures;
  if (verdict?.failure !== undefined) {
    throw new Error(reportOf(wish.mode, verdict.seed, verdict.failure, wish.defect));
  }
  console.log(summaryOf(wish.mode, sum));
  return sum;
}

/** The first seed that catches a defect; undefined when none does. */
export async function catcherOf(
  mode: Mode,
  defect: string,
  seeds: number,
): Promise<number | undefined> {
  const sum = await simulate({ mode, first: 1, seeds, defect, workers: WORKERS });
  return sum.failures[0]?.seed;
}
