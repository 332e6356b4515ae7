/**
 * Images whose file is longer than 2^32 clusters, or as long as their refcount table can count: every number that counts
 * clusters passes 32 bits, and host offsets go up to 2^53.
 */
import { stat, writeFile } from "node:fs/promises";
import { directChild, parseOptions } from "@blocklayer/block-api";
import { BlockError, IoVector, viewOf } from "@blocklayer/bytes";
import { openFile } from "@blocklayer/file";
import type { MemoryDriver } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { describe, expect, test, vi } from "vitest";
import { amendOptions } from "../src/amend/options.js";
import { geometryOf, type HostOffset, MAX_REFCOUNT_TABLE_BYTES } from "../src/geometry.js";
import { openQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import {
  checkOf,
  type FarDisk,
  findingsOf,
  growRefcountTable,
  openFar,
  readBack,
} from "./support/far.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { runQemuIo } from "./support/replay.js";
import { DATE, filled } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();
vi.setConfig({ testTimeout: 30_000 });

const TWO_POW_32 = 2 ** 32;

/** An image, and where in its file new clusters go. */
interface Shape {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly cluster: number;
  /** Where the first cluster goes, when the refcount table is to become as long as it may before the others come. */
  readonly first?: number;
}

const SHAPES: readonly Shape[] = [
  { name: "64k, 256 TiB", options: {}, cluster: TWO_POW_32 + 7 },
  { name: "64k, version 2", options: { compat: "v2" }, cluster: TWO_POW_32 + 32767 },
  { name: "64k, 1 bit", options: { refcount_bits: 1 }, cluster: TWO_POW_32 + 2 ** 31 },
  {
    name: "64k, 64 bits",
    options: { refcount_bits: 64 },
    cluster: 2 ** 33 - 2 ** 14,
    first: 0.8 * 2 ** 33,
  },
  {
    name: "64k, near the end of the longest table",
    options: {},
    cluster: 2 ** 35 - 2 ** 14,
    first: 0.8 * 2 ** 35,
  },
  {
    name: "1k, 1 bit, 4 TiB",
    options: { cluster_size: "1k", refcount_bits: 1 },
    cluster: TWO_POW_32 + 7,
  },
  {
    name: "512, 1 bit, near the end of the longest table",
    options: { cluster_size: 512, refcount_bits: 1 },
    cluster: TWO_POW_32 - 2 ** 14,
    first: 0.8 * TWO_POW_32,
  },
  {
    name: "4k, 2 bits, 16 TiB",
    options: { cluster_size: "4k", refcount_bits: 2 },
    cluster: TWO_POW_32 - 9,
  },
  {
    name: "16k, subclusters, 64 TiB",
    options: { cluster_size: "16k", extended_l2: true },
    cluster: TWO_POW_32 + 7,
  },
  {
    name: "512k, zstd, 1 PiB",
    options: { cluster_size: "512k", compression_type: "zstd" },
    cluster: 2 ** 31 - 5,
  },
  {
    name: "2M, below the end of compressed data",
    options: { cluster_size: "2M" },
    cluster: 2 ** 28 - 2000,
  },
];

const GUEST_CLUSTERS = 24;

function sizeOf(options: Shape["options"]): number {
  return (
    { 512: 512, "1k": 1024, "4k": 4096, "16k": 16384, "512k": 2 ** 19, "2M": 2 ** 21 }[
      String(options["cluster_size"])
    ] ?? 65536
  );
}

function create({ options }: Pick<Shape, "options">): Promise<MemoryDriver> {
  return createInMemory({ size: GUEST_CLUSTERS * sizeOf(options), ...options });
}

/** Has the refcount table grow to its full length, where the shape asks for that. */
async function spread(memory: MemoryDriver, { first }: Shape): Promise<void> {
  if (first === undefined) return;
  await growRefcountTable(memory, Math.floor(first));
  const { refcountTableClusters, clusterBits } = await readHeader(directChild(memory));
  expect(refcountTableClusters * 2 ** clusterBits).toBe(MAX_REFCOUNT_TABLE_BYTES);
}

/** One random request, on the disk and on its model. */
async function step(
  { disk }: FarDisk,
  model: Uint8Array,
  cluster: number,
  random: Random,
): Promise<void> {
  const first = random.below(GUEST_CLUSTERS);
  const count = Math.min(1 + random.below(3), GUEST_CLUSTERS - first);
  const start = first * cluster;
  const end = start + count * cluster;
  const value = 1 + random.below(255);
  switch (random.below(7)) {
    case 0:
    case 1:
      await disk.writev(start, filled(end - start, value));
      model.fill(value, start, end);
      break;
    case 2:
      await disk.writev(start + 512, filled(512, value));
      model.fill(value, start + 512, Math.min(start + 1024, model.length));
      break;
    case 3:
      await disk.writev(start, filled(end - start, value), { compressed: true });
      model.fill(value, start, end);
      break;
    case 4:
      await disk.writeZeroes(start, end - start, { mayUnmap: value > 127 });
      model.fill(0, start, end);
      break;
    case 5:
      await disk.discard(start, end - start);
      model.fill(0, start, end);
      break;
    default:
      await disk.flushToOs();
  }
}

describe("images beyond 2^32 clusters", () => {
  test.each(SHAPES)("must read what was written, and be clean: $name", async (shape) => {
    const memory = await create(shape);
    const clusterSize = sizeOf(shape.options);
    const model = new Uint8Array(GUEST_CLUSTERS * clusterSize);
    const random = new Random(shape.cluster % 1000);
    await spread(memory, shape);
    for (let round = 0; round < 2; round++) {
      const far = await openFar(memory, shape.cluster + round * 100);
      await far.disk.writev(0, filled(clusterSize, 7));
      model.fill(7, 0, clusterSize);
      for (let i = 0; i < 20; i++) {
        if (i % 5 === 0) far.image.allocator.cursor = shape.cluster + round * 100;
        await step(far, model, clusterSize, random);
      }
      await far.disk.close();
      expect(await findingsOf(memory)).toEqual([]);
      expect(Buffer.compare(await readBack(memory, 0, model.length), model)).toBe(0);
    }
    expect(memory.lengthBytes).toBeGreaterThan(shape.cluster * clusterSize);
  });
});

/** Where the data of the disks below begins. */
const FAR = TWO_POW_32 + 1005;

/** An image of 24 clusters of 64 KiB, the first `count` of them written with 1, 2, 3… from `FAR` on, and closed. */
async function farImage(
  count = 3,
  options: Shape["options"] = {},
  cluster = FAR,
): Promise<MemoryDriver> {
  const memory = await create({ options });
  const size = sizeOf(options);
  await growRefcountTable(memory, cluster - 1000);
  const { disk, image } = await openFar(memory, cluster);
  for (let i = 0; i < count; i++) {
    await disk.writev(i * size, filled(size, i + 1));
    image.allocator.cursor = cluster + 10 * (i + 1);
  }
  await disk.close();
  return memory;
}

/** The first byte of each of the first clusters. */
async function firstBytes(
  memory: MemoryDriver,
  count: number,
  clusterSize = 65536,
): Promise<number[]> {
  const bytes = await readBack(memory, 0, count * clusterSize);
  return Array.from({ length: count }, (_, i) => bytes[i * clusterSize] as number);
}

/** Where guest clusters lie. */
async function placesOf(
  memory: MemoryDriver,
  count: number,
  clusterSize = 65536,
): Promise<HostOffset[]> {
  const disk = await openQcow2({ file: directChild(memory), readOnly: true });
  const places: HostOffset[] = [];
  for (let i = 0; i < count; i++) {
    const { hostOffset } = await disk.blockStatus(i * clusterSize, clusterSize);
    places.push(hostOffset ?? 0);
  }
  await disk.close();
  return places;
}

function bytesAt(memory: MemoryDriver, at: HostOffset, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  memory.readv(at, IoVector.of(bytes));
  return bytes;
}

function numberAt(memory: MemoryDriver, at: HostOffset): number {
  return Number(viewOf(bytesAt(memory, at, 8)).getBigUint64(0) & 0x00ff_ffff_ffff_fe00n);
}

function put(memory: MemoryDriver, at: HostOffset, value: bigint): void {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, value);
  memory.writev(at, IoVector.of(bytes));
}

