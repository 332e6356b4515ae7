import { describe, expect, test } from "vitest";
import { WriteOrder } from "../src/repair/write-order.js";

const SECTOR = 512;
/** Clusters of two sectors. */
const CLUSTER = 2 * SECTOR;

function stepsOf(order: WriteOrder, sectors: readonly number[]): number[][] {
  return order.stepsFor(sectors).map((step) => [...step].sort((a, b) => a - b));
}

describe("WriteOrder", () => {
  test("must write all at once where nothing waits", () => {
    expect(stepsOf(new WriteOrder(CLUSTER), [1, 2, 3])).toEqual([[1, 2, 3]]);
    expect(stepsOf(new WriteOrder(CLUSTER), [])).toEqual([]);
  });

  test("must write an entry before any sector of the cluster that it named", () => {
    const order = new WriteOrder(CLUSTER);
    order.keepUntil(8 * SECTOR + 16, 2);
    expect(stepsOf(order, [4, 5, 6, 8])).toEqual([
      [6, 8],
      [4, 5],
    ]);
  });

  test("must wait for every entry, those that are not planned any more apart", () => {
    const order = new WriteOrder(CLUSTER);
    for (const entry of [8, 10, 12]) order.keepUntil(entry * SECTOR, 2);
    expect(stepsOf(order, [4, 8, 10])).toEqual([[8, 10], [4]]);
  });

  test("must write a chain from its end", () => {
    const order = new WriteOrder(CLUSTER);
    order.keepUntil(8 * SECTOR, 3);
    order.keepUntil(6 * SECTOR, 2);
    expect(stepsOf(order, [4, 6, 8])).toEqual([[8], [6], [4]]);
  });

  test("must let a sector go that waits for itself alone, before the others of its cluster", () => {
    const order = new WriteOrder(CLUSTER);
    order.keepUntil(4 * SECTOR, 2);
    expect(stepsOf(order, [4, 5])).toEqual([[4], [5]]);
  });

  test("must end where two tables wait for each other, and in long chains", () => {
    const circle = new WriteOrder(CLUSTER);
    circle.keepUntil(4 * SECTOR, 3);
    circle.keepUntil(6 * SECTOR, 2);
    expect(stepsOf(circle, [4, 6, 9])).toEqual([[9], [4, 6]]);
    const chain = new WriteOrder(CLUSTER);
    const sectors = Array.from({ length: 100 }, (_, i) => 2 * i);
    for (const sector of sectors) chain.keepUntil((sector + 2) * SECTOR, sector / 2);
    const steps = stepsOf(chain, sectors);
    expect(steps).toHaveLength(16);
    expect(steps.flat().sort((a, b) => a - b)).toEqual(sectors);
  });
});
