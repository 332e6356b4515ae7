import { readFile, writeFile } from "node:fs/promises";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { crashStates, Random, SimDisk, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";

const CLUSTER = 4096;
const GRANULE = 4096;
const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 300);

async function messagesOf(file: BlockChild): Promise<string[]> {
  const result = await checkQcow2(file, await readHeader(file));
  return result.findings.map(({ message }) => message);
}

/** The dirty ranges of a bitmap, `start-end` each. */
async function dirtyOf(disk: Qcow2Driver, name: string): Promise<string[]> {
  const ranges = await disk.bitmaps.dirtyRanges(name, 0, 10_000);
  return ranges.map(({ offset, lengthBytes }) => `${offset}-${offset + lengthBytes}`);
}

const bytes = (length: number): IoVector => IoVector.of(new Uint8Array(length).fill(7));

async function image(options: Readonly<Record<string, unknown>> = {}): Promise<MemoryDriver> {
  return await createInMemory({ size: 64 * CLUSTER, cluster_size: CLUSTER, ...options });
}

describe("Qcow2Driver.bitmaps", () => {
  test("must note every kind of write, and keep it when the image is opened again", async () => {
    const memory = await image();
    const file = directChild(memory);
    const disk = await openQcow2({ file });
    await disk.writev(0, bytes(CLUSTER));
    await disk.bitmaps.add("b", { granularityBytes: GRANULE });
    await disk.bitmaps.add("idle", { granularityBytes: 512, recording: false });
    await disk.writev(2 * GRANULE + 5, bytes(1));
    await disk.writeZeroes(4 * GRANULE, GRANULE);
    await disk.discard(6 * GRANULE, GRANULE);
    await disk.writev(8 * GRANULE, bytes(CLUSTER), { compressed: true });
    const expected = [2, 4, 6, 8].map((i) => `${i * GRANULE}-${(i + 1) * GRANULE}`);
    expect(await dirtyOf(disk, "b")).toEqual(expected);
    await disk.close();
    expect(await messagesOf(file)).toEqual([]);
    const again = await openQcow2({ file });
    expect(await again.bitmaps.list()).toEqual([
      { name: "b", granularityBytes: GRANULE, recording: true, inconsistent: false },
      { name: "idle", granularityBytes: 512, recording: false, inconsistent: false },
    ]);
    await again.writev(20 * GRANULE, bytes(1));
    expect(await dirtyOf(again, "b")).toEqual([...expected, `${20 * GRANULE}-${21 * GRANULE}`]);
    expect(await dirtyOf(again, "idle")).toEqual([]);
    await again.close();
    expect(await messagesOf(file)).toEqual([]);
  });

  test("must refuse what cannot be, in QEMU's words, and change nothing by it", async () => {
    const file = directChild(await image());
    const disk = await openQcow2({ file });
    const { bitmaps } = disk;
    await bitmaps.add("b");
    const refusals: [Promise<unknown>, string, string][] = [
      [bitmaps.add("b"), "EEXIST", "Bitmap already exists: b"],
      [bitmaps.add("c", { granularityBytes: 1000 }), "EINVAL", "power of 2 and at least 512"],
      [bitmaps.add("c", { granularityBytes: 256 }), "EINVAL", "power of 2 and at least 512"],
      [bitmaps.add("c", { granularityBytes: 2 ** 32 }), "EINVAL", "exceeds maximum"],
      [bitmaps.add(""), "EINVAL", "1 to 1023 bytes"],
      [bitmaps.add("ü".repeat(512)), "EINVAL", "1 to 1023 bytes"],
      [bitmaps.remove("z"), "ENOENT", "Dirty bitmap 'z' not found"],
      [bitmaps.clear("z"), "ENOENT", "not found"],
      [bitmaps.setRecording("z", true), "ENOENT", "not found"],
      [bitmaps.dirtyRanges("z", 0, 1), "ENOENT", "not found"],
      [bitmaps.mark("b", [{ offset: 64 * CLUSTER, lengthBytes: 1 }]), "EINVAL", "not on the disk"],
    ];
    for (const [refusal, code, words] of refusals) {
      await expect(refusal).rejects.toMatchObject({
        code,
        message: expect.stringContaining(words),
      });
    }
    expect(await bitmaps.list()).toHaveLength(1);
    await disk.close();
    const old = await openQcow2({ file: directChild(await image({ compat: "v2" })) });
    await expect(old.bitmaps.add("b")).rejects.toMatchObject({ code: "ENOTSUP" });
    await old.close();
    const readOnly = await openQcow2({ file, readOnly: true });
    await expect(readOnly.bitmaps.clear("b")).rejects.toMatchObject({ code: "EACCES" });
    expect(await readOnly.bitmaps.list()).toHaveLength(1);
    await readOnly.close();
  });

  test("must take room and give it back, whatever is made, changed and removed", async () => {
    const memory = await image({ cluster_size: 512, refcount_bits: 1 });
    const file = directChild(memory);
    const random = new Random(5);
    let model = new Map<string, Set<number>>();
    for (let round = 0; round < 12; round++) {
      const disk = await openQcow2({ file });
      for (let i = 0; i < 12; i++) {
        const name = `b${random.below(4)}`;
        const dirty = model.get(name);
        const kind = random.below(6);
        if (dirty === undefined) {
          await disk.bitmaps.add(name, { granularityBytes: 512 });
          model.set(name, new Set());
        } else if (kind === 0) {
          await disk.bitmaps.remove(name);
          model.delete(name);
        } else if (kind === 1) {
          await disk.bitmaps.clear(name);
          dirty.clear();
        } else {
          const sector = random.below(512);
          await disk.writev(sector * 512, bytes(512));
          for (const one of model.values()) one.add(sector);
        }
      }
      await disk.close();
      expect(await messagesOf(file)).toEqual([]);
      const again = await openQcow2({ file, readOnly: true });
      const names = (await again.bitmaps.list()).map(({ name }) => name);
      expect([...names].sort()).toEqual([...model.keys()].sort());
      for (const [name, dirty] of model) {
        const found = new Set<number>();
        for (const range of await again.bitmaps.dirtyRanges(name, 0, 1000)) {
          for (let at = 0; at < range.lengthBytes; at += 512) found.add((range.offset + at) / 512);
        }
        expect([...found].sort()).toEqual([...dirty].sort());
      }
      await again.close();
      model = new Map(model);
    }
  });

  test("must go along when the disk grows, and be noted as in use until it is stored", async () => {
    const memory = await image();
    const file = directChild(memory);
    let disk = await openQcow2({ file });
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await disk.bitmaps.add("idle", { granularityBytes: 512, recording: false });
    await disk.bitmaps.mark("idle", [{ offset: 0, lengthBytes: 1 }]);
    await disk.close();
    disk = await openQcow2({ file });
    await disk.truncate(5000 * CLUSTER);
    await disk.flushToOs();
    const crashed = await openQcow2({
      file: directChild(openMemory({ bytes: memory.bytes })),
      readOnly: true,
    });
    expect((await crashed.bitmaps.list()).map(({ inconsistent }) => inconsistent)).toEqual([
      true,
      true,
    ]);
    await crashed.close();
    await disk.writev(4000 * CLUSTER, bytes(512));
    await disk.close();
    expect(await messagesOf(file)).toEqual([]);
    disk = await openQcow2({ file });
    expect(await dirtyOf(disk, "b")).toEqual([`${4000 * CLUSTER}-${4000 * CLUSTER + 512}`]);
    expect(await dirtyOf(disk, "idle")).toEqual(["0-512"]);
    await disk.close();
  });

  test("of an inconsistent one nothing but remove() must work, and the disk cannot grow", async () => {
    const memory = await image();
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.bitmaps.add("b");
    await disk.bitmaps.store();
    await disk.writev(0, bytes(512));
    await disk.flushToOs();
    const file = directChild(openMemory({ bytes: memory.bytes }));
    await disk.close();
    const crashed = await openQcow2({ file });
    const words = { code: "EINVAL", message: expect.stringContaining("is inconsistent") };
    await expect(crashed.bitmaps.clear("b")).rejects.toMatchObject(words);
    await expect(crashed.bitmaps.dirtyRanges("b", 0, 1)).rejects.toMatchObject(words);
    await expect(crashed.truncate(100 * CLUSTER)).rejects.toMatchObject({ code: "ENOTSUP" });
    await crashed.writev(CLUSTER, bytes(512));
    await crashed.bitmaps.remove("b");
    await crashed.truncate(100 * CLUSTER);
    await crashed.close();
    expect(await messagesOf(file)).toEqual([]);
    expect((await readHeader(file)).extensions).toHaveLength(0);
  });

  test("must tell names apart that are no UTF-8, and keep each byte of them", async () => {
    const memory = await image();
    let disk = await openQcow2({ file: directChild(memory) });
    for (const name of ["aa", "bb", "cc"]) await disk.bitmaps.add(name);
    await disk.close();
    const odd = memory.bytes.slice();
    const places = ["aa", "bb"].map((name) => Buffer.from(odd).lastIndexOf(name));
    odd.set([0xff, 0xfe], places[0]);
    odd.set([0xff, 0xfd], places[1]);
    const file = directChild(openMemory({ bytes: odd }));
    disk = await openQcow2({ file });
    expect(await disk.bitmaps.list()).toHaveLength(3);
    await disk.bitmaps.remove("cc");
    await disk.writev(0, bytes(512));
    await disk.close();
    expect(await messagesOf(file)).toEqual([]);
    const left = openMemory({ bytes: odd });
    disk = await openQcow2({ file: directChild(left), readOnly: true });
    expect(await disk.bitmaps.list()).toHaveLength(3);
    await disk.close();
    const again = await openQcow2({ file, readOnly: true });
    expect((await again.bitmaps.list()).map(({ inconsistent }) => inconsistent)).toEqual([
      false,
      false,
    ]);
    await again.close();
  });

  test("close() must report what could not be stored, and leave the old bitmaps", async () => {
    const memory = await image();
    const inner = directChild(memory);
    let broken = false;
    const file = Object.create(inner, {
      writev: {
        value: (offset: number, source: IoVector) => {
          if (broken) throw new BlockError("EIO", "sim: injected failure");
          return inner.writev(offset, source);
        },
      },
    }) as BlockChild;
    const disk = await openQcow2({ file });
    await disk.bitmaps.add("old");
    await disk.bitmaps.store();
    await disk.bitmaps.add("new");
    broken = true;
    await expect(disk.close()).rejects.toMatchObject({ code: "EIO" });
    broken = false;
    const again = await openQcow2({ file, readOnly: true });
    expect((await again.bitmaps.list()).map(({ name }) => name)).toEqual(["old"]);
    await again.close();
  });
});

