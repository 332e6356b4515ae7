/** Making a disk shorter, and longer again: nothing comes back, nothing is lost, whatever happens on the way. */
import { readFile, writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { CorruptImageError, IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const KIB = 1024;

async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  if (bytes.length > 0) await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

/** Counts of a check of what is in the file. */
async function counts(bytes: Uint8Array): Promise<{ corruptions: number; leaks: number }> {
  const file = directChild(openMemory({ bytes }));
  const { corruptions, leaks } = await checkQcow2(file, await readHeader(file));
  return { corruptions, leaks };
}

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

describe("truncate() to a shorter disk", () => {
  test("must give back clusters, L2 tables and refcount blocks, and cut the file", async () => {
    const memory = await createInMemory({ size: 1024 * KIB, cluster_size: 512 });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(stampedBytes(1, 0, 1024 * KIB)));
    await disk.truncate(10_240);
    await disk.close();
    // Header, refcount table and block, L1 table (of the old length), one L2 table, 20 clusters.
    expect(memory.lengthBytes).toBe((1 + 1 + 1 + 1 + 1 + 20) * 512);
    expect(await counts(memory.bytes)).toEqual({ corruptions: 0, leaks: 0 });
    const again = await openQcow2({ file: directChild(memory), readOnly: true });
    expect(await contentOf(again)).toEqual(stampedBytes(1, 0, 10_240));
    await again.close();
  });

  test.each([
    ["plain", {}],
    ["compressed", { compressed: true }],
  ])("must zero the rest of a last cluster that is cut: %s", async (_, options) => {
    const memory = await createInMemory({ size: 64 * KIB, cluster_size: 4096 });
    let disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(new Uint8Array(64 * KIB).fill(7)), options);
    await disk.truncate(10 * KIB);
    await disk.close();
    // Whoever makes it longer next need not know that it was longer once.
    const image = memory.bytes.slice();
    viewOf(image).setUint32(28, 64 * KIB);
    disk = await openQcow2({ file: directChild(openMemory({ bytes: image })), readOnly: true });
    const bytes = await contentOf(disk);
    expect(bytes.subarray(0, 10 * KIB).every((byte) => byte === 7)).toBe(true);
    expect(isZero(bytes.subarray(10 * KIB))).toBe(true);
    await disk.close();
    expect(await counts(memory.bytes)).toEqual({ corruptions: 0, leaks: 0 });
  });

  test("must not let a longer backing file show after the disk grew again", async () => {
    for (const compat of ["v2", "v3"]) {
      const options = { size: 64 * KIB, cluster_size: 4096, compat };
      const memory = await createInMemory({ ...options, backing_file: "b", backing_fmt: "raw" });
      const backing = directChild(openMemory({ bytes: new Uint8Array(64 * KIB).fill(9) }));
      const disk = await openQcow2({ file: directChild(memory), backing });
      await disk.writev(30 * KIB, IoVector.of(new Uint8Array(8 * KIB).fill(1)));
      await disk.truncate(9 * KIB);
      await disk.truncate(64 * KIB, { zeroWrite: true });
      const bytes = await contentOf(disk);
      expect(bytes.subarray(0, 9 * KIB).every((byte) => byte === 9)).toBe(true);
      expect(isZero(bytes.subarray(9 * KIB))).toBe(true);
      await disk.close();
      expect(await counts(memory.bytes)).toEqual({ corruptions: 0, leaks: 0 });
    }
  });

  test("must refuse a broken L1 entry past the end before anything changes", async () => {
    const memory = await createInMemory({ size: 1024 * KIB, cluster_size: 512 });
    const bytes = memory.bytes.slice();
    const l1 = Number(viewOf(bytes).getBigUint64(40));
    viewOf(bytes).setBigUint64(l1 + 8 * 20, 0x80ff_ffff_ffff_fe00n);
    const broken = openMemory({ bytes });
    const before = broken.bytes.slice();
    const disk = await openQcow2({ file: directChild(broken) });
    await expect(disk.truncate(512)).rejects.toThrow(CorruptImageError);
    expect(disk.lengthBytes).toBe(1024 * KIB);
    expect(Buffer.compare(broken.bytes, before)).toBe(0);
    await disk.close();
  });

  test("must give all or nothing after a crash, and nothing old when it grows again [C1, C3, D2]", async () => {
    let states = 0;
    let shorter = 0;
    for (const compressed of [false, true]) {
      const size = 96 * KIB;
      const memory = await createInMemory({ size, cluster_size: 512, refcount_bits: 64 });
      const old = stampedBytes(3, 0, size);
      let disk = await openQcow2({ file: directChild(memory) });
      await disk.writev(0, IoVector.of(old), compressed ? { compressed } : {});
      await disk.close();
      const trace = new Trace();
      const file = new SimDisk({ content: memory.bytes, trace });
      disk = await openQcow2({ file: directChild(file), options: { "l2-cache-size": "4k" } });
      const end = 40 * KIB + 512;
      await disk.truncate(end);
      await disk.close();
      for (const state of crashStates(trace, { seed: 5, maxSubsets: 24, tear: true })) {
        states++;
        const left = directChild(state.open());
        const found = await checkQcow2(left, await readHeader(left));
        expect([state.describe(), found.corruptions]).toEqual([state.describe(), 0]);
        const after = await openQcow2({ file: left });
        const bytes = await contentOf(after);
        expect([size, end]).toContain(bytes.length);
        expect(Buffer.compare(bytes, old.subarray(0, bytes.length))).toBe(0);
        if (bytes.length === end) {
          shorter++;
          await after.truncate(size);
          const grown = await contentOf(after);
          expect(Buffer.compare(grown.subarray(0, end), old.subarray(0, end))).toBe(0);
          expect(isZero(grown.subarray(end))).toBe(true);
        }
        await after.close();
        const end2 = await checkQcow2(left, await readHeader(left));
        expect(end2.corruptions).toBe(0);
      }
    }
    expect(states).toBeGreaterThan(120);
    expect(shorter).toBeGreaterThan(50);
    expect(shorter).toBeLessThan(states);
  }, 60_000);

  test("must agree with a plain array through random writes and lengths", async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = new Rng(seed);
      const cluster = random.pick([512, 4096]);
      const compat = random.pick(["v2", "v3"]);
      const memory = await createInMemory({ size: 64 * KIB, cluster_size: cluster, compat });
      const disk = await openQcow2({ file: directChild(memory) });
      let model = new Uint8Array(64 * KIB);
      for (let step = 0; step < 60; step++) {
        const kind = random.below(4);
        if (kind === 0) {
          const length = 512 * (1 + random.below(400));
          const next = new Uint8Array(length);
          next.set(model.subarray(0, length));
          model = next;
          await disk.truncate(length);
        } else {
          const offset = 512 * random.below(model.length / 512);
          const length = Math.min(model.length - offset, 512 * (1 + random.below(30)));
          if (kind === 1) {
            model.fill(0, offset, offset + length);
            await disk.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
          } else {
            const bytes = stampedBytes(step + 1, offset, length);
            const start = offset - (offset % cluster);
            const whole = kind === 2 && start === offset && length % cluster === 0;
            model.set(bytes, offset);
            await disk.writev(offset, IoVector.of(bytes), whole ? { compressed: true } : {});
          }
        }
        if (random.below(5) === 0) await disk.flushToOs();
      }
      expect([seed, Buffer.compare(await contentOf(disk), model)]).toEqual([seed, 0]);
      await disk.close();
      expect([seed, await counts(memory.bytes)]).toEqual([seed, { corruptions: 0, leaks: 0 }]);
    }
  });
});

