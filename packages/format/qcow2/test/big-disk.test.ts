/** Disks of 64 TiB, and as large as the longest L1 table maps: 32 MiB of it. Bytes far out, and the end itself. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { type BlockStatus, directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { type FileDriver, openFile } from "@blocklayer/file";
import type { MemoryDriver } from "@blocklayer/memory";
import { describe, expect, test, vi } from "vitest";
import { ENTRY_BYTES, geometryOf, MAX_L1_BYTES } from "../src/geometry.js";
import { createOptions, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { measureQcow2 } from "../src/measure.js";
import { findingsOf } from "./support/far.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, type QemuResult, useScratch } from "./support/qemu.js";
import { runCommand, runQemuIo } from "./support/replay.js";
import { DATE, filled } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();
// L1 tables of 32 MiB, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });

const TIB = 2 ** 40;
/** The longest disk that an offset of 53 bits reaches, in sectors. */
const LONGEST = 2 ** 53 - 512;

interface Shape {
  readonly name: string;
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly sizeBytes: number;
  /** Nothing longer has an L1 table. */
  readonly isBound?: true;
  /** Grown to from a small one, too. */
  readonly isGrown?: true;
}

const SHAPES: readonly Shape[] = [
  { name: "64k, 64 TiB", options: {}, sizeBytes: 64 * TIB, isGrown: true },
  { name: "64k, 64 TiB and a sector", options: {}, sizeBytes: 64 * TIB + 512 },
  { name: "64k, version 2", options: { compat: "0.10" }, sizeBytes: 64 * TIB },
  {
    name: "64k, subclusters, 64 TiB",
    options: { extended_l2: "on" },
    sizeBytes: 64 * TIB,
    isGrown: true,
  },
  { name: "64k, the longest", options: {}, sizeBytes: 2 ** 51, isBound: true, isGrown: true },
  {
    name: "64k, subclusters, the longest",
    options: { extended_l2: "on" },
    sizeBytes: 2 ** 50,
    isBound: true,
  },
  { name: "512, the longest", options: { cluster_size: 512 }, sizeBytes: 2 ** 37, isBound: true },
  { name: "2M, 2^53 bytes", options: { cluster_size: "2M" }, sizeBytes: LONGEST, isGrown: true },
];

function create({ options, sizeBytes }: Shape): Promise<MemoryDriver> {
  return createInMemory({ size: sizeBytes, ...options });
}

/** Some places of a disk, ascending: its start, both sides of L2 tables' ends, the middle, its end. */
async function placesOf(memory: MemoryDriver): Promise<number[]> {
  const { virtualSize, clusterSize, l2CoverageBytes } = geometryOf(
    await readHeader(directChild(memory)),
  );
  const middle = Math.floor(virtualSize / 2 / l2CoverageBytes) * l2CoverageBytes;
  const lastTable = Math.floor((virtualSize - 1) / l2CoverageBytes) * l2CoverageBytes;
  return [
    0,
    l2CoverageBytes - clusterSize,
    l2CoverageBytes,
    middle - 512,
    middle,
    lastTable - clusterSize,
    virtualSize - 512,
  ];
}

async function expectAt(disk: Qcow2Driver, at: number, value: number): Promise<void> {
  const bytes = new Uint8Array(512);
  await disk.readv(at, IoVector.of(bytes));
  expect({ at, first: bytes[0], last: bytes[511] }).toEqual({ at, first: value, last: value });
}

/** Every extent of the disk. */
async function extentsOf(disk: Qcow2Driver): Promise<readonly BlockStatus[]> {
  const extents: BlockStatus[] = [];
  for (let at = 0; at < disk.lengthBytes; at += (extents.at(-1) as BlockStatus).lengthBytes) {
    extents.push(await disk.blockStatus(at, disk.lengthBytes - at));
  }
  return extents;
}

