import { AssertionError, CorruptImageError } from "@blocklayer/bytes";
import { L2Cache, type Table } from "@blocklayer/metadata-cache";
import { describe, expect, test } from "vitest";
import { geometryOf } from "../src/geometry.js";
import type { Qcow2Image } from "../src/image.js";
import { L2Entry, storeCompressed, storeEntry } from "../src/mapping/l2-entry.js";

const CLUSTER = 65536;

/** What the functions need of an image: its geometry, and a cache over an empty file. */
async function tableOf(
  extended: boolean,
  version: 2 | 3 = 3,
): Promise<{ image: Qcow2Image; table: Table }> {
  const geometry = geometryOf({
    version,
    clusterBits: 16,
    virtualSize: 2 ** 20,
    refcountOrder: 4,
    incompatible: extended ? 16n : 0n,
  });
  const l2 = new L2Cache({
    name: "L2 cache",
    tableSizeBytes: 512,
    maxTables: 2,
    entrySizeBytes: geometry.l2EntrySize,
    store: { read() {}, write() {}, writev() {}, sync() {} },
  });
  const badClusterOffset = (hostOffset: number): boolean => hostOffset % CLUSTER !== 0;
  const image = { geometry, l2, badClusterOffset } as unknown as Qcow2Image;
  return { image, table: await l2.get(0) };
}

function rawOf(table: Table, index: number, entrySize: number): bigint[] {
  const words: bigint[] = [];
  for (let at = 0; at < entrySize; at += 8) {
    words.push(table.view.getBigUint64(index * entrySize + at));
  }
  return words;
}

describe("storeEntry()", () => {
  test("must keep what a subcluster is in the bitmap of an extended entry, never in bit 0", async () => {
    const { image, table } = await tableOf(true);
    const entry = { hostOffset: 5 * CLUSTER, copied: true, allocated: 0x0f, zeroes: 0x8000_0000 };
    storeEntry(image, table, 1, entry);
    expect(rawOf(table, 1, 16)).toEqual([0x8000_0000_0005_0000n, 0x8000_0000_0000_000fn]);
    expect(rawOf(table, 0, 16)).toEqual([0n, 0n]);
    const { copied: inPlace, ...rest } = entry;
    expect(new L2Entry().load(image, table, 1)).toMatchObject({ ...rest, inPlace, invalid: false });
  });

  test("must keep it in bit 0 of an entry without bitmap", async () => {
    const { image, table } = await tableOf(false);
    storeEntry(image, table, 2, { hostOffset: CLUSTER, copied: true, allocated: 0, zeroes: 1 });
    storeEntry(image, table, 3, { hostOffset: CLUSTER, copied: false, allocated: 1, zeroes: 0 });
    expect(rawOf(table, 2, 8)).toEqual([0x8000_0000_0001_0001n]);
    expect(rawOf(table, 3, 8)).toEqual([0x0001_0000n]);
    const read = new L2Entry();
    expect(read.load(image, table, 2)).toMatchObject({ allocated: 0, zeroes: 1, inPlace: true });
    expect(read.load(image, table, 3)).toMatchObject({ allocated: 1, zeroes: 0, inPlace: false });
    expect(read.load(image, table, 4)).toMatchObject({ allocated: 0, zeroes: 0, hostOffset: 0 });
  });

  test("must refuse both bits of a subcluster, and data nowhere, with nothing changed [C14]", async () => {
    for (const extended of [true, false]) {
      const { image, table } = await tableOf(extended);
      const store = (hostOffset: number, allocated: number, zeroes: number) => (): void =>
        storeEntry(image, table, 0, { hostOffset, copied: true, allocated, zeroes });
      expect(store(CLUSTER, 1, 1)).toThrow(AssertionError);
      expect(store(0, 1, 0)).toThrow(AssertionError);
      if (!extended) expect(store(CLUSTER, 0, 0)).toThrow(AssertionError);
      expect(table.bytes.every((byte) => byte === 0)).toBe(true);
    }
  });

  test("storeCompressed() must empty the bitmap of the entry [C14]", async () => {
    const { image, table } = await tableOf(true);
    const { allSubclusters } = image.geometry;
    const entry = { hostOffset: CLUSTER, copied: true, allocated: allSubclusters, zeroes: 0 };
    storeEntry(image, table, 0, entry);
    storeCompressed(image, table, 0, 0x4000_0000, 0x1234);
    expect(rawOf(table, 0, 16)).toEqual([0x4000_0000_0000_1234n, 0n]);
    const read = new L2Entry().load(image, table, 0);
    expect(read).toMatchObject({ compressed: true, hostOffset: 0, allocated: 0, zeroes: 0 });
  });
});

test("loadSound() must refuse what contradicts itself or names no cluster, and say where", async () => {
  const { image, table } = await tableOf(true);
  const cases = [
    [0x0005_0000n, 0x0000_0001_0000_0001n, "allocated and zero"],
    [0n, 1n, "allocated nowhere"],
    [0x0005_0200n, 1n, "no cluster"],
  ] as const;
  for (const [descriptor, bitmap, words] of cases) {
    table.view.setBigUint64(32, descriptor);
    table.view.setBigUint64(40, bitmap);
    const load = (): unknown => new L2Entry().loadSound(image, table, 2, 0);
    expect(load).toThrow(CorruptImageError);
    expect(load).toThrow(words);
    expect(load).toThrow("0x20");
  }
  const old = await tableOf(false, 2);
  old.table.view.setBigUint64(0, 1n);
  expect(() => new L2Entry().loadSound(old.image, old.table, 0, 0)).toThrow("zero flag");
});