/** Where the 16-bit refcount of a cluster lies. */
async function refcountPlace(memory: MemoryDriver, cluster: number): Promise<HostOffset> {
  const header = await readHeader(directChild(memory));
  const entries = geometryOf(header).refcountBlockEntries;
  const block = numberAt(memory, header.refcountTableOffset + Math.floor(cluster / entries) * 8);
  return block + (cluster % entries) * 2;
}

async function putRefcount(memory: MemoryDriver, cluster: number, value: number): Promise<void> {
  const at = await refcountPlace(memory, cluster);
  memory.writev(at, IoVector.of(Uint8Array.of(value >>> 8, value & 255)));
}

/** Where the L2 entry of guest cluster 0 lies. */
async function entryPlace(memory: MemoryDriver): Promise<HostOffset> {
  const { l1TableOffset } = await readHeader(directChild(memory));
  return numberAt(memory, l1TableOffset);
}

async function repair(memory: MemoryDriver, fix: "leaks" | "all"): Promise<readonly string[]> {
  const file = directChild(memory);
  const { result } = await repairQcow2(file, await readHeader(file), { fix });
  return result.findings.map(({ message }) => message);
}

describe("metadata beyond 2^32 clusters", () => {
  test("data, L2 tables, refcount blocks and the refcount table must lie where they were put", async () => {
    const memory = await farImage();
    const header = await readHeader(directChild(memory));
    const end = TWO_POW_32 * 65536;
    expect(await placesOf(memory, 3)).toEqual([FAR + 1, FAR + 10, FAR + 20].map((c) => c * 65536));
    expect(await entryPlace(memory)).toBe(FAR * 65536);
    expect(header.refcountTableOffset).toBeGreaterThan(end);
    expect(header.refcountTableClusters * 8192).toBeGreaterThan(TWO_POW_32 / 32768);
    expect(await refcountPlace(memory, FAR)).toBeGreaterThan(end);
    const { imageEndOffset, allocatedClusters } = await checkOf(memory);
    expect(imageEndOffset).toBeGreaterThan(header.refcountTableOffset);
    expect(allocatedClusters).toBe(3);
  });

  test("a snapshot must be made, shown, applied and deleted", async () => {
    const memory = await farImage();
    const places = await placesOf(memory, 3);
    const { disk, image } = await openFar(memory, FAR + 100);
    await disk.snapshots.create({ name: "s", ...DATE });
    image.allocator.cursor = FAR + 200;
    await disk.writev(0, filled(65536, 9));
    await disk.discard(65536, 65536);
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 3)).toEqual([9, 0, 3]);
    const again = (await openFar(memory, FAR + 300)).disk;
    await again.snapshots.apply({ name: "s" });
    await again.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 3)).toEqual([1, 2, 3]);
    const last = (await openFar(memory, FAR + 400)).disk;
    await last.snapshots.delete({ name: "s" });
    await last.writev(0, filled(65536, 4));
    await last.close();
    expect(await findingsOf(memory)).toEqual([]);
    // COPIED came back with the last reference: the cluster was written in place.
    expect(await placesOf(memory, 3)).toEqual(places);
  });

  test("a bitmap must be stored and read", async () => {
    const memory = await farImage();
    const { disk } = await openFar(memory, FAR + 100);
    await disk.bitmaps.add("b", { granularityBytes: 65536 });
    await disk.writev(5 * 65536, filled(512, 1));
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
    const again = await openQcow2({ file: directChild(memory), readOnly: true });
    expect(await again.bitmaps.dirtyRanges("b", 0, 10)).toEqual([
      { offset: 5 * 65536, lengthBytes: 65536 },
    ]);
    await again.close();
  });

  test("refcounts of another width must count the same", async () => {
    const memory = await farImage();
    const { disk } = await openFar(memory, FAR + 100);
    await disk.amend(parseOptions(amendOptions, { refcount_bits: 2 }, "qcow2"));
    await disk.writev(4 * 65536, filled(65536, 5));
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 5)).toEqual([1, 2, 3, 0, 5]);
  });

  test("refcounts of another width must be made from the longest table", async () => {
    const memory = await create({ options: {} });
    await spread(memory, { name: "", options: {}, cluster: 0, first: 0.8 * 2 ** 35 });
    const { disk } = await openFar(memory, Math.floor(0.9 * 2 ** 35));
    await disk.writev(0, filled(65536, 1));
    await disk.amend(parseOptions(amendOptions, { refcount_bits: 8 }, "qcow2"));
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 1)).toEqual([1]);
  });

  test("a shorter disk must give everything back, and the file be cut", async () => {
    const memory = await farImage();
    const { disk } = await openFar(memory, FAR + 100);
    await disk.truncate(65536);
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 1)).toEqual([1]);
    const longer = (await openFar(memory, FAR + 100)).disk;
    await longer.truncate(6 * 65536, { preallocation: "metadata" });
    await longer.close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 6)).toEqual([1, 0, 0, 0, 0, 0]);
  });

  test("lazy refcounts must be mended when the image is opened after a crash", async () => {
    const memory = await farImage(1, { lazy_refcounts: true });
    const { disk, image } = await openFar(memory, FAR + 100);
    await disk.writev(65536, filled(65536, 2));
    await disk.flushToOs();
    await image.sync();
    expect(await findingsOf(memory)).not.toEqual([]);
    await (await openQcow2({ file: directChild(memory) })).close();
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 2)).toEqual([1, 2]);
  });
});

