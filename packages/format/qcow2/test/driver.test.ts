import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, IoVector, TiB, viewOf } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { writeFile } from "node:fs/promises";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const CLUSTER = 65536;

function filled(length: number, value: number): IoVector {
  return IoVector.of(new Uint8Array(length).fill(value));
}

async function read(disk: Qcow2Driver, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await disk.readv(offset, IoVector.of(bytes));
  return bytes;
}

function open(memory: MemoryDriver, more: object = {}): Promise<Qcow2Driver> {
  return openQcow2({ file: directChild(memory), ...more });
}

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof BlockError) return error.code;
    throw error;
  }
  return "none";
}

/** An image with one data cluster at guest offset 0, and where its L2 entry lies. */
async function oneCluster(
  options: Readonly<Record<string, unknown>> = {},
): Promise<{ memory: MemoryDriver; entryAt: number }> {
  const memory = await createInMemory({ size: 2 ** 22, ...options });
  const disk = await open(memory);
  await disk.writev(0, filled(CLUSTER, 7));
  await disk.close();
  const header = await readHeader(directChild(memory));
  const l1 = viewOf(memory.bytes);
  const entryAt = l1.getUint32(header.l1TableOffset + 4);
  return { memory, entryAt };
}

function poke(memory: MemoryDriver, at: number, high: number, low: number): void {
  const field = new Uint8Array(8);
  viewOf(field).setUint32(0, high);
  viewOf(field).setUint32(4, low);
  memory.writev(at, IoVector.of(field));
}

describe("openQcow2", () => {
  test("must refuse to write a corrupt image, and read it all the same", async () => {
    const { memory } = await oneCluster();
    poke(memory, 72, 0, 2);
    expect(await codeOf(() => open(memory))).toBe("EACCES");
    const disk = await open(memory, { readOnly: true });
    expect((await read(disk, 0, 512))[0]).toBe(7);
    await disk.close();
  });

  test("must refuse options that it does not have", async () => {
    const memory = await createInMemory({ size: 2 ** 20 });
    expect(await codeOf(() => open(memory, { options: { "discard-no-unref": "on" } }))).toBe(
      "ENOTSUP",
    );
    for (const options of [
      { "l2-cache-entry-size": 3000 },
      { "l2-cache-entry-size": "128k" },
      { "cache-size": "1M", "l2-cache-size": "2M" },
      { "overlap-check": "some" },
      { "overlap-check": "all", "overlap-check.template": "none" },
      { "overlap-check.active-l3": true },
      { unknown: 1 },
    ]) {
      expect(await codeOf(() => open(memory, { options }))).toBe("EINVAL");
    }
  });

  test("must leave the file as it was when nothing is written", async () => {
    const { memory } = await oneCluster();
    const before = memory.bytes;
    const disk = await open(memory);
    await read(disk, 0, 2 ** 22);
    await disk.blockStatus(0, 2 ** 22);
    await disk.flushToOs();
    await disk.close();
    expect(Buffer.compare(memory.bytes, before)).toBe(0);
  });
});