describe("bitmaps of a file that fails", () => {
  /** An image with one bitmap that records, stored, and one that does not, over a disk whose requests can fail. */
  async function stored(): Promise<{ sim: SimDisk; disk: Qcow2Driver }> {
    const memory = await image();
    const first = await openQcow2({ file: directChild(memory) });
    await first.bitmaps.add("b", { granularityBytes: GRANULE });
    await first.bitmaps.add("idle", { granularityBytes: GRANULE, recording: false });
    await first.close();
    const sim = new SimDisk({ content: memory.bytes });
    return { sim, disk: await openQcow2({ file: directChild(sim) }) };
  }

  test("must be marked as in use by the write that comes after one that failed to mark them", async () => {
    const { sim, disk } = await stored();
    sim.inject({ kind: "write" });
    await expect(disk.writev(0, bytes(CLUSTER))).rejects.toMatchObject({ code: "EIO" });
    await disk.writev(0, bytes(CLUSTER));
    await disk.flushToOs();
    await sim.flushToDisk();
    const crashed = await openQcow2({ file: directChild(sim), readOnly: true });
    const content = new Uint8Array(1);
    await crashed.readv(0, IoVector.of(content));
    expect(content[0]).toBe(7);
    // Clean would be a lie: the disk shows the write.
    expect(await crashed.bitmaps.list()).toMatchObject([
      { name: "b", inconsistent: true },
      { name: "idle", inconsistent: false },
    ]);
  });

  test("must miss no write after a store() that failed once, whichever request it was", async () => {
    let failures = 0;
    for (let nth = 1; ; nth++) {
      const { sim, disk } = await stored();
      await disk.writev(0, bytes(CLUSTER));
      await disk.bitmaps.remove("idle");
      await disk.flushToOs();
      sim.inject({ kind: "write", nth });
      const failed = await disk.bitmaps.store().then(
        () => false,
        () => true,
      );
      sim.clearFaults();
      const wrote = await Promise.resolve(disk.writev(5 * CLUSTER, bytes(CLUSTER))).then(
        () => true,
        () => false,
      );
      const closed = await disk.close().then(
        () => true,
        () => false,
      );
      // The header's fate was unknown: nothing is taken for written then.
      expect(closed).toBe(wrote);
      const again = await openQcow2({ file: directChild(sim), readOnly: true });
      if (wrote) {
        const where = `write ${nth}`;
        const list = await again.bitmaps.list();
        expect({ where, list }).toMatchObject({
          where,
          list: [{ name: "b", inconsistent: false }],
        });
        const dirty = await dirtyOf(again, "b");
        const expected = [0, 5].map((i) => `${i * GRANULE}-${(i + 1) * GRANULE}`);
        expect({ where, dirty }).toEqual({ where, dirty: expected });
      }
      expect((await again.check()).corruptions).toBe(0);
      await again.close();
      if (!failed) break;
      failures++;
    }
    expect(failures).toBeGreaterThan(4);
  });
});