describe("the ends of what can be named", () => {
  test.each([
    { name: "64k, the longest refcount table", options: {}, end: 2 ** 35 },
    { name: "2M, 2^53 bytes of file", options: { cluster_size: "2M" }, end: TWO_POW_32 - 1 },
  ])(
    "writev() must refuse what no refcount can count, and leave no more than it was: $name",
    async ({ options, end }) => {
      const size = sizeOf(options);
      const memory = await create({ options });
      if (size === 65536) await spread(memory, { name: "", options, cluster: 0, first: 0.8 * end });
      const near = await openQcow2({ file: directChild(memory) });
      await near.writev(0, filled(size, 1));
      await near.close();
      // Eight clusters are left, and one of them becomes the block that counts them.
      const { disk } = await openFar(memory, end - 8);
      const refused = {
        code: "EFBIG",
        message: expect.stringContaining("cannot grow any further"),
      };
      const refuse = async (first: number, count: number): Promise<void> => {
        const tooMany = (async () => disk.writev(first * size, filled(count * size, 99)))();
        await expect(tooMany).rejects.toMatchObject(refused);
      };
      await refuse(1, 8);
      await disk.writev(size, filled(size, 2));
      await refuse(2, 7);
      let written = 2;
      for (; written < 10; written++) {
        try {
          await disk.writev(written * size, filled(size, written + 1));
        } catch (error) {
          expect(error).toMatchObject(refused);
          break;
        }
      }
      expect(written).toBe(8);
      await disk.close();
      expect(await findingsOf(memory)).toEqual([]);
      const expected = Array.from({ length: 9 }, (_, i) => (i < written ? i + 1 : 0));
      expect(await firstBytes(memory, 9, size)).toEqual(expected);
      expect(memory.lengthBytes).toBeLessThanOrEqual(end * size);
    },
  );

  test.each([
    { cluster_size: "2M", bits: 49 },
    { cluster_size: "512k", bits: 51 },
  ])(
    "a compressed cluster must lie below 2^$bits bytes with clusters of $cluster_size, and is refused beyond",
    async ({ cluster_size, bits }) => {
      const options = { cluster_size };
      const size = sizeOf(options);
      const limit = 2 ** bits;
      expect(geometryOf(await readHeader(directChild(await create({ options }))))).toMatchObject({
        maxCompressedOffset: limit,
      });
      const memory = await create({ options });
      const { disk, image } = await openFar(memory, limit / size - 50);
      await disk.writev(0, filled(size, 1));
      image.allocator.cursor = limit / size - 1;
      // Noise, so that little fits into a cluster.
      const noise = Uint8Array.from({ length: size }, (_, i) =>
        i % 3 === 0 ? 1 : (i * i * 31) >> 7,
      );
      let packed = 0;
      let refusal: unknown;
      while (packed < 8 && refusal === undefined) {
        try {
          await disk.writev((packed + 1) * size, IoVector.of(noise), { compressed: true });
          packed++;
        } catch (error) {
          refusal = error;
        }
      }
      expect(refusal).toMatchObject({ code: "EFBIG" });
      expect(packed).toBeGreaterThan(0);
      await disk.writev(20 * size, filled(size, 3));
      await disk.close();
      expect(await findingsOf(memory)).toEqual([]);
      for (let i = 1; i <= packed; i++) {
        expect(Buffer.compare(await readBack(memory, i * size, size), noise)).toBe(0);
      }
      expect((await readBack(memory, (packed + 1) * size, size)).every((byte) => byte === 0)).toBe(
        true,
      );
      expect((await readBack(memory, 20 * size, 1))[0]).toBe(3);
    },
  );

  test("VM state must be refused behind 2^53 - 1, not written elsewhere", async () => {
    const memory = await createInMemory({ size: 2 ** 53 - 512, cluster_size: "2M" });
    const disk = await openQcow2({ file: directChild(memory) });
    await expect(disk.snapshots.writeVmState(1, filled(1, 1))).rejects.toMatchObject({
      code: "EFBIG",
      message: expect.stringContaining("2^53"),
    });
    const bytes = new Uint8Array(512).fill(1);
    await disk.snapshots.readVmState(0, IoVector.of(bytes));
    expect(bytes).toEqual(new Uint8Array(512));
    await disk.close();
  });

  test("truncate() must cut a long sparse file in no time", async () => {
    const memory = await createInMemory({ size: 2 ** 20, cluster_size: 512 });
    memory.truncate(2 ** 53 - 512);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.truncate(2 ** 19);
    await disk.close();
    expect(memory.lengthBytes).toBeLessThan(2 ** 20);
    expect(await findingsOf(memory)).toEqual([]);
  });
});