describe("Qcow2Driver", () => {
  test("must clear autoclear bits with the first write, not before [C15]", async () => {
    const { memory } = await oneCluster();
    poke(memory, 88, 0x8000_0000, 0);
    const disk = await open(memory);
    await read(disk, 0, 512);
    expect(viewOf(memory.bytes).getUint32(88)).toBe(0x8000_0000);
    await disk.writev(0, filled(512, 1));
    expect(viewOf(memory.bytes).getUint32(88)).toBe(0);
    await disk.close();
  });

  test.each([
    ["the header", 0],
    ["the refcount table", CLUSTER],
    ["a refcount block", 2 * CLUSTER],
    ["the L1 table", 3 * CLUSTER],
    ["an L2 table", 4 * CLUSTER],
  ])("must not write over %s, and mark the image as corrupt [C16]", async (_, target) => {
    const { memory, entryAt } = await oneCluster();
    expect(entryAt).toBe(4 * CLUSTER);
    // An entry of offset 0 would be no data cluster: the header's case is its second half.
    poke(memory, entryAt, 0x8000_0000, target === 0 ? 0x200 : target);
    const before = memory.bytes;
    const disk = await open(memory);
    const error = await Promise.resolve()
      .then(() => disk.writev(0, filled(512, 1)))
      .then(() => undefined)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(CorruptImageError);
    if (target === 0) return;
    const after = memory.bytes;
    expect(viewOf(after).getUint32(76)).toBe(2);
    viewOf(after).setUint32(76, 0);
    expect(Buffer.compare(after, before)).toBe(0);
    expect(await codeOf(() => disk.writev(2 ** 20, filled(512, 1)))).toBe("ENODEFAILED");
    expect(await codeOf(() => disk.flushToOs())).toBe("ENODEFAILED");
    expect(await codeOf(() => disk.close())).toBe("ENODEFAILED");
  });

  test("must not take clusters that tables lie in, whatever the refcounts say [C16]", async () => {
    const { memory } = await oneCluster();
    const header = await readHeader(directChild(memory));
    // All refcounts become 0, but that of the header.
    memory.writev(2 * CLUSTER + 2, IoVector.allocate(100));
    const disk = await open(memory);
    expect(await codeOf(() => disk.writev(2 ** 20, filled(CLUSTER, 1)))).toBe("ECORRUPT");
    expect((await readHeader(directChild(memory))).l1TableOffset).toBe(header.l1TableOffset);
    expect(await codeOf(() => disk.close())).toBe("ENODEFAILED");
  });

  test("must refuse what an entry cannot be", async () => {
    const { memory, entryAt } = await oneCluster();
    poke(memory, entryAt, 0x8000_0000, 5 * CLUSTER + 512);
    const disk = await open(memory);
    expect(await codeOf(() => read(disk, 0, 512))).toBe("ECORRUPT");
    expect(await codeOf(() => disk.writev(0, filled(512, 1)))).toBe("ECORRUPT");
    await disk.close();
    const old = await oneCluster({ compat: "v2" });
    poke(old.memory, old.entryAt, 0, 1);
    const second = await open(old.memory);
    expect(await codeOf(() => read(second, 0, 512))).toBe("ECORRUPT");
    await second.close();
  });

  test("must answer plainly what is in memory", async () => {
    const { memory } = await oneCluster();
    const disk = await open(memory);
    await read(disk, 0, 512);
    expect(disk.readv(4096, IoVector.allocate(4096))).toBeUndefined();
    await disk.writev(0, filled(512, 1));
    expect(disk.writev(8192, filled(4096, 2))).toBeUndefined();
    expect(disk.blockStatus(0, 4096)).not.toBeInstanceOf(Promise);
    expect(disk.flushToOs()).toBeUndefined();
    await disk.close();
  });

  test("blockStatus() must span a terabyte of nothing in one step", async () => {
    const memory = await createInMemory({ size: TiB });
    const disk = await open(memory);
    expect(disk.blockStatus(0, TiB)).toMatchObject({
      lengthBytes: TiB,
      allocated: false,
      zero: true,
    });
    await disk.writev(TiB / 2, filled(512, 1));
    expect(await disk.blockStatus(0, TiB)).toMatchObject({ lengthBytes: TiB / 2 });
    await disk.close();
  });

  test("blockStatus() must merge what goes on in the same way", async () => {
    const memory = await createInMemory({ size: 2 ** 20, cluster_size: 512 });
    const disk = await open(memory);
    // Two L2 tables lie between: three contiguous stretches in the file.
    await disk.writev(0, filled(32_768, 1));
    await disk.writev(32_768, filled(1024, 2), { compressed: true });
    await disk.writeZeroes(40_960, 2048);
    const first = await disk.blockStatus(0, 2 ** 20);
    expect(first).toMatchObject({ lengthBytes: 32_768, data: true, recurse: true });
    expect(first.hostOffset).toBeGreaterThan(0);
    const second = await disk.blockStatus(32_768, 2 ** 19);
    expect(second).toMatchObject({ lengthBytes: 1024, compressed: true, allocated: true });
    expect(second.hostOffset).toBeUndefined();
    expect(await disk.blockStatus(40_960, 2 ** 19)).toMatchObject({
      lengthBytes: 2048,
      zero: true,
      allocated: true,
      data: false,
    });
    await disk.close();
  });

  test("must refuse compressed writes of parts of clusters", async () => {
    const memory = await createInMemory({ size: 2 * CLUSTER + 512 });
    const disk = await open(memory);
    const compressed = { compressed: true };
    expect(await codeOf(() => disk.writev(512, filled(CLUSTER, 1), compressed))).toBe("EINVAL");
    expect(await codeOf(() => disk.writev(0, filled(512, 1), compressed))).toBe("EINVAL");
    await disk.writev(2 * CLUSTER, filled(512, 9), compressed);
    expect((await read(disk, 2 * CLUSTER, 512))[511]).toBe(9);
    await disk.close();
  });

  test("must decompress a cluster once for many small reads", async () => {
    const memory = await createInMemory({ size: 2 ** 20 });
    const disk = await open(memory);
    await disk.writev(0, filled(2 * CLUSTER, 3), { compressed: true });
    await Promise.all(Array.from({ length: 16 }, (_, i) => read(disk, i * 4096, 4096)));
    expect(disk.statistics()["compressedReads"]).toBe(1);
    await disk.writev(0, filled(CLUSTER, 4), { compressed: true });
    expect((await read(disk, 4096, 1))[0]).toBe(4);
    await disk.close();
  });

  test("must forget a decompressed cluster whose place is used again", async () => {
    const memory = await createInMemory({ size: 2 ** 20 });
    const disk = await open(memory);
    const compressed = { compressed: true };
    await disk.writev(0, filled(CLUSTER, 3), compressed);
    const { bytes } = memory;
    expect((await read(disk, 0, 512))[0]).toBe(3);
    await disk.discard(0, CLUSTER);
    await disk.flushToOs();
    await disk.writev(0, filled(CLUSTER, 4), compressed);
    // The new data lies where the old one did: the file has not grown.
    expect(memory.bytes.length).toBe(bytes.length);
    expect((await read(disk, 0, 512))[0]).toBe(4);
    await disk.close();
  });

  test("must discard in the file only what is durably free [D2]", async () => {
    const image = await createInMemory({ size: 2 ** 20 });
    const discarded: string[] = [];
    let flushes = 0;
    const file = new SimDisk({
      content: image.bytes,
      onRequest: ({ kind, offset, lengthBytes }) => {
        if (kind === "flush") flushes++;
        if (kind === "discard") discarded.push(`${offset}+${lengthBytes} after ${flushes}`);
      },
    });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.writev(0, filled(2 * CLUSTER, 1));
    await disk.flushToOs();
    const { hostOffset } = await disk.blockStatus(0, CLUSTER);
    const before = flushes;
    await disk.discard(0, 2 * CLUSTER);
    expect(discarded).toEqual([]);
    await disk.flushToOs();
    expect(discarded).toEqual([`${hostOffset}+${2 * CLUSTER} after ${before + 1}`]);
    await disk.close();
    const quiet = await openQcow2({
      file: directChild(file),
      options: { "pass-discard-request": "off" },
    });
    await quiet.writev(0, filled(CLUSTER, 1));
    await quiet.discard(0, CLUSTER);
    await quiet.close();
    expect(discarded.length).toBe(1);
  });

  test("reopen() must let a reader become a writer, and back", async () => {
    const { memory } = await oneCluster();
    const disk = await open(memory, { readOnly: true });
    expect(await codeOf(() => disk.writev(0, filled(512, 1)))).toBe("EACCES");
    await disk.reopen({ readOnly: false, options: { "overlap-check": "all" } });
    await disk.writev(2 ** 20, filled(512, 1));
    await disk.reopen({ readOnly: true, options: {} });
    expect(disk.capabilities.write).toBe(false);
    const result = await checkQcow2(directChild(memory), await readHeader(directChild(memory)));
    expect(result.findings).toEqual([]);
    await disk.close();
    expect(await codeOf(() => disk.readv(0, filled(512, 0)))).toBe("ECLOSED");
  });

  test("statistics() must count what happened", async () => {
    const memory = await createInMemory({ size: 2 ** 20 });
    const disk = await open(memory);
    await disk.writev(512, filled(512, 1));
    await disk.writev(CLUSTER, filled(CLUSTER, 1), { compressed: true });
    expect(disk.statistics()).toMatchObject({
      cowBytes: CLUSTER - 512,
      compressedWrites: 1,
      allocatedClusters: 2,
      failed: false,
    });
    await disk.close();
  });
});

