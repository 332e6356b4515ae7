import fc from "fast-check";
import { expect, test } from "vitest";
import { firstNonZero, isZero } from "../src/index.js";
import { firstNonZeroByLoop } from "../src/zero.js";

test("firstNonZero() must find the byte wherever it stands, at any start, end and alignment", () => {
  const bytes = new Uint8Array(300);
  fc.assert(
    fc.property(
      fc.nat(7),
      fc.nat(290),
      fc.nat(290),
      fc.option(fc.nat(290), { nil: undefined }),
      fc.integer({ min: 1, max: 255 }),
      (skew, a, b, at, value) => {
        const window = bytes.subarray(skew, skew + 290);
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        if (at !== undefined) window[at] = value;
        const found = at !== undefined && at >= start && at < end ? at : end;
        expect(firstNonZero(window, start, end)).toBe(found);
        expect(isZero(window, start, end)).toBe(found === end);
        window.fill(0);
      },
    ),
    { numRuns: 2000 },
  );
});

test("isZero() must hold of nothing at all", () => {
  expect(isZero(new Uint8Array(0))).toBe(true);
  expect(isZero(new Uint8Array([1]), 1, 1)).toBe(true);
});

test("firstNonZero() must scan shared memory too", () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(8192));
  expect(isZero(bytes)).toBe(true);
  bytes[8191] = 1;
  expect(firstNonZero(bytes)).toBe(8191);
});

test("firstNonZero() and its portable loop must agree on long buffers of any kind", () => {
  const longest = 200_000;
  const stores = [new ArrayBuffer(longest + 8), new SharedArrayBuffer(longest + 8)];
  fc.assert(
    fc.property(
      fc.constantFrom(...stores),
      fc.nat(7),
      fc.nat(longest),
      fc.nat(longest),
      fc.option(fc.nat(longest - 1), { nil: undefined }),
      (store, skew, a, b, at) => {
        const window = new Uint8Array(store, skew, longest);
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        if (at !== undefined) window[at] = 1;
        const found = at !== undefined && at >= start && at < end ? at : end;
        expect(firstNonZero(window, start, end)).toBe(found);
        expect(firstNonZeroByLoop(window, start, end)).toBe(found);
        if (at !== undefined) window[at] = 0;
      },
    ),
    { numRuns: 300 },
  );
});
