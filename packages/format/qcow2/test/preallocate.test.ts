/** Setting space aside, in a new image and in one that grows. */
import { readFile, stat, writeFile } from "node:fs/promises";
import {
  type BlockChild,
  directChild,
  parseOptions,
  type TruncateOptions,
} from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, createOptions, createQcow2, openQcow2, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

const KIB = 1024;
const MODES = ["metadata", "falloc", "full"] as const;

/** A store that sets space aside, as far as anybody can tell: it remembers what was asked for. */
function reserving(memory: MemoryDriver): { file: BlockChild; asked: Set<string> } {
  const asked = new Set<string>();
  const child = directChild(memory);
  const file = new Proxy(child, {
    get(target, name) {
      if (name !== "truncate") return Reflect.get(target, name) as unknown;
      return (lengthBytes: number, options: TruncateOptions = {}) => {
        if (options.preallocation !== undefined) asked.add(options.preallocation);
        return target.truncate(lengthBytes);
      };
    },
  });
  return { file, asked };
}

async function created(given: Readonly<Record<string, unknown>>): Promise<MemoryDriver> {
  const memory = openMemory();
  const { file, asked } = reserving(memory);
  await createQcow2({ file, options: parseOptions(createOptions, given, "qcow2") });
  const mode = String(given["preallocation"]);
  expect([...asked]).toEqual(mode === "metadata" ? [] : [mode]);
  return memory;
}

async function checked(bytes: Uint8Array): Promise<unknown> {
  const file = directChild(openMemory({ bytes }));
  const { corruptions, leaks, allocatedClusters } = await checkQcow2(file, await readHeader(file));
  return { corruptions, leaks, allocatedClusters };
}

describe("createQcow2() with preallocation", () => {
  test.each(MODES)("must give every cluster its place: %s", async (preallocation) => {
    const memory = await created({ size: 300 * KIB, cluster_size: 4096, preallocation });
    expect(await checked(memory.bytes)).toEqual({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: 75,
    });
    const disk = await openQcow2({ file: directChild(memory) });
    const before = memory.lengthBytes;
    await disk.writev(0, IoVector.of(stampedBytes(1, 0, 300 * KIB)));
    await disk.close();
    expect(memory.lengthBytes).toBe(before);
  });

  test("must make a clean image when its refcounts are to be lazy", async () => {
    const options = { cluster_size: 4096, preallocation: "metadata", lazy_refcounts: "on" };
    const memory = await created({ size: 300 * KIB, ...options });
    const found = { corruptions: 0, leaks: 0, allocatedClusters: 75 };
    expect(await checked(memory.bytes)).toEqual(found);
    const { incompatible, compatible } = await readHeader(directChild(memory));
    expect([incompatible, compatible]).toEqual([0n, 1n]);
  });

  test("must refuse it together with a backing file, in qemu-img's words", async () => {
    await expect(
      createInMemory({ size: 4096, preallocation: "full", backing_file: "b", backing_fmt: "raw" }),
    ).rejects.toThrow(/Backing file and preallocation can only be used at the same time/);
  });

  test("must leave no image when it is cut off, and zeroes on a device with old bytes", async () => {
    const options = parseOptions(
      createOptions,
      { size: 20 * KIB, cluster_size: 512, preallocation: "metadata" },
      "qcow2",
    );
    const trace = new Trace();
    await createQcow2({ file: directChild(new SimDisk({ trace })), options });
    let images = 0;
    for (const state of crashStates(trace, { seed: 1, maxSubsets: 4, tear: true })) {
      const file = directChild(state.open());
      const head = new Uint8Array(4);
      if (file.lengthBytes >= 4) await file.readv(0, IoVector.of(head));
      if (head[0] !== 0x51) continue;
      images++;
      const result = await checkQcow2(file, await readHeader(file));
      expect([result.corruptions, result.allocatedClusters]).toEqual([0, 40]);
    }
    expect(images).toBeGreaterThan(0);
    const store = openMemory({ bytes: new Uint8Array(64 * KIB).fill(0xee) });
    const whole = directChild(store);
    const device = {
      ...whole,
      lengthBytes: 64 * KIB,
      capabilities: { ...whole.capabilities, truncate: false },
    };
    await createQcow2({ file: device, options });
    const disk = await openQcow2({ file: whole, readOnly: true });
    const bytes = new Uint8Array(20 * KIB).fill(1);
    await disk.readv(0, IoVector.of(bytes));
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    await disk.close();
  });
});

