import { describe, expect, test } from "vitest";
import { DEFECTS } from "../src/defects.mjs";
import { catcherOf } from "../test/support.js";

describe("the simulator", () => {
  const visible = Object.entries(DEFECTS).filter(([, { hidden }]) => hidden === undefined);
  test.each(visible)("must catch the defect %s", async (name, { mode, seeds }) => {
    expect(await catcherOf(mode, name, seeds)).toBeLessThanOrEqual(seeds);
  });
});
