import { expect, test } from "vitest";
import { Random } from "../src/index.js";

const take = (random: Random, count: number): number[] =>
  Array.from({ length: count }, () => random.uint32());

test("Random must give the same numbers for the same seed on every machine", () => {
  expect(take(new Random(42), 3)).toEqual([89176021, 3208728938, 3901633241]);
});

test("Random must give other numbers for other seeds, those above 32 bits too", () => {
  const seeds = [0, 1, 2, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];
  const streams = seeds.map((seed) => take(new Random(seed), 4).join(","));
  expect(new Set(streams).size).toBe(seeds.length);
});

test("below() must reach every number under the limit and none else", () => {
  const random = new Random(3);
  const counts = Array.from({ length: 7 }, () => 0);
  for (let i = 0; i < 7000; i++) {
    const value = random.below(7);
    counts[value] = (counts[value] ?? Number.NaN) + 1;
  }
  expect(counts).toHaveLength(7);
  for (const count of counts) expect(count).toBeGreaterThan(800);
});

test("fork() must not be disturbed by the stream that it came from", () => {
  const left = new Random(9);
  const right = new Random(9);
  const forkOfLeft = left.fork();
  const forkOfRight = right.fork();
  take(left, 100);
  expect(take(forkOfLeft, 5)).toEqual(take(forkOfRight, 5));
});

test("shuffled() must keep the items and leave the array alone", () => {
  const items = [1, 2, 3, 4, 5, 6, 7, 8];
  const shuffled = new Random(1).shuffled(items);
  expect(items).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(shuffled).not.toEqual(items);
  expect(shuffled.toSorted((a, b) => a - b)).toEqual(items);
});