describe("an image with more bitmaps than anybody has", () => {
  /** Names a directory of `count` bitmaps that all share the table of the one that the image has. */
  async function crowd(memory: MemoryDriver, count: number, flags: number): Promise<BlockChild> {
    const file = directChild(memory);
    const header = await readHeader(file);
    const data = header.extensions.at(-1)?.data as Uint8Array;
    const at = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(16));
    const first = new Uint8Array(24);
    await memory.readv(at, IoVector.of(first));
    new DataView(first.buffer).setUint32(12, flags);
    new DataView(first.buffer).setUint16(18, 8);
    const directory = new Uint8Array(count * 32);
    for (let i = 0; i < count; i++) {
      directory.set(first, i * 32);
      directory.set(new TextEncoder().encode(String(i).padStart(8, "0")), i * 32 + 24);
    }
    // Nothing counts it, so it lies where nothing is taken soon.
    const place = (Math.ceil(memory.lengthBytes / 2 ** 21) + 16) * 2 ** 21;
    await memory.writev(place, IoVector.of(directory));
    const extension = new Uint8Array(24);
    const view = new DataView(extension.buffer);
    view.setUint32(0, count);
    view.setBigUint64(8, BigInt(directory.length));
    view.setBigUint64(16, BigInt(place));
    const head = new Uint8Array(4096);
    await memory.readv(0, IoVector.of(head));
    await memory.writev(Buffer.from(head).indexOf(Buffer.from(data)), IoVector.of(extension));
    return file;
  }

  async function withBitmap(options: Readonly<Record<string, unknown>>): Promise<MemoryDriver> {
    const memory = await image(options);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await disk.close();
    return memory;
  }

  test("must be written in little memory where the disk is small", {
    timeout: 60_000,
  }, async () => {
    const memory = await withBitmap({ size: 2 ** 22, cluster_size: 2 ** 21 });
    const disk = await openQcow2({ file: await crowd(memory, 65_535, 2) });
    expect(await disk.bitmaps.list()).toHaveLength(65_535);
    const before = process.memoryUsage().arrayBuffers;
    await disk.writev(0, bytes(1));
    // Each has 1 KiB of bits. A cluster for each would be 128 GiB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(512 * 2 ** 20);
    expect(await dirtyOf(disk, "00065534")).toEqual(["0-512"]);
  });

  test("must be refused where noting writes could take memory without end", async () => {
    const memory = await withBitmap({ size: 2 ** 40 });
    const disk = await openQcow2({ file: await crowd(memory, 60, 2) });
    const refused = { code: "ENOMEM", message: expect.stringContaining("60 bitmaps") };
    await expect(disk.writev(0, bytes(1))).rejects.toMatchObject(refused);
    await disk.readv(0, bytes(1));
    await disk.close();
  });

  test("must not have one table read over and over", { timeout: 60_000 }, async () => {
    const memory = await withBitmap({ size: 2 ** 40 });
    const disk = await openQcow2({ file: await crowd(memory, 20_000, 0) });
    const broken = { name: "CorruptImageError", message: expect.stringContaining("bitmap table") };
    const start = performance.now();
    await expect(disk.truncate(2 ** 40 + 512)).rejects.toMatchObject(broken);
    // 10 GB of tables would take minutes.
    expect(performance.now() - start).toBeLessThan(30_000);
    await disk.close();
  });
});