describe("createQcow2() with lazy refcounts", () => {
  test.each([...MODES, "raw data file"])("must not make a dirty image: %s [C8]", async (how) => {
    const memory = openMemory();
    const wanted =
      how === "raw data file"
        ? { data_file: "data.raw", data_file_raw: true }
        : { preallocation: how };
    const given = { size: 64 * KIB, cluster_size: 4096, lazy_refcounts: true, ...wanted };
    const options = parseOptions(createOptions, given, "qcow2");
    const dataFile = how === "raw data file" ? { dataFile: directChild(openMemory()) } : {};
    await createQcow2({ file: reserving(memory).file, ...dataFile, options });
    const header = await readHeader(directChild(memory));
    expect(header.incompatible & 1n).toBe(0n);
    expect(await checked(memory.bytes)).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

describe("truncate() with preallocation", () => {
  test.each(MODES)("must show zeroes in clusters that had an owner before: %s", async (mode) => {
    const memory = await createInMemory({ size: 64 * KIB, cluster_size: 4096 });
    // What is freed keeps its bytes in the file.
    const options = { "pass-discard-request": "off" };
    const disk = await openQcow2({ file: reserving(memory).file, options });
    await disk.writev(0, IoVector.of(stampedBytes(1, 0, 64 * KIB)));
    await disk.discard(4096, 40 * KIB);
    await disk.flushToOs();
    await disk.truncate(200 * KIB, { preallocation: mode });
    const bytes = new Uint8Array(136 * KIB).fill(1);
    await disk.readv(64 * KIB, IoVector.of(bytes));
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    await disk.close();
    expect(await checked(memory.bytes)).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: 6 + 34,
    });
  });

  test.each(MODES)(
    "must set aside the cluster that the old end cuts, with what it shows: %s",
    async (mode) => {
      const given = { backing_file: "b.raw", backing_fmt: "raw" };
      const memory = await createInMemory({ size: 10 * KIB, cluster_size: 4096, ...given });
      const backing = directChild(openMemory({ bytes: new Uint8Array(64 * KIB).fill(9) }));
      const disk = await openQcow2({ file: reserving(memory).file, backing });
      await disk.truncate(20 * KIB, { preallocation: mode, zeroWrite: true });
      const bytes = new Uint8Array(20 * KIB);
      await disk.readv(0, IoVector.of(bytes));
      const expected = new Uint8Array(20 * KIB).fill(9, 0, 10 * KIB);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      expect((await disk.blockStatus(8 * KIB, 12 * KIB)).allocated).toBe(true);
      await disk.close();
      expect(await checked(memory.bytes)).toMatchObject({
        corruptions: 0,
        leaks: 0,
        allocatedClusters: 3,
      });
    },
  );

  test.each(
    MODES.flatMap((mode) => [
      { mode, how: "compressed" },
      { mode, how: "shared with a snapshot" },
      { mode, how: "shared with a snapshot, with subclusters" },
    ]),
  )("must keep what the old end cuts off from: $how, $mode", async ({ mode, how }) => {
    const extended = how.includes("subclusters");
    const cluster = extended ? 16 * KIB : 4096;
    const size = 2 * cluster + 1024;
    const given = extended ? { extended_l2: true } : {};
    const memory = await createInMemory({ size, cluster_size: cluster, ...given });
    const disk = await openQcow2({ file: reserving(memory).file });
    const old = stampedBytes(3, 0, size);
    await disk.writev(0, IoVector.of(old.subarray(0, cluster)));
    const tail = IoVector.of(old.subarray(cluster));
    await disk.writev(cluster, tail, { compressed: how === "compressed" });
    if (how !== "compressed") {
      await disk.snapshots.create({ name: "s", dateSeconds: 0, dateNanoseconds: 0 });
    }
    // Within the cluster that the end cuts, and far behind it.
    for (const lengthBytes of [size + 512, size + 5 * cluster]) {
      await disk.truncate(lengthBytes, { preallocation: mode });
      const bytes = new Uint8Array(lengthBytes).fill(1);
      await disk.readv(0, IoVector.of(bytes));
      const expected = new Uint8Array(lengthBytes);
      expected.set(old);
      expect(Buffer.compare(bytes, expected)).toBe(0);
    }
    await disk.close();
    expect(await checked(memory.bytes)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test("must name nothing behind the end of a file that cannot grow: metadata", async () => {
    const memory = await createInMemory({ size: 12 * KIB, cluster_size: 4096 });
    const file = new SimDisk({
      content: memory.bytes,
      maxLengthBytes: memory.lengthBytes + 13_312,
    });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.writev(0, IoVector.of(new Uint8Array(512)));
    const growing = disk.truncate(40 * KIB, { preallocation: "metadata" });
    await expect(growing).rejects.toMatchObject({ code: "ENOSPC" });
    expect(await disk.check()).toMatchObject({ corruptions: 0, checkErrors: 0 });
    await disk.close();
    expect(await checked(file.bytes)).toMatchObject({ corruptions: 0 });
  });

  test("must leave the old disk or the new one after a crash [C1, C2, C5]", async () => {
    const { bytes: image } = await createInMemory({
      size: 8 * KIB,
      cluster_size: 512,
      refcount_bits: 64,
    });
    const old = stampedBytes(2, 0, 8 * KIB);
    const memory = openMemory({ bytes: image });
    let disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(old));
    await disk.discard(1024, 2048);
    old.fill(0, 1024, 3072);
    await disk.close();
    const trace = new Trace();
    const file = new SimDisk({ content: memory.bytes, trace });
    disk = await openQcow2({ file: directChild(file) });
    await disk.truncate(60 * KIB, { preallocation: "metadata" });
    await disk.close();
    const seen = new Set<number>();
    for (const state of crashStates(trace, { seed: 9, maxSubsets: 4, tear: true })) {
      const left = directChild(state.open());
      const result = await checkQcow2(left, await readHeader(left));
      expect([state.describe(), result.corruptions]).toEqual([state.describe(), 0]);
      const after = await openQcow2({ file: left, readOnly: true });
      const bytes = new Uint8Array(after.lengthBytes);
      await after.readv(0, IoVector.of(bytes));
      await after.close();
      seen.add(bytes.length);
      expect(Buffer.compare(bytes.subarray(0, old.length), old)).toBe(0);
      expect(bytes.subarray(old.length).every((byte) => byte === 0)).toBe(true);
    }
    expect([...seen].toSorted((a, b) => a - b)).toEqual([8 * KIB, 60 * KIB]);
  }, 60_000);
});

describeWithQemu("preallocation and the real qemu-img", () => {
  const scratch = useScratch();

  test.each([
    "cluster_size=64k",
    "cluster_size=512",
    "cluster_size=4k,refcount_bits=64",
    "cluster_size=16k,refcount_bits=64",
    "cluster_size=2M,compat=0.10",
  ])(
    "metadata must make the same bytes: %s",
    async (words) => {
      for (const size of ["0", "100000", "1M", words.includes("512") ? "5M" : "40M"]) {
        const theirs = scratch("theirs.qcow2");
        const option = `preallocation=metadata,${words}`;
        await qemuImg("create", "-f", "qcow2", "-o", option, theirs, size);
        const given = Object.fromEntries(option.split(",").map((word) => word.split("=")));
        const memory = await createInMemory({ ...given, size });
        expect([size, Buffer.compare(memory.bytes, await readFile(theirs))]).toEqual([size, 0]);
      }
    },
    30_000,
  );

  test.each(MODES)("a disk that grows must have qemu-img's kinds of clusters: %s", async (mode) => {
    const [theirs, ours] = [scratch("theirs.qcow2"), scratch("ours.qcow2")];
    await qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", theirs, "62k");
    const memory = openMemory({ bytes: await readFile(theirs) });
    await qemuImg("resize", `--preallocation=${mode}`, theirs, "3M");
    const disk = await openQcow2({ file: reserving(memory).file });
    await disk.truncate(3 * 1024 * KIB, { preallocation: mode });
    await disk.close();
    await writeFile(ours, memory.bytes);
    const kinds = async (image: string): Promise<unknown> => {
      const map: Record<string, unknown>[] = JSON.parse(
        (await qemuImg("map", "--output=json", image)).stdout,
      );
      // Where L2 tables lie between the data is not what is compared, nor are holes of a file that was copied.
      const merged: { start: number; end: number; present: unknown }[] = [];
      for (const { start, length, present } of map) {
        const last = merged.at(-1);
        const end = (start as number) + (length as number);
        if (last !== undefined && last.present === present) last.end = end;
        else merged.push({ start: start as number, end, present });
      }
      return merged;
    };
    expect(await kinds(ours)).toEqual(await kinds(theirs));
    expect((await qemuImg("compare", ours, theirs)).stdout).toContain("identical");
    expect((await qemuImg("check", ours)).stdout).toContain("No errors");
    const longer = Math.abs((await stat(ours)).size - (await stat(theirs)).size);
    expect(longer).toBeLessThanOrEqual(mode === "metadata" ? 0 : 2 * 4096);
  });
});
