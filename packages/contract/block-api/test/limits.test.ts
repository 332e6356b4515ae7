import { AssertionError } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { limitsOf, UNLIMITED } from "../src/index.js";

test("limitsOf() must fill in what is not given", () => {
  expect(limitsOf({})).toEqual(UNLIMITED);
  expect(limitsOf({ requestAlignment: 512 })).toEqual({ ...UNLIMITED, requestAlignment: 512 });
});

test.each([
  { requestAlignment: 3 },
  { requestAlignment: 0 },
  { memoryAlignment: 513 },
  { maxTransfer: 0 },
  { requestAlignment: 512, maxTransfer: 700 },
])("limitsOf() must refuse %o", (given) => {
  expect(() => limitsOf(given)).toThrow(AssertionError);
});
