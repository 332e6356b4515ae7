import { expect, test } from "vitest";
import { drawMap, tally } from "../src/sample/draw-map.js";

test("drawMap() must show a single byte of data, and the kind of most of a cell's data", () => {
  const cell = 1024;
  const total = 256 * cell;
  const drawn = drawMap(
    [
      { kind: "zero", bytes: cell - 1 },
      { kind: "data", bytes: 1 },
      { kind: "compressed", bytes: 2 * cell },
      { kind: "zero", bytes: total - 3 * cell },
    ],
    total,
  );
  const rows = drawn.split("\n").slice(0, 4);
  expect(rows[0]).toBe(`  █▓▓${"·".repeat(61)}`);
  for (const row of rows.slice(1)) expect(row).toBe(`  ${"·".repeat(64)}`);
});

test("tally() must add up bytes by kind", () => {
  expect(
    tally([
      { kind: "zero", bytes: 5 },
      { kind: "data", bytes: 2 },
      { kind: "zero", bytes: 1 },
    ]),
  ).toEqual({ zero: 6, data: 2, compressed: 0 });
});