describe("repairQcow2() beyond 2^32 clusters", () => {
  test("must give leaks back", async () => {
    const memory = await farImage();
    await putRefcount(memory, FAR + 2, 1);
    await putRefcount(memory, FAR + 11, 3);
    expect(await findingsOf(memory)).toEqual([
      `Leaked cluster ${FAR + 2} refcount=1 reference=0`,
      `Leaked cluster ${FAR + 11} refcount=3 reference=0`,
    ]);
    await repair(memory, "leaks");
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 3)).toEqual([1, 2, 3]);
  });

  test("must build the refcounts anew", async () => {
    const memory = await farImage();
    const before = (await readHeader(directChild(memory))).refcountTableOffset;
    await putRefcount(memory, FAR + 10, 0);
    const messages = await repair(memory, "all");
    expect(messages).toContain(`ERROR cluster ${FAR + 10} refcount=0 reference=1`);
    expect(messages).toContain("Rebuilding refcount structure");
    expect((await readHeader(directChild(memory))).refcountTableOffset).toBeGreaterThan(before);
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 3)).toEqual([1, 2, 3]);
  });

  test("must mend flags, and drop what lies nowhere", async () => {
    const memory = await farImage();
    const entry = await entryPlace(memory);
    put(memory, entry, BigInt((FAR + 1) * 65536));
    put(memory, entry + 8, (1n << 63n) | BigInt(2 ** 53 - 65536));
    put(memory, entry + 24, (1n << 63n) | (1n << 55n));
    expect(await findingsOf(memory)).toHaveLength(6);
    await repair(memory, "all");
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 4)).toEqual([1, 0, 3, 0]);
  });

  test("must call refcounts unknown that no block holds, and count them", async () => {
    const memory = await farImage();
    const { refcountTableOffset } = await readHeader(directChild(memory));
    put(memory, refcountTableOffset + 2 ** 17 * 8, 0x1_0200n);
    const { checkErrors, corruptions } = await checkOf(memory);
    expect(corruptions).toBeGreaterThan(0);
    expect(checkErrors).toBe(Math.min(32768, Math.ceil(memory.lengthBytes / 65536) - TWO_POW_32));
    await repair(memory, "all");
    expect(await findingsOf(memory)).toEqual([]);
    expect(await firstBytes(memory, 3)).toEqual([1, 2, 3]);
  });

  test("must not copy compressed data to where no entry can name it", async () => {
    const options = { cluster_size: "512k", refcount_bits: 1 };
    const size = sizeOf(options);
    const memory = await create({ options });
    const near = await openQcow2({ file: directChild(memory) });
    await near.writev(0, filled(size, 7), { compressed: true });
    await near.close();
    const { disk } = await openFar(memory, TWO_POW_32 + 5);
    await disk.writev(5 * size, filled(size, 6));
    await disk.close();
    const entry = await entryPlace(memory);
    memory.writev(entry + 8, IoVector.of(bytesAt(memory, entry, 8)));
    await repair(memory, "all");
    expect(await firstBytes(memory, 6, size)).toEqual([7, 7, 0, 0, 0, 6]);
    expect(Buffer.compare(bytesAt(memory, entry, 8), bytesAt(memory, entry + 8, 8))).toBe(0);
  });

  test("must refuse to append behind 2^53 - 1", async () => {
    // With these the refcount table would reach that far.
    const options = { cluster_size: "2M" };
    const size = sizeOf(options);
    const memory = await create({ options });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, filled(size, 1));
    await disk.close();
    const [place = 0] = await placesOf(memory, 1, size);
    await putRefcount(memory, place / size, 0);
    memory.truncate(Number.MAX_SAFE_INTEGER);
    const repaired = repair(memory, "all");
    await expect(repaired).rejects.toBeInstanceOf(BlockError);
    await expect(repaired).rejects.toMatchObject({
      code: "EFBIG",
      message: expect.stringContaining("2^53"),
    });
    expect(await firstBytes(memory, 1, size)).toEqual([1]);
  });
});