describe("a crash around store()", () => {
  test("must leave the bitmaps before it or after it, or say that they are inconsistent", {
    timeout: 60_000,
  }, async () => {
    const memory = await image({ cluster_size: 512 });
    const trace = new Trace();
    let disk = await openQcow2({ file: directChild(memory) });
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await disk.bitmaps.add("idle", { granularityBytes: 512, recording: false });
    await disk.bitmaps.mark("idle", [{ offset: 512, lengthBytes: 512 }]);
    await disk.close();
    const recorded = new SimDisk({ content: memory.bytes, trace });
    disk = await openQcow2({ file: directChild(recorded) });
    let written = 0;
    for (const sector of [3, 90, 200]) {
      await disk.writev(sector * 512, bytes(512));
      await disk.flushToOs();
      written++;
      if (written === 2) await disk.bitmaps.add("late", { granularityBytes: 512 });
    }
    await disk.bitmaps.mark("idle", [{ offset: 5120, lengthBytes: 512 }]);
    await disk.bitmaps.store();
    await disk.writev(300 * 512, bytes(512));
    await disk.close();
    let states = 0;
    const seen = new Set<string>();
    for (const state of crashStates(trace, { seed: 3, tear: true, maxSubsets: 24 })) {
      states++;
      const file = directChild(state.open());
      const result = await checkQcow2(file, await readHeader(file));
      const { corruptions, checkErrors } = result;
      const where = state.describe();
      expect({ corruptions, checkErrors, where }).toEqual({
        corruptions: 0,
        checkErrors: 0,
        where,
      });
      const found = await openQcow2({ file, readOnly: true });
      const content = new Uint8Array(found.lengthBytes);
      await found.readv(0, IoVector.of(content));
      for (const { name, inconsistent } of await found.bitmaps.list()) {
        seen.add(`${name} ${inconsistent ? "inconsistent" : "stored"}`);
        if (inconsistent) continue;
        const dirty = await dirtyOf(found, name);
        if (name === "idle")
          expect([["512-1024"], ["512-1024", "5120-5632"]]).toContainEqual(dirty);
        if (name !== "b") continue;
        // What the disk shows as written after the bitmap began is dirty in it.
        for (const sector of [3, 90, 200, 300]) {
          if (content[sector * 512] !== 7) continue;
          const range = `${sector * 512}-${sector * 512 + 512}`;
          expect({ where, dirty }).toEqual({ where, dirty: expect.arrayContaining([range]) });
        }
      }
      await found.close();
    }
    expect(states).toBeGreaterThan(100);
    expect([...seen].sort()).toEqual([
      "b inconsistent",
      "b stored",
      "idle stored",
      "late inconsistent",
      "late stored",
    ]);
  });
});

