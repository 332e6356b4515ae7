/** Changing what an image is: the disk stays, every check is clean, and a crash leaves an image of before or after. */
import { readFile, writeFile } from "node:fs/promises";
import { type BlockChild, directChild, parseOptions } from "@blocklayer/block-api";
import { BlockError, IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { amendOptions } from "../src/amend/options.js";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

const KIB = 1024;
const BACKING = {
  backing_file: "a-name-that-is-quite-long-but-not-too-long.raw",
  backing_fmt: "raw",
};

function amend(disk: Qcow2Driver, given: Record<string, unknown>): Promise<void> {
  return disk.amend(parseOptions(amendOptions, given, "qcow2"));
}

async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

const base = (): BlockChild => directChild(openMemory({ bytes: new Uint8Array(64 * KIB).fill(9) }));

/** An image with data, compressed data, and zeroes with and without a place. */
async function sample(
  given: Record<string, unknown>,
  backing?: BlockChild,
): Promise<{ bytes: Uint8Array; content: Uint8Array }> {
  const memory = await createInMemory({ size: 64 * KIB, cluster_size: 2048, ...given });
  const disk = await openQcow2({
    file: directChild(memory),
    ...(backing === undefined ? {} : { backing }),
  });
  await disk.writev(0, IoVector.of(stampedBytes(1, 0, 20 * KIB)));
  await disk.writev(24 * KIB, IoVector.of(new Uint8Array(8 * KIB).fill(5)), { compressed: true });
  if (given["compat"] !== "v2") {
    await disk.writeZeroes(2 * KIB, 6 * KIB);
    await disk.writeZeroes(40 * KIB, 10 * KIB);
  }
  const content = await contentOf(disk);
  await disk.close();
  return { bytes: memory.bytes.slice(), content };
}

async function checked(file: BlockChild): Promise<unknown> {
  const { corruptions, leaks } = await checkQcow2(file, await readHeader(file));
  return { corruptions, leaks };
}

describe("amend()", () => {
  test.each([
    [{ compat: "0.10" }, {}, false],
    [{ compat: "0.10" }, BACKING, true],
    [{ compat: "1.1" }, { compat: "v2" }, false],
    [{ compat: "1.1", lazy_refcounts: true, refcount_bits: 4 }, { compat: "v2", ...BACKING }, true],
    [{ refcount_bits: 64 }, {}, false],
    [{ refcount_bits: 8, size: 100 * KIB }, { refcount_bits: 32 }, false],
    [{ compat: "0.10", refcount_bits: 16, size: 10 * KIB }, { refcount_bits: 8 }, false],
  ])("%j must keep the disk, in memory and in the file: %j", async (wanted, given, hasBacking) => {
    const backing = hasBacking ? { backing: base() } : {};
    const { bytes, content } = await sample(given, backing.backing);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory), ...backing });
    await amend(disk, wanted);
    const size = "size" in wanted ? (wanted.size as number) : content.length;
    const expected = new Uint8Array(size);
    expected.set(content.subarray(0, size));
    expect(Buffer.compare(await contentOf(disk), expected)).toBe(0);
    // The same driver goes on.
    await disk.writev(4 * KIB, IoVector.of(stampedBytes(8, 4 * KIB, 6 * KIB)));
    expected.set(stampedBytes(8, 4 * KIB, 6 * KIB), 4 * KIB);
    await disk.close();
    expect(await checked(directChild(memory))).toEqual({ corruptions: 0, leaks: 0 });
    const header = await readHeader(directChild(memory));
    if ("compat" in wanted) expect(header.version).toBe(wanted.compat === "0.10" ? 2 : 3);
    if ("refcount_bits" in wanted) expect(2 ** header.refcountOrder).toBe(wanted.refcount_bits);
    expect(header.backingFormat).toBe(hasBacking ? "raw" : undefined);
    const again = await openQcow2({ file: directChild(memory), ...backing, readOnly: true });
    expect(Buffer.compare(await contentOf(again), expected)).toBe(0);
    await again.close();
  });

  test.each([
    ["an older version", { compat: "0.10" }, BACKING],
    ["a newer version", { compat: "1.1" }, { compat: "v2", ...BACKING }],
    ["wider refcounts", { refcount_bits: 64 }, BACKING],
    [
      "narrower refcounts, older version",
      { compat: "0.10", refcount_bits: 16 },
      { refcount_bits: 64 },
    ],
  ])(
    "must leave the image of before or after a crash: %s [C1, C6]",
    async (_, wanted, given) => {
      // Clusters of 4 KiB leave the header its sectors; 8 KiB and more have names of features.
      const hasBacking = "backing_file" in given;
      const backing = hasBacking ? { backing: base() } : {};
      const { bytes, content } = await sample({ cluster_size: 8192, ...given }, backing.backing);
      const trace = new Trace();
      const file = new SimDisk({ content: bytes, trace });
      const disk = await openQcow2({ file: directChild(file), ...backing });
      await amend(disk, wanted);
      await disk.close();
      let states = 0;
      const seen = new Set<string>();
      for (const state of crashStates(trace, { seed: 3, maxSubsets: 8, tear: true })) {
        states++;
        const left = directChild(state.open());
        const header = await readHeader(left);
        expect([header.version, header.backingFilename, header.backingFormat]).toEqual([
          header.version,
          hasBacking ? BACKING.backing_file : undefined,
          hasBacking ? "raw" : undefined,
        ]);
        seen.add(`${header.version} ${header.refcountOrder}`);
        const { corruptions } = await checkQcow2(left, header);
        expect([state.describe(), corruptions]).toEqual([state.describe(), 0]);
        const after = await openQcow2({ file: left, ...backing, readOnly: true });
        expect(Buffer.compare(await contentOf(after), content)).toBe(0);
        await after.close();
      }
      expect(states).toBeGreaterThan(5);
      expect(seen.size).toBeGreaterThan(1);
    },
    30_000,
  );

  test.each([
    ["refcount width must be a power", { refcount_bits: 3 }, {}],
    ["compat=0.10 requires refcount_bits=16", { compat: "0.10" }, { refcount_bits: 8 }],
    ["require compatibility level 1.1", { refcount_bits: 8 }, { compat: "v2" }],
    ["lazy refcounts only supported", { lazy_refcounts: true }, { compat: "v2" }],
    ["cannot amend the backing file", { backing_file: "x" }, {}],
    ["cannot amend the backing file", { backing_fmt: "raw" }, {}],
    ["external data file", { data_file: "x" }, {}],
    ["data-file-raw cannot be set", { data_file_raw: true }, {}],
    ["multiple of 512", { size: 1000 }, {}],
  ])("must refuse with '%s', and change nothing", async (words, wanted, given) => {
    const { bytes } = await sample(given);
    const memory = openMemory({ bytes });
    const before = memory.bytes.slice();
    const disk = await openQcow2({ file: directChild(memory) });
    await expect(amend(disk, wanted)).rejects.toThrow(new RegExp(words, "i"));
    await disk.close();
    expect(Buffer.compare(memory.bytes, before)).toBe(0);
  });

  test("compat=0.10 must be possible for an image that says zstd while nothing is compressed", async () => {
    const memory = await createInMemory({ size: 64 * KIB, compression_type: "zstd" });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(stampedBytes(3, 0, 8 * KIB)));
    await amend(disk, { compat: "0.10" });
    await disk.close();
    const header = await readHeader(directChild(memory));
    expect([header.version, header.incompatible]).toEqual([2, 0n]);
    expect(await checked(directChild(memory))).toEqual({ corruptions: 0, leaks: 0 });
  });

  test("compat=0.10 must be refused before anything changes where a cluster is compressed by zstd", async () => {
    const { bytes, content } = await sample({ compression_type: "zstd" });
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    await expect(amend(disk, { compat: "0.10" })).rejects.toThrow(
      "Cannot downgrade an image with zstd compression type and existing compressed clusters",
    );
    expect(Buffer.compare(await contentOf(disk), content)).toBe(0);
    await disk.close();
    expect((await readHeader(directChild(memory))).version).toBe(3);
  });

  test("must refuse counts that do not fit, and a block that is named twice", async () => {
    const { bytes } = await sample({});
    const table = Number(viewOf(bytes).getBigUint64(48));
    const block = Number(viewOf(bytes).getBigUint64(table));
    const shared = bytes.slice();
    viewOf(shared).setUint16(block, 2);
    let disk = await openQcow2({ file: directChild(openMemory({ bytes: shared })) });
    const before = shared.slice();
    const both = { refcount_bits: 1, lazy_refcounts: true };
    await expect(amend(disk, both)).rejects.toThrow(
      "Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x0 has a refcount of 2",
    );
    await disk.close();
    expect(Buffer.compare(shared, before)).toBe(0);
    const twice = bytes.slice();
    viewOf(twice).setBigUint64(table + 8, BigInt(block));
    disk = await openQcow2({ file: directChild(openMemory({ bytes: twice })) });
    const refused = amend(disk, { refcount_bits: 64 });
    await expect(refused).rejects.toThrow(/entry 1 names a refcount block that another one names/);
    await expect(refused).rejects.toBeInstanceOf(BlockError);
    await disk.close();
  });
});