describeWithQemu("clusters far out in a file, and the real qemu-img", () => {
  const scratch = useScratch();

  /** An image in a sparse file, with data and metadata from a cluster on. */
  async function sparseFile(options: Shape["options"], cluster: number): Promise<string> {
    const filename = scratch("far.qcow2");
    await writeFile(filename, (await create({ options })).bytes);
    const file = await openFile(filename, { noFlush: true });
    await growRefcountTable(file, cluster - 1000);
    const { disk } = await openFar(file, cluster);
    const size = sizeOf(options);
    for (let i = 0; i < 4; i++) await disk.writev(2 * i * size, filled(size, i + 1));
    await disk.writev(10 * size, filled(size, 5), { compressed: true });
    await disk.close();
    await file.close();
    expect((await stat(filename)).size).toBeGreaterThan(cluster * size);
    return filename;
  }

  test.each([
    // More than 2^31 - 1 clusters, which qemu-img does not check.
    {
      name: "1k, 4 TiB, 2^32 clusters",
      options: { cluster_size: "1k", refcount_bits: 1 },
      cluster: TWO_POW_32 + 7,
      isChecked: false,
    },
    { name: "64k, 3 TiB", options: {}, cluster: 3 * 2 ** 24 + 7, isChecked: true },
  ])(
    "must be read and written by qemu-io, and be clean after: $name",
    async ({ options, cluster, isChecked }) => {
      const filename = await sparseFile(options, cluster);
      const size = sizeOf(options);
      const theirs = await qemuImg("check", "--output=json", "-f", "qcow2", filename);
      if (isChecked) expect(theirs).toMatchObject({ code: 0 });
      else expect(theirs.stderr).toContain("File too large");
      await runQemuIo(filename, [
        ...[0, 1, 2, 3].map((i) => `read -P ${i + 1} ${2 * i * size} ${size}`),
        `read -P 5 ${10 * size} ${size}`,
        `write -P 7 0 ${size}`,
        `write -P 8 ${12 * size} ${2 * size}`,
        `discard ${2 * size} ${size}`,
        `write -z -u ${4 * size} ${size}`,
      ]);
      const file = await openFile(filename, { readOnly: true });
      expect(await findingsOf(file)).toEqual([]);
      const bytes = await readBack(file, 0, GUEST_CLUSTERS * size);
      const firsts = Array.from({ length: 14 }, (_, i) => bytes[i * size]);
      expect(firsts).toEqual([7, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 8, 8]);
      await file.close();
      if (isChecked) {
        expect(await qemuImg("check", "-f", "qcow2", filename)).toMatchObject({ code: 0 });
      }
    },
  );
});