describe("a crash while a header of several sectors gets bitmaps, and loses them", () => {
  // Clusters of 8 KiB and more have the names of features in the header: it does not fit into a sector.
  test.each([{}, { backing_file: "b".repeat(300), backing_fmt: "raw" }])(
    "must leave a header that can be read, with the name of the backing file: %j [C6]",
    async (given) => {
      const memory = await image({ cluster_size: 8192, size: 2 ** 17, ...given });
      const backing = directChild(openMemory({ bytes: new Uint8Array(2 ** 17).fill(3) }));
      const trace = new Trace();
      const file = directChild(new SimDisk({ content: memory.bytes, trace }));
      const disk = await openQcow2({ file, backing });
      await disk.bitmaps.add("b", { granularityBytes: 512 });
      await disk.bitmaps.store();
      await disk.bitmaps.remove("b");
      await disk.close();
      const seen = new Set<number>();
      for (const state of crashStates(trace, { seed: 2, tear: true, maxSubsets: 12 })) {
        const left = directChild(state.open());
        const found = await openQcow2({ file: left, backing, readOnly: true });
        seen.add((await found.bitmaps.list()).length);
        await found.close();
        const { backingFilename, backingFormat } = await readHeader(left);
        const { backing_file: name, backing_fmt: format } = given;
        expect([state.describe(), backingFilename, backingFormat]).toEqual([
          state.describe(),
          name,
          format,
        ]);
      }
      expect(seen).toEqual(new Set([0, 1]));
    },
  );

  test("a header that has no room for them must be refused, and nothing be taken", async () => {
    const memory = await image({ cluster_size: 512, backing_file: "b".repeat(370) });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await expect(disk.bitmaps.store()).rejects.toMatchObject({ code: "ENOSPC" });
    await disk.bitmaps.remove("b");
    await disk.writev(0, bytes(512));
    await disk.close();
    expect(await messagesOf(directChild(memory))).toEqual([]);
  });
});

