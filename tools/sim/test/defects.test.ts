import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { DEFECTS } from "../src/defects.mjs";
import { catcherOf } from "./support.js";

/** Those that show within a few seeds; test:long tries all. */
const QUICK = Object.entries(DEFECTS).filter(([, { quick }]) => quick === true);

describe("the simulator", () => {
  test.each(QUICK)("must catch the defect %s", async (name, { mode, seeds }) => {
    expect(await catcherOf(mode, name, seeds)).toBeLessThanOrEqual(seeds);
  });

  test("must have a defect for each order between writes that the driver keeps", async () => {
    const index = import.meta.resolve("@blocklayer/qcow2");
    const orders: object = await import(new URL("writeback/order.js", index).href);
    const taken = Object.values(DEFECTS).map(
      ({ find }) => /^export function (\w+)/.exec(find)?.[1],
    );
    expect(Object.keys(orders).filter((name) => !taken.includes(name))).toEqual([]);
  });

  const hidden = Object.entries(DEFECTS).flatMap(([name, defect]) =>
    defect.hidden === undefined ? [] : [{ name, ...defect.hidden }],
  );
  test.each(hidden)("must name a test that is there for the defect $name", (proof) => {
    const file = new URL(`../../../packages/${proof.file}`, import.meta.url);
    expect(readFileSync(file, "utf8")).toContain(`"${proof.test}"`);
  });
});