describe("amend() and bitmaps", () => {
  test("must refuse an older version for bitmaps that were not stored yet, and keep them", async () => {
    const { bytes } = await sample({});
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await expect(amend(disk, { compat: "0.10" })).rejects.toThrow("Bitmaps prevent downgrade");
    await disk.close();
    const again = await openQcow2({ file: directChild(memory), readOnly: true });
    expect((await again.bitmaps.list()).map(({ name }) => name)).toEqual(["b"]);
    await again.close();
  });

  test("must store a bitmap only behind what was written before it was made", async () => {
    const memory = await createInMemory({ size: 64 * KIB, cluster_size: 512 });
    const trace = new Trace();
    const file = new SimDisk({ content: memory.bytes, trace });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.writev(0, IoVector.of(stampedBytes(5, 0, 512)));
    await disk.bitmaps.add("b", { granularityBytes: 512 });
    await amend(disk, { lazy_refcounts: true });
    await disk.close();
    let stored = 0;
    for (const state of crashStates(trace, { seed: 4, maxSubsets: 8, tear: true })) {
      const after = await openQcow2({ file: directChild(state.open()), readOnly: true });
      const list = await after.bitmaps.list();
      if (list[0]?.inconsistent === false) {
        stored++;
        // It says that nothing was written since: so the write is there.
        const sector = new Uint8Array(512);
        await after.readv(0, IoVector.of(sector));
        expect([state.describe(), Buffer.compare(sector, stampedBytes(5, 0, 512))]).toEqual([
          state.describe(),
          0,
        ]);
      }
      await after.close();
    }
    expect(stored).toBeGreaterThan(2);
  });
});

