import { AssertionError } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DisjointRanges } from "../src/disjoint-ranges.js";

interface Range {
  readonly offset: number;
  readonly end: number;
}

describe("DisjointRanges", () => {
  test("must find what a plain list finds, while hundreds of ranges come and go", {
    timeout: 60_000,
  }, () => {
    // Each number puts a range there, or takes away the one that is there.
    const toggles = fc.array(fc.nat({ max: 700 }), { maxLength: 1500, size: "max" });
    const queries = fc.array(fc.tuple(fc.nat({ max: 7100 }), fc.integer({ min: 1, max: 300 })), {
      minLength: 5,
      maxLength: 20,
    });
    fc.assert(
      fc.property(toggles, queries, (slots, asked) => {
        const ranges = new DisjointRanges<Range>();
        const model = new Map<number, Range>();
        for (const slot of slots) {
          const known = model.get(slot);
          if (known === undefined) {
            const range = { offset: slot * 10 + (slot % 3), end: slot * 10 + 10 - (slot % 4) };
            ranges.insert(range);
            model.set(slot, range);
          } else {
            ranges.remove(known);
            model.delete(slot);
          }
          expect(ranges.size).toBe(model.size);
        }
        const sorted = [...model.values()].sort((a, b) => a.offset - b.offset);
        expect(ranges.overlapping(0, Number.MAX_SAFE_INTEGER)).toEqual(sorted);
        for (const [offset, length] of asked) {
          const end = offset + length;
          expect(ranges.firstEndingAfter(offset)).toBe(sorted.find((range) => range.end > offset));
          expect(ranges.overlapping(offset, end)).toEqual(
            sorted.filter((range) => range.offset < end && range.end > offset),
          );
        }
        for (const range of sorted) ranges.remove(range);
        expect(ranges.size).toBe(0);
        expect(ranges.firstEndingAfter(0)).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });

  test("remove() of what is not there must fail an assertion", () => {
    const ranges = new DisjointRanges<Range>();
    expect(() => ranges.remove({ offset: 0, end: 1 })).toThrow(AssertionError);
    ranges.insert({ offset: 0, end: 1 });
    expect(() => ranges.remove({ offset: 0, end: 1 })).toThrow(AssertionError);
    expect(ranges.size).toBe(1);
  });
});