describe("truncate()", () => {
  test("must refuse lengths that cannot be, and preallocation of what gets shorter", async () => {
    const memory = await createInMemory({ size: 2 ** 20 });
    const disk = await open(memory);
    expect(await codeOf(() => disk.truncate(2 ** 19 + 1))).toBe("EINVAL");
    expect(await codeOf(() => disk.truncate(2 ** 19, { preallocation: "full" }))).toBe("EINVAL");
    expect(await codeOf(() => disk.truncate(2 ** 52))).toBe("EFBIG");
    expect(disk.lengthBytes).toBe(2 ** 20);
    await disk.close();
  });

  test("must show zeroes where a backing file is longer, when asked to", async () => {
    for (const compat of ["v2", "v3"]) {
      const memory = await createInMemory({
        size: 1000 * 512,
        compat,
        backing_file: "base",
        backing_fmt: "raw",
      });
      const backing = directChild(openMemory({ bytes: new Uint8Array(2 ** 21).fill(5) }));
      const disk = await open(memory, { backing });
      await disk.truncate(2 ** 20, { zeroWrite: true });
      expect((await read(disk, 999 * 512, 512))[0]).toBe(5);
      expect((await read(disk, 1000 * 512, 24 * 512)).every((byte) => byte === 0)).toBe(true);
      await disk.truncate(2 ** 21);
      expect((await read(disk, 2 ** 20, 512))[0]).toBe(5);
      await disk.close();
    }
  });
});

describeWithQemu("truncate() and the real qemu-img", () => {
  const scratch = useScratch();

  test.each(["512", "64k"])("must agree on a longer disk, clusters of %s", async (clusterSize) => {
    const memory = await createInMemory({ size: 2 ** 20, cluster_size: clusterSize });
    const disk = await open(memory);
    await disk.writev(0, filled(2 ** 19, 1));
    await disk.truncate(2 ** 28);
    await disk.writev(2 ** 28 - 4096, filled(4096, 2));
    await disk.close();
    const image = scratch("grown.qcow2");
    await writeFile(image, memory.bytes);
    expect(await qemuImg("check", image)).toMatchObject({ code: 0 });
    expect((await qemuImg("info", image)).stdout).toContain("256 MiB");
    const again = await open(memory, { readOnly: true });
    expect((await read(again, 2 ** 28 - 1, 1))[0]).toBe(2);
    expect((await read(again, 2 ** 19 - 1, 2)).join()).toBe("1,0");
    await again.close();
  });
});