/** The L1 table is as long as it may be, and the disk cannot become longer. */
async function expectBound(memory: MemoryDriver, shape: Shape): Promise<void> {
  expect((await readHeader(directChild(memory))).l1Size * ENTRY_BYTES).toBe(MAX_L1_BYTES);
  await expect(create({ ...shape, sizeBytes: shape.sizeBytes + 512 })).rejects.toMatchObject({
    code: "EFBIG",
    message: expect.stringContaining("The image size is too large for file format 'qcow2'"),
  });
  const disk = await openQcow2({ file: directChild(memory) });
  await expect((async () => disk.truncate(shape.sizeBytes + 512))()).rejects.toMatchObject({
    code: "EFBIG",
    message: "Failed to grow the L1 table: File too large",
  });
  await disk.close();
}

/** Takes a snapshot, changes the last sector, checks, and goes back. */
async function throughSnapshot(
  disk: Qcow2Driver,
  memory: MemoryDriver,
  sizeBytes: number,
): Promise<void> {
  await disk.snapshots.create({ name: "s", ...DATE });
  await disk.writev(sizeBytes - 512, filled(512, 7));
  await disk.flushToOs();
  expect(await findingsOf(memory)).toEqual([]);
  await disk.snapshots.apply({ name: "s" });
  await expectAt(disk, sizeBytes - 512, 6);
  await disk.snapshots.delete({ name: "s" });
}

