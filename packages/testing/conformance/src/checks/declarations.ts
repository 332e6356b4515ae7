/** What a driver says of itself: its name, its limits, what it can do. */
import { assert, isPowerOfTwo } from "@blocklayer/bytes";
import { type BlockCapabilities, limitsOf } from "@blocklayer/block-api";
import { errorOf, expectThat, textOf } from "../expectation.js";
import type { ConformanceCheck } from "../source.js";
import { withDisk } from "../test-disk.js";

const DEFAULT_EXPECTATION: Partial<BlockCapabilities> = { write: true };

/** Checks of declarations. */
export const declarationChecks: readonly ConformanceCheck[] = [
  {
    name: "limits hold together: powers of two, multiples, lengths that are positive",
    run: (source) =>
      withDisk(source, async ({ driver }) => {
        const limits = driver.limits;
        const error = await errorOf(() => limitsOf(limits));
        expectThat(error === undefined, `limits: ${textOf(error)}`);
        expectThat(limits.maxWriteZeroes >= limits.requestAlignment, "maxWriteZeroes is usable");
        expectThat(limits.maxDiscard >= limits.requestAlignment, "maxDiscard is usable");
        for (const value of [limits.writeZeroesAlignment, limits.discardAlignment]) {
          expectThat(Number.isSafeInteger(value) && value >= 1, `alignment ${value} is usable`);
        }
        assert(isPowerOfTwo(limits.requestAlignment), "limitsOf has checked it");
      }),
  },
  {
    name: "driverName is a word, lengthBytes a safe integer",
    run: (source) =>
      withDisk(source, async ({ driver }) => {
        expectThat(/^[a-z0-9][a-z0-9_-]*$/.test(driver.driverName), "driverName is a word");
        const length = driver.lengthBytes;
        expectThat(Number.isSafeInteger(length) && length > 0, `lengthBytes ${length} is a length`);
      }),
  },
  {
    name: "capabilities are what the source promises",
    run: (source) =>
      withDisk(source, async ({ driver }) => {
        const expected = { ...DEFAULT_EXPECTATION, ...source.capabilities };
        for (const [name, value] of Object.entries(expected)) {
          const actual = driver.capabilities[name as keyof BlockCapabilities];
          expectThat(actual === value, `capability '${name}' is ${actual}, must be ${value}`);
        }
      }),
  },
];
