import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  COMPRESSED_HIGH,
  compressedEntryHigh,
  compressedEntryLow,
  compressedLengthOf,
  compressedOffsetOf,
  compressedSectorsOf,
  COPIED_HIGH,
  ENTRY_KIND,
  entryKind,
  type Geometry,
  geometryOf,
  hostOffsetOf,
  isCopied,
  standardEntryHigh,
  standardEntryLow,
} from "../src/geometry.js";

function geometry(clusterBits: number, virtualSize = 2 ** 30, refcountOrder = 4): Geometry {
  return geometryOf({ version: 3, clusterBits, virtualSize, refcountOrder, incompatible: 0n });
}

describe("geometryOf()", () => {
  test("must give the numbers of the specification for 64 KiB clusters", () => {
    expect(geometry(16, 10 * 2 ** 30)).toMatchObject({
      clusterSize: 65536,
      l2Bits: 13,
      l2Entries: 8192,
      l2CoverageBytes: 512 * 2 ** 20,
      l1Size: 20,
      refcountBits: 16,
      refcountBlockBits: 15,
      refcountBlockEntries: 32768,
      maxRefcount: 65535,
      compressedShift: 22,
    });
  });

  test("must give the numbers of extended L2 entries", () => {
    const base = { version: 3, clusterBits: 16, refcountOrder: 4, incompatible: 16n } as const;
    expect(geometryOf({ ...base, virtualSize: 10 * 2 ** 30 })).toMatchObject({
      l2EntrySize: 16,
      l2Bits: 12,
      l2Entries: 4096,
      l2CoverageBytes: 256 * 2 ** 20,
      l1Size: 40,
      subclusters: 32,
      subclusterBits: 11,
      subclusterSize: 2048,
      allSubclusters: 0xffff_ffff,
      compressedShift: 22,
    });
    expect(geometry(16)).toMatchObject({
      l2EntrySize: 8,
      subclusters: 1,
      subclusterBits: 16,
      subclusterSize: 65536,
      allSubclusters: 1,
    });
  });

  test("must count a partly used L2 table, and none for an empty disk", () => {
    expect(geometry(9, 0).l1Size).toBe(0);
    expect(geometry(9, 1).l1Size).toBe(1);
    expect(geometry(9, 32768).l1Size).toBe(1);
    expect(geometry(9, 32769).l1Size).toBe(2);
  });

  test("must bound refcounts by their width, and by what a number holds", () => {
    const widths = [0, 1, 2, 3, 4, 5, 6].map((order) => geometry(16, 0, order).maxRefcount);
    expect(widths).toEqual([1, 3, 15, 255, 65535, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER]);
  });
});

describe("entryKind()", () => {
  test("must tell the kinds apart, and refuse the zero flag in version 2", () => {
    const v3 = geometry(16, 0);
    const v2 = { ...v3, version: 2 } as const;
    expect(entryKind(0, 0, v3)).toBe(ENTRY_KIND.unallocated);
    expect(entryKind(0, 1, v3)).toBe(ENTRY_KIND.zeroPlain);
    expect(entryKind(0, 0x10001, v3)).toBe(ENTRY_KIND.zeroAllocated);
    expect(entryKind(0, 0x10000, v3)).toBe(ENTRY_KIND.normal);
    expect(entryKind(1, 0, v3)).toBe(ENTRY_KIND.normal);
    expect(entryKind(COPIED_HIGH, 0, v3)).toBe(ENTRY_KIND.unallocated);
    expect(entryKind(COMPRESSED_HIGH, 1, v3)).toBe(ENTRY_KIND.compressed);
    expect(entryKind(0, 1, v2)).toBe(ENTRY_KIND.invalid);
    expect(entryKind(0, 0x10001, v2)).toBe(ENTRY_KIND.invalid);
  });

  test("must take offset 0 of an external data file for a cluster when bit 63 is set", () => {
    const external = { version: 3, externalData: true } as const;
    expect(entryKind(COPIED_HIGH, 0, external)).toBe(ENTRY_KIND.normal);
    expect(entryKind(COPIED_HIGH, 1, external)).toBe(ENTRY_KIND.zeroPlain);
    expect(entryKind(COPIED_HIGH, 0x10001, external)).toBe(ENTRY_KIND.zeroAllocated);
    expect(entryKind(0, 1, external)).toBe(ENTRY_KIND.zeroPlain);
    expect(entryKind(0, 0, external)).toBe(ENTRY_KIND.unallocated);
  });
});

describe("standard entries", () => {
  test("must come back as they were made", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 44 - 1 }),
        fc.boolean(),
        fc.boolean(),
        (sector, copied, zero) => {
          const offset = sector * 512;
          const high = standardEntryHigh(offset, copied);
          const low = standardEntryLow(offset, zero);
          expect(high).toBeGreaterThanOrEqual(0);
          expect(low).toBeGreaterThanOrEqual(0);
          expect(hostOffsetOf(high, low)).toBe(offset);
          expect(isCopied(high)).toBe(copied);
          const kind = entryKind(high, low, geometry(16, 0));
          expect(kind).toBe(zero ? ENTRY_KIND.zeroAllocated : ENTRY_KIND.normal);
        },
      ),
    );
  });

  test("hostOffsetOf() must be exact beyond 2^53 and leave flags and reserved bits out", () => {
    const offset = hostOffsetOf(0xffff_ffff, 0xffff_ffff);
    expect(BigInt(offset)).toBe(0x00ff_ffff_ffff_fe00n);
  });
});

describe("compressed entries", () => {
  test("must come back as they were made, for every cluster size", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 9, max: 21 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (clusterBits, place, size) => {
          const numbers = geometry(clusterBits);
          const length = 1 + Math.floor(size * (numbers.clusterSize - 1));
          const offset = Math.floor(place * (numbers.maxCompressedOffset - 2 * length));
          const high = compressedEntryHigh(numbers, offset, length);
          const low = compressedEntryLow(offset);
          expect(entryKind(high, low, geometry(16, 0))).toBe(ENTRY_KIND.compressed);
          expect(isCopied(high)).toBe(false);
          expect(compressedOffsetOf(numbers, high, low)).toBe(offset);
          const end = offset + compressedLengthOf(numbers, high, low);
          expect(end).toBeGreaterThanOrEqual(offset + length);
          expect(end % 512).toBe(0);
          expect(end - offset - length).toBeLessThan(512);
          const sectors = end / 512 - Math.floor(offset / 512);
          expect(compressedSectorsOf(numbers, high)).toBe(sectors);
        },
      ),
    );
  });
});