test("truncate() must leave a directory that can be read after a crash, also with a bitmap that was removed", async () => {
  // Of the longer disk, a table has another entry.
  const memory = await image({ cluster_size: 512, size: 2 ** 21 });
  let disk = await openQcow2({ file: directChild(memory) });
  await disk.bitmaps.add("idle", { granularityBytes: 512, recording: false });
  await disk.close();
  const trace = new Trace();
  disk = await openQcow2({ file: directChild(new SimDisk({ content: memory.bytes, trace })) });
  await disk.bitmaps.remove("idle");
  await disk.truncate(2 ** 22);
  await disk.close();
  const seen = new Set<string>();
  for (const state of crashStates(trace, { seed: 2, tear: true, maxSubsets: 8 })) {
    const found = await openQcow2({ file: directChild(state.open()), readOnly: true });
    const list = await found.bitmaps.list();
    seen.add(`${found.lengthBytes} ${list.map(({ inconsistent }) => inconsistent).join()}`);
    await found.close();
  }
  expect([...seen].toSorted()).toEqual([
    "2097152 false",
    "2097152 true",
    "4194304 ",
    "4194304 true",
  ]);
});

describe("broken bitmaps", () => {
  test("must let only a BlockError escape, in bounded time", { timeout: 60_000 }, async () => {
    const memory = await image();
    let disk = await openQcow2({ file: directChild(memory) });
    for (const name of ["a", "bb", "ccc"]) await disk.bitmaps.add(name, { granularityBytes: 512 });
    await disk.writev(0, bytes(3 * CLUSTER));
    await disk.close();
    const sound = memory.bytes;
    const header = await readHeader(directChild(openMemory({ bytes: sound })));
    const data = header.extensions.at(-1)?.data as Uint8Array;
    const directory = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(16));
    const table = Number(new DataView(sound.buffer, sound.byteOffset).getBigUint64(directory));
    const places: [number, number][] = [
      [directory, 96],
      [table, 16],
      [sound.indexOf(0x23, 100), 32],
      [88, 8],
    ];
    const rng = new Rng(11);
    let refused = 0;
    const attempt = async (work: () => unknown): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        refused++;
      }
    };
    for (let run = 0; run < RUNS; run++) {
      const broken = sound.slice();
      for (let i = 0; i <= rng.below(3); i++) {
        const [start, length] = rng.pick(places);
        broken[start + rng.below(length)] = rng.below(256);
      }
      const file = directChild(openMemory({ bytes: broken }));
      await attempt(async () => {
        disk = await openQcow2({ file });
        await attempt(() => disk.formatInfo());
        await attempt(() => disk.check());
        for (const name of ["a", "bb", "ccc"]) {
          await attempt(() => disk.bitmaps.dirtyRanges(name, 0, 100));
          await attempt(() => disk.bitmaps.clear(name));
        }
        await attempt(() => disk.writev(0, bytes(512)));
        await attempt(() => disk.truncate(80 * CLUSTER));
        await attempt(() => disk.bitmaps.remove("bb"));
        await attempt(() => disk.close());
      });
    }
    expect(refused).toBeGreaterThan(RUNS / 10);
  });
});

describeWithQemu("bitmaps beside qemu-img", () => {
  const scratch = useScratch();

  test("must be read and kept in both directions", async () => {
    const ok = async (...args: readonly string[]): Promise<string> => {
      const result = await qemuImg(...args);
      expect(result).toMatchObject({ code: 0 });
      return result.stdout;
    };
    const name = scratch("both.qcow2");
    await ok("create", "-q", "-f", "qcow2", name, "10M");
    await ok("bitmap", "--add", "-g", "4k", name, "theirs");
    const memory = openMemory({ bytes: new Uint8Array(await readFile(name)) });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(40_000, bytes(1));
    await disk.bitmaps.add("ours", { granularityBytes: 8192 });
    await disk.writev(5_000_000, bytes(20_000));
    await disk.close();
    await writeFile(name, memory.bytes);
    expect(await ok("check", name)).toContain("No errors");
    // A merge by qemu-img shows what it reads in ours: into a new one, with the granularity that shows each bit.
    await ok("bitmap", "--add", "--disable", "-g", "512", name, "sum");
    await ok("bitmap", "--merge", "ours", name, "sum");
    const file = directChild(openMemory({ bytes: new Uint8Array(await readFile(name)) }));
    const again = await openQcow2({ file, readOnly: true });
    expect(await dirtyOf(again, "theirs")).toEqual(["36864-40960", "4997120-5021696"]);
    expect(await dirtyOf(again, "ours")).toEqual(["4997120-5021696"]);
    expect(await dirtyOf(again, "sum")).toEqual(["4997120-5021696"]);
    await again.close();
    expect(await messagesOf(file)).toEqual([]);
  });
});