describeWithQemu("truncate() and the real qemu-img", () => {
  const scratch = useScratch();

  test.each([
    ["clusters of 512 bytes", ["-o", "cluster_size=512"], 10_240],
    ["clusters of 64 KiB", [], 1000 * KIB],
    ["version 2", ["-o", "compat=0.10,cluster_size=4k"], 300 * KIB],
  ])("must make the same map, and as long a file: %s", async (_, options, end) => {
    const [theirs, ours] = [scratch("theirs.qcow2"), scratch("ours.qcow2")];
    await qemuImg("create", "-f", "qcow2", ...options, theirs, "2M");
    const raw = scratch("content.raw");
    await writeFile(raw, stampedBytes(1, 0, 2048 * KIB));
    await qemuImg("convert", "-n", "-f", "raw", "-O", "qcow2", raw, theirs);
    const memory = openMemory({ bytes: await readFile(theirs) });
    await qemuImg("resize", "--shrink", theirs, String(end));
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.truncate(end);
    await disk.close();
    await writeFile(ours, memory.bytes);
    const map = async (image: string): Promise<string> =>
      (await qemuImg("map", "--output=json", image)).stdout;
    expect(await map(ours)).toBe(await map(theirs));
    expect((await qemuImg("compare", ours, theirs)).code).toBe(0);
    expect((await qemuImg("check", ours)).stdout).toContain("No errors");
    expect(memory.lengthBytes).toBe((await readFile(theirs)).length);
  });

  test("must leave the snapshots of another size as they are", async () => {
    const image = scratch("snapshots.qcow2");
    await qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", image, "1M");
    const raw = scratch("first.raw");
    await writeFile(raw, stampedBytes(4, 0, 1024 * KIB));
    await qemuImg("convert", "-n", "-f", "raw", "-O", "qcow2", raw, image);
    await qemuImg("snapshot", "-c", "first", image);
    const memory = openMemory({ bytes: await readFile(image) });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.truncate(101 * KIB);
    await disk.truncate(3 * 1024 * KIB);
    expect(isZero((await contentOf(disk)).subarray(101 * KIB))).toBe(true);
    await disk.close();
    await writeFile(image, memory.bytes);
    expect((await qemuImg("check", image)).stdout).toContain("No errors");
    expect((await qemuImg("snapshot", "-a", "first", image)).code).toBe(0);
    expect((await qemuImg("compare", "-f", "raw", "-F", "qcow2", raw, image)).stdout).toContain(
      "identical",
    );
    expect((await qemuImg("check", image)).stdout).toContain("No errors");
  });

  test("must not show what qemu-img left in a last cluster that it cut", async () => {
    const image = scratch("cut.qcow2");
    const raw = scratch("ones.raw");
    await writeFile(raw, new Uint8Array(128 * KIB).fill(1));
    await qemuImg("convert", "-f", "raw", "-O", "qcow2", raw, image);
    await qemuImg("resize", "--shrink", image, "70k");
    const disk = await openQcow2({
      file: directChild(openMemory({ bytes: await readFile(image) })),
    });
    await disk.truncate(128 * KIB);
    const bytes = await contentOf(disk);
    expect(bytes.subarray(0, 70 * KIB).every((byte) => byte === 1)).toBe(true);
    expect(isZero(bytes.subarray(70 * KIB))).toBe(true);
    await disk.close();
  });
});

