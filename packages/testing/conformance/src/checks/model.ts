/** Random operations against a flat byte array; a failure is shrunken and printed as code that runs. */
import { ConformanceError } from "../expectation.js";
import { type Operation, operationCode, randomOperations } from "../model/operations.js";
import { runOperations } from "../model/run.js";
import { shrinkOperations } from "../model/shrink.js";
import { Prng } from "../pattern.js";
import { type ConformanceCheck, DEFAULT_LENGTH_BYTES, type DriverSource } from "../source.js";
import { withDisk } from "../test-disk.js";

const DEFAULT_RUNS = 25;
const OPERATIONS_PER_RUN = 40;
/** Keeps the streams of consecutive runs apart. */
const RUN_SEED_STEP = 7919;

/** The check against the model. */
export const modelChecks: readonly ConformanceCheck[] = [
  {
    name: "random operations leave what the same operations leave in a byte array",
    run: async (source) => {
      const isReadOnly = await withDisk(source, async ({ driver }) =>
        driver.capabilities.write ? "passed" : { skipped: "the disk is read-only" },
      );
      if (isReadOnly !== "passed") return isReadOnly;
      const firstSeed = source.seed ?? 1;
      for (let run = 0; run < (source.modelRuns ?? DEFAULT_RUNS); run++) {
        await runSeed(source, firstSeed + run * RUN_SEED_STEP);
      }
      return "passed";
    },
  },
];

/** @throws ConformanceError with the shrunken list when disk and model differ */
async function runSeed(source: DriverSource, seed: number): Promise<void> {
  let operations: readonly Operation[] = [];
  let unit = 1;
  let partUnit = 1;
  await withDisk(source, async (disk) => {
    ({ unit, partUnit } = disk);
    operations = randomOperations(new Prng(seed), OPERATIONS_PER_RUN, {
      unit,
      lengthBytes: disk.usableBytes,
      limits: disk.driver.limits,
      capabilities: disk.driver.capabilities,
      canReopen: disk.canReopen,
    });
  });
  if ((await runOperations(source, operations)) === undefined) return;
  const stillFails = async (list: readonly Operation[]): Promise<boolean> =>
    (await runOperations(source, list)) !== undefined;
  const shortest = await shrinkOperations(operations, unit, stillFails);
  const failure = await runOperations(source, shortest);
  throw new ConformanceError(report(source, seed, shortest, partUnit, failure));
}

function report(
  source: DriverSource,
  seed: number,
  operations: readonly Operation[],
  partUnit: number,
  failure: Error | undefined,
): string {
  const verdict = failure?.message ?? "fails in the long list only (the failure is not repeatable)";
  const lines = [
    'import { IoVector } from "@blocklayer/bytes";',
    'import { pattern, split } from "@blocklayer/conformance";',
    `let disk = await open(${source.lengthBytes ?? DEFAULT_LENGTH_BYTES});`,
    ...operations.map((operation) => operationCode(operation, partUnit)),
    `// ${verdict}`,
  ];
  return `${source.name} (seed ${seed}): ${verdict}\n\n${lines.join("\n")}\n`;
}
