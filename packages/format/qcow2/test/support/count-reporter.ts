/** Adds up what tests count in lines like `crash states: 691 (case)`, and says it at the end of the run. */
import type { Reporter } from "vitest/node";

const COUNTED = /^(mutated images|crash states): (\d+)/gm;

/** A vitest reporter. */
export function countReporter(): Reporter {
  const totals = new Map<string, number>();
  return {
    onTestRunStart(): void {
      totals.clear();
    },
    onUserConsoleLog({ content }): void {
      for (const [, what, count] of content.matchAll(COUNTED)) {
        totals.set(what as string, (totals.get(what as string) ?? 0) + Number(count));
      }
    },
    onTestRunEnd(): void {
      for (const [what, count] of totals) process.stdout.write(`\n${what} in all: ${count}\n`);
    },
  };
}
