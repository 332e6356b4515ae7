import { expect, test } from "vitest";
import { andThen } from "../src/index.js";

test("andThen() must go on at once with a value, and later with a promise", async () => {
  expect(andThen(2, (value) => value * 2)).toBe(4);
  const later = andThen(Promise.resolve(2), (value) => value * 2);
  expect(later).toBeInstanceOf(Promise);
  expect(await later).toBe(4);
});

test("andThen() must let an error of either kind out in its own way", async () => {
  const fail = () => {
    throw new Error("no");
  };
  expect(() => andThen(1, fail)).toThrow("no");
  await expect(andThen(Promise.resolve(1), fail)).rejects.toThrow("no");
});
