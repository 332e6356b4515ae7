import { describe, expect, test } from "vitest";
import { DEFECTS } from "../src/defects.mjs";
import { catcherOf } from "./support.js";

/** Those that show within a few seeds; test:long tries all. */
const QUICK = Object.entries(DEFECTS).filter(([, { quick }]) => quick === true);

describe("the simulator", () => {
  test.each(QUICK)("must catch the defect %s", async (name, { mode, seeds }) => {
    expect(await catcherOf(mode, name, seeds)).toBeLessThanOrEqual(seeds);
  });
});
