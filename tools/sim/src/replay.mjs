// Runs one configuration and one list again: what a report's program calls.
import { introduceDefect } from "./defects.mjs";

/**
 * @param {import("./config.mjs").Mode} mode
 * @param {import("./config.mjs").SimConfig} config
 * @param {readonly import("./operations.mjs").Operation[]} operations
 * @param {{ defect?: string }} [options]
 * @throws Violation when it still fails
 */
export async function replay(mode, config, operations, { defect } = {}) {
  if (defect !== undefined) introduceDefect(defect);
  const { runPlan } = await import("./job.mjs");
  const totals = await runPlan(mode, config, operations);
  console.log(`nothing is wrong any more: ${JSON.stringify(totals)}`);
}