describe("disks of many terabytes", () => {
  test.each(SHAPES)(
    "must hold what is written anywhere, after they are opened again: $name",
    async (shape) => {
      const memory = await create(shape);
      const file = directChild(memory);
      const places = await placesOf(memory);
      const disk = await openQcow2({ file });
      for (const [i, at] of places.entries()) await disk.writev(at, filled(512, i + 1));
      await disk.close();
      expect(await findingsOf(memory)).toEqual([]);
      const again = await openQcow2({ file });
      for (const [i, at] of places.entries()) await expectAt(again, at, i + 1);
      const extents = await extentsOf(again);
      expect(extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(shape.sizeBytes);
      expect(extents.length).toBeLessThan(5 * places.length);
      const { clusterSize } = geometryOf(await readHeader(file));
      const lastCluster = shape.sizeBytes - (shape.sizeBytes % clusterSize || clusterSize);
      const packed = lastCluster - 2 * clusterSize;
      await again.writev(packed, filled(clusterSize, 77), { compressed: true });
      await again.writeZeroes(shape.sizeBytes - 512, 512);
      await again.writeZeroes(places[1] as number, clusterSize, { mayUnmap: true });
      await again.discard(0, clusterSize);
      await expectAt(again, packed + clusterSize - 512, 77);
      for (const at of [0, places[1] as number, shape.sizeBytes - 512])
        await expectAt(again, at, 0);
      await again.writev(lastCluster, filled(shape.sizeBytes - lastCluster, 78), {
        compressed: true,
      });
      await again.close();
      expect(await findingsOf(memory)).toEqual([]);
      const last = await openQcow2({ file, readOnly: true });
      await expectAt(last, shape.sizeBytes - 512, 78);
      await expectAt(last, places[2] as number, 3);
      await last.close();
      if (shape.isBound) await expectBound(memory, shape);
    },
  );

  test.each(SHAPES.filter(({ isGrown }) => isGrown))(
    "must grow up to that, keep a snapshot, and shrink: $name",
    async (shape) => {
      const { sizeBytes } = shape;
      const memory = await createInMemory({ size: 2 ** 20, ...shape.options });
      const disk = await openQcow2({ file: directChild(memory) });
      await disk.writev(0, filled(512, 5));
      await disk.truncate(sizeBytes);
      await disk.writev(sizeBytes - 512, filled(512, 6));
      if (shape.isBound !== true) await throughSnapshot(disk, memory, sizeBytes);
      await disk.truncate(2 ** 20);
      await disk.flushToOs();
      expect(await findingsOf(memory)).toEqual([]);
      await expectAt(disk, 0, 5);
      await disk.truncate(sizeBytes);
      await expectAt(disk, sizeBytes - 512, 0);
      await disk.close();
    },
  );

  test("a disk behind 2^53 - 1 must be refused by name", async () => {
    const memory = await createInMemory({ size: LONGEST, cluster_size: "2M" });
    const disk = await openQcow2({ file: directChild(memory) });
    expect(disk.lengthBytes).toBe(LONGEST);
    await expect((async () => disk.truncate(2 ** 53))()).rejects.toMatchObject({ code: "EFBIG" });
    expect(disk.lengthBytes).toBe(LONGEST);
    await disk.close();
    const field = new Uint8Array(8);
    viewOf(field).setBigUint64(0, 2n ** 53n);
    await memory.writev(24, IoVector.of(field));
    await expect(openQcow2({ file: directChild(memory) })).rejects.toThrow("2^53");
  });
});

/** Commands that go through qemu-io and through our driver alike: both ends, and on both sides of an L2 table's end. */
function commandsFor(sizeBytes: number, clusterSize: number, coverage: number): readonly string[] {
  const end = sizeBytes - (sizeBytes % clusterSize || clusterSize);
  const table = Math.floor(end / coverage) * coverage;
  return [
    "write -P 1 0 64k",
    `write -P 3 ${table - 4096} 4608`,
    `write -P 2 ${sizeBytes - 512} 512`,
    `write -c -P 4 ${end - 8 * clusterSize} ${clusterSize}`,
    `write -z ${end - 4 * clusterSize} ${3 * clusterSize}`,
    `write -P 5 ${Math.floor(table / 2 / coverage) * coverage} 1000`,
    `discard 0 ${clusterSize}`,
    `write -P 6 ${end - 2 * clusterSize} 512`,
  ];
}

describeWithQemu("disks of many terabytes, and the real qemu-img", () => {
  const scratch = useScratch();

  /** Makes the image with qemu-img. */
  async function createTheirs(shape: Shape, filename: string): Promise<void> {
    const made = await qemuCreate(shape, filename);
    expect(made).toMatchObject({ code: 0, stderr: "" });
  }

  // qemu-img takes many seconds to make the longest disk of 512-byte clusters; `create` compares smaller ones.
  const quick = SHAPES.filter(({ options }) => options["cluster_size"] !== 512);

  test.each(quick)("must be created as there, byte for byte: $name", async (shape) => {
    const filename = scratch("fresh.qcow2");
    await createTheirs(shape, filename);
    expect(Buffer.compare((await create(shape)).bytes, await readFile(filename))).toBe(0);
    await rm(filename);
  });

  test.each(SHAPES.filter(({ isBound }) => isBound))(
    "must be refused in the same words when they are a sector longer: $name",
    async (shape) => {
      const longer = { ...shape, sizeBytes: shape.sizeBytes + 512 };
      const theirs = await qemuCreate(longer, scratch("none.qcow2"));
      const error = await create(longer).then(
        () => new Error("created"),
        (reason: Error) => reason,
      );
      expect(theirs.code).toBe(1);
      expect(theirs.stderr).toContain(error.message);
    },
  );

  test.each(SHAPES.filter(({ isBound }) => isBound !== true))(
    "must be written half by each, and read and checked alike: $name",
    async (shape) => {
      const theirs = scratch("theirs.qcow2");
      const ours = scratch("ours.qcow2");
      await createTheirs(shape, theirs);
      const memory = await create(shape);
      const { clusterSize, l2CoverageBytes } = geometryOf(await readHeader(directChild(memory)));
      const commands = commandsFor(shape.sizeBytes, clusterSize, l2CoverageBytes);
      await runQemuIo(theirs, commands.slice(0, 4), ["-t", "unsafe"]);
      const first = await openFile(theirs, { noFlush: true });
      await run(first, commands.slice(4));
      await first.close();
      await run(memory, commands.slice(0, 4));
      await writeFile(ours, memory.bytes);
      await runQemuIo(ours, commands.slice(4), ["-t", "unsafe"]);
      const files = [
        await openFile(theirs, { readOnly: true }),
        await openFile(ours, { readOnly: true }),
      ] as const;
      const disks = [await readOnly(files[0]), await readOnly(files[1])] as const;
      for (const at of await placesOf(memory)) {
        expect(await readAt(disks[0], at)).toEqual(await readAt(disks[1], at));
      }
      for (const [i, filename] of [theirs, ours].entries()) {
        const disk = disks[i] as Qcow2Driver;
        await expectAt(disk, shape.sizeBytes - 512, 2);
        expect(await qemuImg("check", "-q", "-f", "qcow2", filename)).toMatchObject({ code: 0 });
        expect((await disk.check()).findings).toEqual([]);
        await disk.close();
      }
      for (const file of files) await file.close();
      await rm(theirs);
      await rm(ours);
    },
  );

  test.each(SHAPES)("must be measured as there: $name", async ({ options, sizeBytes }) => {
    const words = optionWords(options);
    const size = ["--size", String(sizeBytes)];
    const theirs = await qemuImg("measure", "--output=json", "-O", "qcow2", ...words, ...size);
    const parsed = parseOptions(createOptions, { size: sizeBytes, ...options }, "qcow2");
    const { requiredBytes, fullyAllocatedBytes } = await measureQcow2({ options: parsed });
    expect(JSON.parse(theirs.stdout)).toEqual({
      required: requiredBytes,
      "fully-allocated": fullyAllocatedBytes,
    });
  });

  test("must be made longer by each, and read by the other", async () => {
    const filename = scratch("longer.qcow2");
    await createTheirs({ name: "", options: {}, sizeBytes: TIB }, filename);
    await runQemuIo(filename, [`write -P 1 ${TIB - 512} 512`]);
    expect(await qemuImg("resize", "-q", "-f", "qcow2", filename, "64T")).toMatchObject({
      code: 0,
    });
    const file = await openFile(filename, { noFlush: true });
    const disk = await openQcow2({ file: directChild(file) });
    expect(disk.lengthBytes).toBe(64 * TIB);
    await expectAt(disk, TIB - 512, 1);
    await disk.writev(64 * TIB - 512, filled(512, 2));
    await disk.truncate(300 * TIB);
    await disk.writev(300 * TIB - 512, filled(512, 3));
    await disk.close();
    await file.close();
    await runQemuIo(filename, [
      `read -P 1 ${TIB - 512} 512`,
      `read -P 2 ${64 * TIB - 512} 512`,
      `read -P 0 ${200 * TIB} 1M`,
      `read -P 3 ${300 * TIB - 512} 512`,
    ]);
    expect(await qemuImg("check", "-f", "qcow2", filename)).toMatchObject({ code: 0 });
    const { stdout } = await qemuImg("info", "--output=json", filename);
    expect(JSON.parse(stdout)).toMatchObject({ "virtual-size": 300 * TIB });
  });
});

function optionWords(options: Shape["options"]): string[] {
  return Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
}

function qemuCreate({ options, sizeBytes }: Shape, filename: string): Promise<QemuResult> {
  const words = optionWords(options);
  return qemuImg("create", "-q", "-f", "qcow2", ...words, filename, String(sizeBytes));
}

async function run(store: MemoryDriver | FileDriver, commands: readonly string[]): Promise<void> {
  const disk = await openQcow2({ file: directChild(store) });
  for (const command of commands) await runCommand(disk, command);
  await disk.close();
}

function readOnly(store: FileDriver): Promise<Qcow2Driver> {
  return openQcow2({ file: directChild(store), readOnly: true });
}

async function readAt(disk: Qcow2Driver, at: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(512);
  await disk.readv(at, IoVector.of(bytes));
  return bytes;
}
