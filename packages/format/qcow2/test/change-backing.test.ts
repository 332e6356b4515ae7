/** The backing file's name, and emptying: a crash leaves the image of before or after. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { EXTENSION } from "../src/header/header.js";
import { createInMemory } from "./support/images.js";

const KIB = 1024;
const LONG = `${"long/".repeat(120)}base.raw`;

const base = (): BlockChild => directChild(openMemory({ bytes: new Uint8Array(64 * KIB).fill(9) }));

describe("changeBacking()", () => {
  test.each([
    ["a name where there was none", undefined, "new.raw"],
    ["another name", "old.raw", "new.raw"],
    ["no name any more", "old.raw", undefined],
    ["a long name for a short one", "old.raw", LONG],
    ["a short name for a long one", LONG, "new.raw"],
  ])("must leave the old header or the new one after a crash: %s", async (_, old, next) => {
    for (const compat of ["v2", "v3"]) {
      const given = old === undefined ? {} : { backing_file: old, backing_fmt: "raw" };
      const { bytes } = await createInMemory({
        size: 64 * KIB,
        cluster_size: 8192,
        compat,
        ...given,
      });
      const trace = new Trace();
      const file = new SimDisk({ content: bytes, trace });
      const disk = await openQcow2({ file: directChild(file) });
      await disk.changeBacking(next === undefined ? undefined : { filename: next, format: "raw" });
      await disk.close();
      const seen = new Set<string | undefined>();
      for (const state of crashStates(trace, { seed: 2, maxSubsets: 8, tear: true })) {
        const left = directChild(state.open());
        const { backingFilename, backingFormat } = await readHeader(left);
        expect([old, next]).toContain(backingFilename);
        expect(backingFormat).toBe(backingFilename === undefined ? undefined : "raw");
        seen.add(backingFilename);
      }
      expect(seen.size).toBe(2);
      const header = await readHeader(directChild(file));
      expect([header.backingFilename, header.featureNames.length]).toEqual([
        next,
        compat === "v3" ? 8 : 0,
      ]);
    }
  });

  test("must take the name away for good: a header that is written later does not bring it back", async () => {
    const memory = await createInMemory({
      size: 64 * KIB,
      backing_file: "old.raw",
      backing_fmt: "raw",
    });
    const disk = await openQcow2({ file: directChild(memory), backing: base() });
    await disk.bitmaps.add("b0");
    await disk.changeBacking(undefined);
    await disk.close(); // stores the bitmap, and names its directory in the header
    const { backingFilename, backingFormat, extensions } = await readHeader(directChild(memory));
    expect([backingFilename, backingFormat]).toEqual([undefined, undefined]);
    expect(extensions.map(({ type }) => type)).toContain(EXTENSION.bitmaps);
  });

  test("must refuse names that do not fit before anything is written", async () => {
    const memory = await createInMemory({ size: 4096, cluster_size: 512 });
    const before = memory.bytes.slice();
    const disk = await openQcow2({ file: directChild(memory) });
    for (const filename of ["x".repeat(1024), "x".repeat(600), "a\0b"]) {
      await expect(disk.changeBacking({ filename, format: "raw" })).rejects.toThrow(
        /name has 1024 bytes|do not fit|zero byte/,
      );
    }
    await disk.close();
    expect(Buffer.compare(memory.bytes, before)).toBe(0);
  });
});

describe("makeEmpty()", () => {
  test("must leave nothing of its own, whenever it is cut off, and no corruption [C3]", async () => {
    const memory = await createInMemory({
      size: 64 * KIB,
      cluster_size: 512,
      backing_file: "b",
      backing_fmt: "raw",
    });
    let disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(new Uint8Array(40 * KIB).fill(9)));
    await disk.close();
    const trace = new Trace();
    const file = new SimDisk({ content: memory.bytes, trace });
    disk = await openQcow2({ file: directChild(file), backing: base() });
    await disk.makeEmpty();
    await disk.close();
    let states = 0;
    for (const state of crashStates(trace, { seed: 4, maxSubsets: 8, tear: true })) {
      states++;
      const left = directChild(state.open());
      const { corruptions } = await checkQcow2(left, await readHeader(left));
      expect([state.describe(), corruptions]).toEqual([state.describe(), 0]);
      const after = await openQcow2({ file: left, backing: base(), readOnly: true });
      const bytes = new Uint8Array(64 * KIB);
      await after.readv(0, IoVector.of(bytes));
      // What was committed shows through what is dropped, however much that is.
      expect(bytes.every((byte) => byte === 9)).toBe(true);
      await after.close();
    }
    expect(states).toBeGreaterThan(10);
    const end = directChild(new SimDisk({ content: file.bytes }));
    expect(await checkQcow2(end, await readHeader(end))).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: 0,
    });
    expect(file.lengthBytes).toBeLessThan(6 * 512);
  });

  test("must go on working afterwards", async () => {
    const memory = await createInMemory({ size: 64 * KIB, cluster_size: 4096 });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(stampedBytes(1, 0, 64 * KIB)));
    await disk.makeEmpty();
    await disk.writev(8192, IoVector.of(stampedBytes(2, 8192, 4096)));
    const bytes = new Uint8Array(64 * KIB);
    await disk.readv(0, IoVector.of(bytes));
    const expected = new Uint8Array(64 * KIB);
    expected.set(stampedBytes(2, 8192, 4096), 8192);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await disk.close();
    const file = directChild(memory);
    expect(await checkQcow2(file, await readHeader(file))).toMatchObject({
      corruptions: 0,
      leaks: 0,
    });
  });
});
