/** What a writer does not know, and the specification allows: kept byte for byte, but for unknown autoclear bits. */
import { directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { DATE } from "./support/snapshots.js";
import { bit, bits } from "./support/spec/record.js";
import { sound, type SpecImage } from "./support/spec/spec-image.js";

const UNKNOWN = 0x1234_5678;
const HEADER_LENGTH = 128;
const FIELDS: Uint8Array = Uint8Array.from({ length: HEADER_LENGTH - 112 }, (_, i) => 0xe0 + i);
const EXTENSION_DATA = "what nobody knows";

/** Unknown fields, two unknown extensions of one type, and unknown compatible and autoclear bits. */
function unknownImage(): SpecImage {
  return sound()
    .u32(100, HEADER_LENGTH)
    .raw(112, FIELDS)
    .extension(HEADER_LENGTH, UNKNOWN, EXTENSION_DATA)
    .extension(HEADER_LENGTH + 32, UNKNOWN, "once more")
    .u64(80, bit(40) | bit(63))
    .u64(88, bit(2) | bit(63));
}

/** Opens the image for writing, works on it, and closes it. */
async function after(
  image: SpecImage,
  work: (disk: Qcow2Driver) => Promise<unknown>,
): Promise<MemoryDriver> {
  const memory = openMemory({ bytes: image.bytes });
  const disk = await openQcow2({ file: directChild(memory) });
  await work(disk);
  await disk.close();
  return memory;
}

function write(disk: Qcow2Driver): Promise<unknown> {
  return Promise.resolve(disk.writev(0, IoVector.of(new Uint8Array(8192).fill(9))));
}

function u64(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at);
}

describe("what is unknown in a header", () => {
  test("must stay as it is while data is written, but for autoclear bits", async () => {
    const image = unknownImage();
    const { bytes } = await after(image, write);
    const expected = image.bytes.slice(0, 4096);
    expected.fill(0, 88, 96);
    expect(Buffer.compare(bytes.subarray(0, 4096), expected)).toBe(0);
  });

  test("must stay when the header is written anew", async () => {
    const memory = await after(unknownImage(), (disk) =>
      Promise.resolve(disk.bitmaps.add("b", { granularityBytes: 4096 })),
    );
    const { bytes } = memory;
    // The bitmaps extension came, with its bit; the writer's own bit is the only autoclear one.
    expect(u64(bytes, 88)).toBe(1n);
    expect(u64(bytes, 80)).toBe(bit(40) | bit(63));
    expect([...bytes.subarray(112, HEADER_LENGTH)]).toEqual([...FIELDS]);
    const header = await readHeader(directChild(memory));
    expect(header.headerLength).toBe(HEADER_LENGTH);
    expect(header.extensions).toHaveLength(3);
    expect(header.unknownExtensions.map(({ data }) => Buffer.from(data).toString())).toEqual([
      EXTENSION_DATA,
      "once more",
    ]);
  });

  test("must stay when nothing is written", async () => {
    const image = unknownImage();
    const { bytes } = await after(image, async () => {});
    expect(Buffer.compare(bytes, image.bytes)).toBe(0);
  });

  test.each(bits(2, 63))("autoclear bit %i must be cleared by a write", async (n) => {
    const { bytes } = await after(sound().u64(88, bit(n)), write);
    expect(u64(bytes, 88)).toBe(0n);
  });

  test.each(bits(1, 63))("compatible bit %i must stay through a write", async (n) => {
    const { bytes } = await after(sound().u64(80, bit(n)), write);
    expect(u64(bytes, 80)).toBe(bit(n));
  });
});

describe("what is unknown in a snapshot's entry", () => {
  test("must stay when another snapshot is made", async () => {
    const table = 9 * 4096;
    const image = sound().u32(60, 1).u64(64, table).refcount(9, 1).refcount(10, 1);
    image
      .u64(table, 10 * 4096)
      .u32(table + 8, 1)
      .u16(table + 12, 1)
      .u32(table + 36, 40);
    image.u64(table + 48, 65_536).u64(table + 56, 0xffff_ffff_ffff_ffffn);
    image.raw(table + 64, new Uint8Array(16).fill(0xdd)).text(table + 80, "1");
    const entry = image.bytes.slice(table, table + 81);
    const memory = await after(image, (disk) =>
      Promise.resolve(disk.snapshots.create({ name: "another", ...DATE })),
    );
    const file = directChild(memory);
    const { snapshotsOffset, snapshotCount } = await readHeader(file);
    expect(snapshotCount).toBe(2);
    const kept = memory.bytes.subarray(snapshotsOffset, snapshotsOffset + 81);
    expect(Buffer.compare(kept, entry)).toBe(0);
    const { corruptions, leaks } = await checkQcow2(file, await readHeader(file));
    expect({ corruptions, leaks }).toEqual({ corruptions: 0, leaks: 0 });
  });
});

describe("a bitmap's extra data", () => {
  test("must stay when another bitmap is stored", async () => {
    const directory = 9 * 4096;
    const image = sound().u64(88, 1).extension(112, 0x2385_2875, new Uint8Array(24));
    image.u32(120, 1).u64(128, 40).u64(136, directory);
    image
      .u64(directory, 10 * 4096)
      .u32(directory + 8, 1)
      .u8(directory + 16, 1);
    image
      .u8(directory + 17, 9)
      .u16(directory + 18, 3)
      .u32(directory + 20, 8);
    image
      .text(directory + 24, "extradatone")
      .refcount(9, 1)
      .refcount(10, 1);
    const memory = await after(image, (disk) =>
      Promise.resolve(disk.bitmaps.add("another", { granularityBytes: 4096 })),
    );
    const text = Buffer.from(memory.bytes).toString("latin1");
    const { extensions } = await readHeader(directChild(memory));
    const [bitmaps] = extensions;
    const at = Number(u64(bitmaps?.data ?? new Uint8Array(24), 16));
    expect(at).not.toBe(directory);
    expect(text.slice(at + 24, at + 35)).toBe("extradatone");
  });
});
