/** Reads that the page cache answers at once. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { IoVector, KiB } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { CachedReads } from "../src/cached-reads.js";
import { loadNative, type NativeFs, openFile } from "../src/index.js";
import { scratchDirectory } from "./support.js";

const directory = scratchDirectory();
const { native } = await loadNative();
const FILE = { fd: 3, kind: "regular", direct: false } as const;
const [EINTR, EAGAIN, EOPNOTSUPP] = [4, 11, 95];

/** Native calls whose answers a test decides, and counts. */
function answering(answer: (lengthBytes: number) => number): {
  native: NativeFs;
  asked: () => number;
} {
  let asked = 0;
  const readCached: NativeFs["readCached"] = (_fd, _offset, { length }) => {
    asked++;
    return answer(length);
  };
  return { native: { readCached } as NativeFs, asked: () => asked };
}

test.runIf(native !== undefined)(
  "readv() of what was just written must come from the page cache, plainly",
  async () => {
    const filename = join(directory, "warm.img");
    const content = Uint8Array.from({ length: 128 * KiB }, (_, i) => (i * 7) % 251);
    writeFileSync(filename, content);
    await using disk = await openFile(filename);
    for (const [offset, length] of [
      [0, 1],
      [4096, 4096],
      [777, 40_001],
      [64 * KiB, 64 * KiB],
    ] as const) {
      const bytes = new Uint8Array(length);
      expect(disk.readv(offset, IoVector.of(bytes))).toBeUndefined();
      expect(Buffer.compare(bytes, content.subarray(offset, offset + length))).toBe(0);
    }
    expect(disk.statistics()).toMatchObject({ reads: 4, cachedReads: 4 });
  },
);

test.runIf(native !== undefined)(
  "readv() must take the long way across the end of the file, for several buffers, and for long ones",
  async () => {
    const filename = join(directory, "long-way.img");
    writeFileSync(filename, new Uint8Array(100_000).fill(5));
    await using disk = await openFile(filename);
    const across = new Uint8Array(1000).fill(9);
    await disk.readv(99_500, IoVector.of(across));
    expect([across[499], across[500], across[999]]).toEqual([5, 0, 0]);
    const parts = [new Uint8Array(10), new Uint8Array(10)];
    await disk.readv(0, IoVector.from(parts));
    expect(parts.map((part) => part[9])).toEqual([5, 5]);
    const long = new Uint8Array(70_000);
    await disk.readv(0, IoVector.of(long));
    expect(long.every((byte) => byte === 5)).toBe(true);
    expect(disk.statistics()).toMatchObject({ reads: 3, cachedReads: 0 });
  },
);

test.runIf(native !== undefined)("a file opened past the page cache must not be asked", () => {
  const { native: calls, asked } = answering((length) => length);
  for (const file of [
    { ...FILE, direct: true },
    { ...FILE, kind: "device" as const },
  ]) {
    expect(new CachedReads(file, calls).read(0, new Uint8Array(512))).toBe(false);
  }
  expect(new CachedReads(FILE, undefined).read(0, new Uint8Array(512))).toBe(false);
  expect(asked()).toBe(0);
});

test.each([
  ["nothing", -EAGAIN, 3],
  ["an interruption", -EINTR, 3],
  ["a part", 100, 3],
  ["that it cannot tell", -EOPNOTSUPP, 1],
])("a page cache that answers %s must leave the read to others", (_, answer, times) => {
  const { native: calls, asked } = answering(() => answer);
  const reads = new CachedReads(FILE, calls);
  for (let i = 0; i < 3; i++) expect(reads.read(0, new Uint8Array(512))).toBe(false);
  expect([asked(), reads.count]).toEqual([times, 0]);
});

test("after 64 answers one read must take the long way, so that others have their turn", () => {
  const { native: calls } = answering((length) => length);
  const reads = new CachedReads(FILE, calls);
  const answers = Array.from({ length: 131 }, () => reads.read(0, new Uint8Array(512)));
  const long = answers.flatMap((answered, index) => (answered ? [] : [index]));
  expect(long).toEqual([64, 129]);
});
