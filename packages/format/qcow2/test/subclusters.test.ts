import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { COMPRESSED_HIGH, COPIED_HIGH, ENTRY_KIND, geometryOf } from "../src/geometry.js";
import {
  highestOf,
  lowestOf,
  maskOf,
  subclusterKind,
  subclustersAlike,
  touchedSubclusters,
} from "../src/mapping/subclusters.js";

const ALL = 0xffff_ffff;
const HOST = 0x50000;

function bitsOf(mask: number): number[] {
  return Array.from({ length: 32 }, (_, i) => i).filter((i) => (mask & (1 << i)) !== 0);
}

describe("subclusterKind()", () => {
  test("must tell data, zeroes and nothing apart, with and without a host cluster", () => {
    expect(subclusterKind(COPIED_HIGH, HOST, 2, 1, 0)).toBe(ENTRY_KIND.normal);
    expect(subclusterKind(COPIED_HIGH, HOST, 2, 1, 1)).toBe(ENTRY_KIND.zeroAllocated);
    expect(subclusterKind(COPIED_HIGH, HOST, 2, 1, 2)).toBe(ENTRY_KIND.unallocatedHosted);
    expect(subclusterKind(0, 0, 2, 0, 1)).toBe(ENTRY_KIND.zeroPlain);
    expect(subclusterKind(0, 0, 2, 0, 31)).toBe(ENTRY_KIND.unallocated);
    expect(subclusterKind(1, 0, 0x8000_0000, 0, 31)).toBe(ENTRY_KIND.zeroAllocated);
    expect(subclusterKind(1, 0, 0, 0x8000_0000, 31)).toBe(ENTRY_KIND.normal);
  });

  test("must not look at bit 0, at flags, and at the bitmap of a compressed cluster", () => {
    expect(subclusterKind(0, 1, 0, 0, 0)).toBe(ENTRY_KIND.unallocated);
    expect(subclusterKind(COPIED_HIGH, 0, 0, 0, 0)).toBe(ENTRY_KIND.unallocated);
    expect(subclusterKind(0, HOST | 1, 0, 1, 0)).toBe(ENTRY_KIND.normal);
    expect(subclusterKind(COMPRESSED_HIGH, 0, ALL, ALL, 5)).toBe(ENTRY_KIND.compressed);
  });

  test("must find the whole entry invalid for one subcluster with both bits, or data nowhere [C14]", () => {
    for (const subcluster of [0, 7, 31]) {
      expect(subclusterKind(0, HOST, 0x80, 0x81, subcluster)).toBe(ENTRY_KIND.invalid);
      expect(subclusterKind(0, 0, 0, 0x80, subcluster)).toBe(ENTRY_KIND.invalid);
    }
  });
});

test("subclustersAlike() must count as far as every subcluster is of the first one's kind", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom("data", "zero", "none"), { minLength: 32, maxLength: 32 }),
      fc.nat(31),
      fc.boolean(),
      (words, first, withRuns) => {
        // Long runs are rare in noise: half of the entries repeat their first words.
        const row = withRuns ? words.map((_, i) => words[i >>> 3] as string) : words;
        let zeroes = 0;
        let allocated = 0;
        for (const [i, word] of row.entries()) {
          if (word === "data") allocated = (allocated | (1 << i)) >>> 0;
          if (word === "zero") zeroes = (zeroes | (1 << i)) >>> 0;
        }
        let count = 1;
        while (first + count < 32 && row[first + count] === row[first]) count++;
        const kind = subclusterKind(0, HOST, zeroes, allocated, first);
        expect(subclustersAlike(kind, zeroes, allocated, first)).toBe(count);
        for (let i = first; i < first + count; i++) {
          expect(subclusterKind(0, HOST, zeroes, allocated, i)).toBe(kind);
        }
      },
    ),
  );
  expect(subclustersAlike(ENTRY_KIND.compressed, 0x55, 0x55, 3)).toBe(29);
});

test("maskOf() must have the bits of its range and no other, unsigned", () => {
  for (let first = 0; first <= 32; first++) {
    for (let end = first; end <= 32; end++) {
      const mask = maskOf(first, end);
      expect(mask).toBeGreaterThanOrEqual(0);
      expect(bitsOf(mask)).toEqual(Array.from({ length: end - first }, (_, i) => first + i));
      if (first === end) continue;
      expect(lowestOf(mask)).toBe(first);
      expect(highestOf(mask)).toBe(end - 1);
    }
  }
});

describe("touchedSubclusters()", () => {
  const base = { version: 3, virtualSize: 2 ** 30, refcountOrder: 4 } as const;
  const extended = geometryOf({ ...base, clusterBits: 16, incompatible: 16n });
  const plain = geometryOf({ ...base, clusterBits: 16, incompatible: 0n });

  test("must have every subcluster of the cluster that the range touches by a byte", () => {
    const start = 3 * 65536;
    expect(touchedSubclusters(extended, start, start + 2047, start + 2049)).toBe(3);
    expect(touchedSubclusters(extended, start, start + 2048, start + 4096)).toBe(2);
    expect(touchedSubclusters(extended, start, 0, start + 1)).toBe(1);
    expect(touchedSubclusters(extended, start, start + 65535, 2 ** 30)).toBe(0x8000_0000);
    expect(touchedSubclusters(extended, start, 0, 2 ** 30)).toBe(ALL);
    expect(touchedSubclusters(extended, start, 0, start)).toBe(0);
    expect(touchedSubclusters(extended, start, start + 65536, 2 ** 30)).toBe(0);
  });

  test("must have the one bit of a cluster without subclusters", () => {
    expect(touchedSubclusters(plain, 65536, 70000, 70001)).toBe(1);
    expect(touchedSubclusters(plain, 65536, 0, 65536)).toBe(0);
  });
});
