/** Registers the checks with vitest. All that a check does is in `checks/`; this file only gives it a name. */
import { describe, it } from "vitest";
import { conformanceChecks } from "./checks/index.js";
import type { DriverSource } from "./source.js";

/** Fuzzing for longer: `BLOCKLAYER_FUZZ_RUNS=1000 vitest run`. */
const RUNS_VARIABLE = "BLOCKLAYER_FUZZ_RUNS";
/** Of one check, when more runs are asked for than the default. */
const TIMEOUT_MS = 30_000;
const FUZZ_TIMEOUT_MS: number = 60 * 60_000;

/**
 * The tests that every block driver must pass.
 *
 * A check that does not apply (no `discard`, no `reopen`) shows as skipped, with the reason.
 *
 * @example driverSuite({ name: "memory", open: (lengthBytes) => openMemory({ lengthBytes }) });
 */
export function driverSuite(source: DriverSource): void {
  const runs = source.modelRuns ?? environmentNumber(RUNS_VARIABLE);
  const configured: DriverSource = runs === undefined ? source : { ...source, modelRuns: runs };
  const timeout = environmentNumber(RUNS_VARIABLE) === undefined ? TIMEOUT_MS : FUZZ_TIMEOUT_MS;
  describe(`BlockDriver contract: ${source.name}`, () => {
    for (const check of conformanceChecks) {
      // oxlint-disable-next-line vitest/valid-title, vitest/expect-expect -- a check expects by throwing
      it(check.name, { timeout }, async (context) => {
        const outcome = await check.run(configured);
        if (outcome !== "passed") context.skip(outcome.skipped);
      });
    }
  });
}

/** A number from the environment, where there is one: browsers have none. */
function environmentNumber(name: string): number | undefined {
  const host = globalThis as { process?: { env?: Readonly<Record<string, string | undefined>> } };
  const value = Number(host.process?.env?.[name]);
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}