describe("truncate() beside VM state", () => {
  const COVERAGE = 512 * 64;

  async function resized(
    ...lengths: readonly number[]
  ): Promise<{ state: number; counts: unknown }> {
    const memory = await createInMemory({ size: 4 * COVERAGE, cluster_size: 512 });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(stampedBytes(1, 0, 4 * COVERAGE)));
    await disk.snapshots.writeVmState(0, IoVector.of(new Uint8Array(4096).fill(9)));
    for (const length of lengths) await disk.truncate(length);
    const state = new Uint8Array(4096);
    await disk.snapshots.readVmState(0, IoVector.of(state));
    // The state is all there or all gone, and no guest finds it on the disk.
    expect(new Set(state).size).toBe(1);
    const content = await contentOf(disk);
    const kept = Math.min(4 * COVERAGE, ...lengths);
    expect(isZero(content.subarray(kept))).toBe(true);
    await disk.close();
    return { state: state[0] as number, counts: await counts(memory.bytes) };
  }

  const clean = { corruptions: 0, leaks: 0 };

  test("must keep it while it lies where it lay", async () => {
    expect(await resized(4 * COVERAGE - 2048)).toEqual({ state: 9, counts: clean });
    expect(await resized(4 * COVERAGE - 2048, 4 * COVERAGE)).toEqual({ state: 9, counts: clean });
  });

  test("must drop it when the disk needs more or fewer L1 entries", async () => {
    expect(await resized(2 * COVERAGE)).toEqual({ state: 0, counts: clean });
    expect(await resized(6 * COVERAGE)).toEqual({ state: 0, counts: clean });
    expect(await resized(2 * COVERAGE, 8 * COVERAGE)).toEqual({ state: 0, counts: clean });
  });
});
