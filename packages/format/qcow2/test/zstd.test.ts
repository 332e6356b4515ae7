/** zstd clusters beside the real qemu-img, in both directions, and the level of both compression types. */
import { readFile, writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { Random } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { childOf, createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

/** All that qcow2 and QEMU have. */
const CLUSTER_SIZES = Array.from({ length: 13 }, (_, i) => 2 ** (9 + i));
const SIZE = 3 * 2 ** 20 + 512;

/** Noise, words and nothing, in pieces of some kilobytes. */
function content(seed: number): Uint8Array {
  const random = new Random(seed);
  const bytes = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; ) {
    const length = Math.min(SIZE - at, 1 + random.below(60_000));
    const part = bytes.subarray(at, at + length);
    const kind = random.below(4);
    if (kind === 0) part.set(random.bytes(length));
    else if (kind < 3) for (let i = 0; i < length; i++) part[i] = 97 + ((i * i * 7) % 23) + (i % 3);
    at += length;
  }
  return bytes;
}

/** An image of `bytes`, written compressed in one request per 2 MiB. */
async function compressedImage(
  bytes: Uint8Array,
  create: Readonly<Record<string, unknown>>,
  open: Readonly<Record<string, unknown>> = {},
): Promise<Uint8Array> {
  const memory = await createInMemory({ size: bytes.length, ...create });
  const disk = await openQcow2({ file: directChild(memory), options: open });
  for (let at = 0; at < bytes.length; at += 2 ** 21) {
    await disk.writev(at, IoVector.of(bytes.slice(at, at + 2 ** 21)), { compressed: true });
  }
  await disk.close();
  return memory.bytes;
}

async function readAll(image: Uint8Array, step: number): Promise<Uint8Array> {
  const disk = await openQcow2({ file: childOf(image), readOnly: true });
  const bytes = new Uint8Array(disk.lengthBytes);
  for (let at = 0; at < bytes.length; at += step) {
    await disk.readv(at, IoVector.of(bytes.subarray(at, at + step)));
  }
  await disk.close();
  return bytes;
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describeWithQemu("zstd beside qemu-img", () => {
  const scratch = useScratch();

  async function ok(...args: readonly string[]): Promise<string> {
    const result = await qemuImg(...args);
    expect(result).toMatchObject({ code: 0 });
    return result.stdout;
  }

  test.each(CLUSTER_SIZES)("createQcow2() must make its bytes, clusters of %i", async (size) => {
    const options = { cluster_size: String(size), compression_type: "zstd" };
    const theirs = scratch(`c${size}.qcow2`);
    const words = `cluster_size=${size},compression_type=zstd`;
    await ok("create", "-q", "-f", "qcow2", "-o", words, theirs, "3M");
    const ours = await createInMemory({ size: "3M", ...options });
    expect(isSame(ours.bytes, new Uint8Array(await readFile(theirs)))).toBe(true);
  });

  test.each(CLUSTER_SIZES)("readv() must read what it compressed, clusters of %i", async (size) => {
    const [raw, image] = [scratch(`r${size}.raw`), scratch(`r${size}.qcow2`)];
    const bytes = content(size);
    await writeFile(raw, bytes);
    const words = `cluster_size=${size},compression_type=zstd`;
    await ok("convert", "-c", "-O", "qcow2", "-o", words, raw, image);
    const theirs = new Uint8Array(await readFile(image));
    for (const step of [SIZE, 24_064])
      expect(isSame(await readAll(theirs, step), bytes)).toBe(true);
  });

  test.each(CLUSTER_SIZES)(
    "it must read what writev() compressed, clusters of %i",
    async (size) => {
      const [raw, image] = [scratch(`w${size}.raw`), scratch(`w${size}.qcow2`)];
      const bytes = content(size + 1);
      await writeFile(raw, bytes);
      const create = { cluster_size: String(size), compression_type: "zstd" };
      const ours = await compressedImage(bytes, create, { "compressed-write-cache": "off" });
      const gathered = await compressedImage(bytes, create, { "compressed-write-cache": "on" });
      for (const made of [ours, gathered]) {
        await writeFile(image, made);
        await ok("check", image);
        expect(await ok("compare", "-F", "raw", image, raw)).toContain("identical");
        expect(isSame(await readAll(made, 24_064), bytes)).toBe(true);
        const file = childOf(made);
        const found = await checkQcow2(file, await readHeader(file));
        expect(found).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      }
    },
  );

  test("writev() must need no more room than it does, by one part in a hundred", async () => {
    const raw = scratch("size.raw");
    const bytes = content(5);
    await writeFile(raw, bytes);
    for (const type of ["zlib", "zstd"]) {
      const theirs = scratch(`size-${type}.qcow2`);
      await ok("convert", "-c", "-O", "qcow2", "-o", `compression_type=${type}`, raw, theirs);
      const ours = await compressedImage(bytes, { compression_type: type });
      const ratio = ours.length / (await readFile(theirs)).length;
      expect(ratio).toBeGreaterThan(0.95);
      expect(ratio).toBeLessThan(1.01);
    }
  });

  test("formatInfo() must say what it says", async () => {
    const image = scratch("info.qcow2");
    await writeFile(image, (await createInMemory({ size: "1M", compression_type: "zstd" })).bytes);
    const theirs = JSON.parse(await ok("info", "--output=json", image)) as {
      "format-specific": { data: Record<string, unknown> };
    };
    const disk = await openQcow2({ file: childOf(new Uint8Array(await readFile(image))) });
    const ours = await disk.formatInfo();
    await disk.close();
    expect(ours.data).toEqual(theirs["format-specific"].data);
    expect(ours.data).toMatchObject({ "compression-type": "zstd" });
  });
});

describe("compression-level", () => {
  const bytes = content(7);

  test.each([
    ["zlib", [1, 6, 9], 6],
    ["zstd", [1, 3, 9, 19], 3],
  ] as const)(
    "must make %s images smaller, and have QEMU's default",
    async (type, levels, usual) => {
      const sizes = new Map<number, number>();
      for (const level of levels) {
        const image = await compressedImage(
          bytes,
          { compression_type: type },
          { "compression-level": level },
        );
        expect(isSame(await readAll(image, 2 ** 20), bytes)).toBe(true);
        sizes.set(level, image.length);
      }
      const all = [...sizes.values()];
      expect(all).toEqual(all.toSorted((a, b) => b - a));
      expect(all[0]).toBeGreaterThan(all.at(-1) as number);
      const plain = await compressedImage(bytes, { compression_type: type });
      expect(plain).toHaveLength(sizes.get(usual) as number);
    },
  );

  test.each([
    ["zlib", 0, "1 to 9"],
    ["zlib", 10, "1 to 9"],
    ["zstd", 0, "1 to 22"],
    ["zstd", "23", "1 to 22"],
  ])("must be one that %s has, not %s", async (type, level, range) => {
    const memory = await createInMemory({ size: "1M", compression_type: type });
    const opened = openQcow2({
      file: directChild(memory),
      options: { "compression-level": level },
    });
    const message = `option 'compression-level' is ${level}; compression type '${type}' has levels ${range}`;
    await expect(opened).rejects.toMatchObject({ code: "EINVAL" });
    await expect(opened).rejects.toThrow(message);
  });
});

test("a zstd cluster that is damaged must fail with EIO, and leave the others readable", async () => {
  const bytes = content(9).subarray(0, 2 ** 20);
  const image = await compressedImage(bytes, { cluster_size: "64k", compression_type: "zstd" });
  const magic = image.findIndex((_, i) => viewOf(image).getUint32(i, true) === 0xfd2f_b528);
  expect(magic).toBeGreaterThan(0);
  image[magic] = 0;
  const disk = await openQcow2({ file: childOf(image), readOnly: true });
  const failures: number[] = [];
  for (let at = 0; at < bytes.length; at += 65536) {
    const part = new Uint8Array(65536);
    const read = async (): Promise<void> => disk.readv(at, IoVector.of(part));
    try {
      await read();
      expect(isSame(part, bytes.subarray(at, at + 65536))).toBe(true);
    } catch (error) {
      expect(error).toMatchObject({ code: "EIO" });
      expect(String(error)).toContain("does not begin with a frame's magic number");
      failures.push(at);
    }
  }
  await disk.close();
  expect(failures).toHaveLength(1);
});