describe("amend() on a disk that fails", () => {
  test("must never go on with refcounts that count no more, whichever sync it was [C17]", async () => {
    let failures = 0;
    for (let nth = 1; nth < 40; nth++) {
      const { bytes } = await sample({});
      const file = new SimDisk({ content: bytes });
      const disk = await openQcow2({ file: directChild(file) });
      file.inject({ kind: "flush", nth });
      const failed = await amend(disk, { refcount_bits: 64, lazy_refcounts: true }).then(
        () => false,
        () => true,
      );
      file.clearFaults();
      if (!failed) break;
      failures++;
      const data = IoVector.of(stampedBytes(6, 0, 60 * KIB));
      const goOn = async (): Promise<void> => {
        await disk.writev(0, data);
        await disk.flushToOs();
      };
      await goOn().catch(() => undefined);
      await disk.close().catch(() => undefined);
      const header = await readHeader(directChild(file));
      const repaired = await openQcow2({ file: directChild(file) });
      await repaired.close();
      const { corruptions } = await checkQcow2(
        directChild(file),
        await readHeader(directChild(file)),
      );
      expect([nth, header.refcountOrder, corruptions]).toEqual([nth, header.refcountOrder, 0]);
    }
    expect(failures).toBeGreaterThan(3);
  });
});

describeWithQemu("amend() and the real qemu-img", () => {
  const scratch = useScratch();

  test.each(["512", "4k", "64k"])(
    "must agree through every width and both versions, clusters of %s",
    async (clusterSize) => {
      const [theirs, ours, raw] = [scratch("t.qcow2"), scratch("o.qcow2"), scratch("r.raw")];
      await writeFile(raw, stampedBytes(1, 0, 700 * KIB));
      const options = ["-o", `cluster_size=${clusterSize}`];
      await qemuImg("convert", "-f", "raw", "-O", "qcow2", ...options, raw, theirs);
      const memory = openMemory({ bytes: await readFile(theirs) });
      const disk = await openQcow2({ file: directChild(memory) });
      for (const bits of [1, 64, 4, 32, 2, 8, 16]) {
        await amend(disk, { refcount_bits: bits });
        await writeFile(ours, memory.bytes);
        expect((await qemuImg("check", ours)).stdout).toContain("No errors");
      }
      for (const compat of ["0.10", "1.1"]) {
        await amend(disk, { compat });
        await qemuImg("amend", "-o", `compat=${compat}`, theirs);
        await writeFile(ours, memory.bytes);
        expect((await qemuImg("check", ours)).stdout).toContain("No errors");
        const head = Math.min(1024, Number(clusterSize.replace("k", "024")));
        const same = [...(await readFile(theirs)).subarray(0, head)].map((byte, at) =>
          at >= 48 && at < 60 ? 0 : byte,
        );
        // The refcount table lies elsewhere; nothing else in the header differs.
        const own = [...memory.bytes.subarray(0, head)].map((byte, at) =>
          at >= 48 && at < 60 ? 0 : byte,
        );
        expect(own).toEqual(same);
      }
      await disk.close();
      expect((await qemuImg("compare", ours, raw)).stdout).toContain("identical");
    },
    60_000,
  );
});
