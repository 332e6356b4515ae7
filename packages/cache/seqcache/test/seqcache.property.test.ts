/** Random work, with writes that end in any order or fail, against a model that knows every byte. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Model } from "./support/model.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 3000);
const CLUSTERS = 12;
const LONG = { timeout: Math.max(15_000, RUNS * 10) };

/** Each is a method of the model and its arguments, so that a failure prints as runnable lines. */
type Step =
  | readonly ["append", number]
  | readonly ["seek", number, number]
  | readonly ["nextFlush", boolean]
  | readonly ["settle", number, boolean]
  | readonly ["drop", number]
  | readonly ["read", number, number];

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 7,
    arbitrary: fc.tuple(fc.constant("append" as const), fc.integer({ min: 1, max: 5 })),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constant("append" as const), fc.integer({ min: 1, max: 40 })),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constant("seek" as const), fc.nat(CLUSTERS), fc.nat(31)) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("nextFlush" as const), fc.boolean()) },
  {
    weight: 5,
    arbitrary: fc.tuple(
      fc.constant("settle" as const),
      fc.nat(5),
      fc.integer({ min: 0, max: 3 }).map((roll) => roll > 0),
    ),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constant("drop" as const), fc.nat(CLUSTERS)) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("read" as const), fc.nat(383), fc.nat(60)) },
);

function run(model: Model, [kind, ...args]: Step): void {
  (model[kind] as (...args: unknown[]) => void).apply(model, args);
}

test("SeqCache must agree with a model that knows every byte, whatever ends when", LONG, () => {
  const kinds = new Map<string, number>();
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 8, 32),
      fc.array(step, { minLength: 1, maxLength: 80, size: "max" }),
      (clusterSize, steps) => {
        const model = new Model(clusterSize, CLUSTERS);
        for (const one of steps) {
          run(model, one);
          model.check();
        }
        const { handouts, putBacks, partialHits, droppedBytes } = model.cache.stats;
        for (const [kind, count] of Object.entries({
          handouts,
          putBacks,
          partialHits,
          droppedBytes,
        }))
          kinds.set(kind, (kinds.get(kind) ?? 0) + count);
        model.finish();
      },
    ),
    { numRuns: RUNS },
  );
  // The runs must have come to the corners that they are for.
  for (const count of kinds.values()) expect(count).toBeGreaterThan(RUNS / 10);
});
