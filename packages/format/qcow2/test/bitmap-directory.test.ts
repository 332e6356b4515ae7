/** Directories that QEMU opens no image with: entries that are sound one by one, and not together. */
import { describe, expect, test } from "vitest";
import { type BitmapEntry, decodeDirectory, encodeDirectory } from "../src/bitmap/directory.js";
import { geometryOf, readHeader } from "../src/index.js";
import { childOf } from "./support/images.js";
import { ImageBuilder } from "./support/image-builder.js";

const geometry = geometryOf(await readHeader(childOf(new ImageBuilder({ clusterBits: 12 }).bytes)));

function entry(name: string, more: Partial<BitmapEntry> = {}): BitmapEntry {
  return {
    tableOffset: 4096,
    tableEntries: 1,
    flags: 0,
    granularityBits: 16,
    nameBytes: new TextEncoder().encode(name),
    extraData: new Uint8Array(0),
    ...more,
  };
}

function isBroken(...entries: readonly BitmapEntry[]): boolean {
  return decodeDirectory(encodeDirectory(entries), entries.length, geometry).isBroken;
}

describe("decodeDirectory()", () => {
  test("must take what keeps all rules", () => {
    expect(isBroken(entry("a"), entry("b"))).toBe(false);
  });

  test("must call it broken when it is longer or shorter than its entries", () => {
    const bytes = encodeDirectory([entry("a")]);
    const longer = new Uint8Array(bytes.length + 8);
    longer.set(bytes);
    expect(decodeDirectory(longer, 1, geometry).isBroken).toBe(true);
    expect(decodeDirectory(bytes.subarray(0, -1), 1, geometry).isBroken).toBe(true);
  });

  test("must call it broken when two have one name", () => {
    expect(isBroken(entry("a"), entry("a"))).toBe(true);
  });

  test("must call it broken when a table does not fit the disk, unless the bitmap is in use", () => {
    expect(isBroken(entry("a", { tableEntries: 2 }))).toBe(true);
    expect(isBroken(entry("a", { tableEntries: 2, flags: 1 }))).toBe(false);
  });
});
