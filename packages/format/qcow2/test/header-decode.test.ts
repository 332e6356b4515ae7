import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, UnsupportedError } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeHeader, readHeader } from "../src/index.js";
import { bitmapsExtensionIn } from "../src/header/extensions.js";
import { EXTENSION, hasRawDataFile } from "../src/header/header.js";
import { ImageBuilder, type BuilderOptions } from "./support/image-builder.js";
import { Rng } from "./support/rng.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 2000);

function decode(image: ImageBuilder): ReturnType<typeof decodeHeader> {
  return decodeHeader(image.bytes.subarray(0, image.clusterSize), image.bytes.length);
}

/** The error of a header with one thing broken. */
function errorOf(breakIt: (image: ImageBuilder) => unknown, options?: BuilderOptions): BlockError {
  const image = new ImageBuilder({ clusterBits: 12, ...options });
  breakIt(image);
  try {
    decode(image);
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
  throw new Error("the header was taken");
}

describe("decodeHeader() of sound headers", () => {
  test("must give the fields of both versions", () => {
    expect(decode(new ImageBuilder({ clusterBits: 12 }))).toMatchObject({
      version: 3,
      clusterBits: 12,
      virtualSize: 2 ** 21,
      l1Size: 1,
      l1TableOffset: 3 * 4096,
      refcountTableOffset: 4096,
      refcountTableClusters: 1,
      refcountOrder: 4,
      headerLength: 112,
      compressionType: 0,
      extensions: [],
      featureNames: [],
    });
    const version2 = new ImageBuilder({ version: 2 }).field("incompatible", 255n);
    expect(decode(version2)).toMatchObject({
      version: 2,
      refcountOrder: 4,
      headerLength: 72,
      incompatible: 0n,
    });
  });

  test("must read the backing file's name and format, as C programs do", () => {
    const image = new ImageBuilder({ clusterBits: 12 })
      .extension(112, EXTENSION.backingFormat, "raw")
      .raw(200, "base.img\0junk")
      .field("backingFileOffset", 200)
      .field("backingFileSize", 13);
    expect(decode(image)).toMatchObject({ backingFilename: "base.img", backingFormat: "raw" });
    image.field("backingFileSize", 0);
    expect(decode(image).backingFilename).toBeUndefined();
  });

  test("must keep unknown extensions, and the unknown fields of a longer header", () => {
    const image = new ImageBuilder({ clusterBits: 12 })
      .field("headerLength", 120)
      .raw(112, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
      .extension(120, 0x1234_5678, "hello")
      .extension(136, EXTENSION.featureNames, new Uint8Array(0));
    const header = decode(image);
    expect(header.unknownExtensions).toEqual([
      { type: 0x1234_5678, data: new TextEncoder().encode("hello") },
    ]);
    expect(header.extensions).toHaveLength(2);
    expect([...header.unknownFields]).toEqual([0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test("must take a header that the end of the file cuts, as zeroes", () => {
    const image = new ImageBuilder({ clusterBits: 16 });
    expect(decodeHeader(image.bytes.subarray(0, 104), 104).headerLength).toBe(112);
  });

  test("must keep unknown compatible and autoclear bits", () => {
    const image = new ImageBuilder().field("compatible", 1n << 40n).field("autoclear", 1n << 41n);
    expect(decode(image)).toMatchObject({ compatible: 1n << 40n, autoclear: 1n << 41n });
  });

  test("must take tables behind the end of the file, as QEMU does", () => {
    const image = new ImageBuilder().field("l1TableOffset", 2n ** 40n);
    expect(decode(image).l1TableOffset).toBe(2 ** 40);
  });
});

describe("decodeHeader() of broken headers", () => {
  const name = new Uint8Array(48);
  name.set([0, 40, ...new TextEncoder().encode("time travel")]);

  test.each<[string, (image: ImageBuilder) => unknown, BuilderOptions?]>([
    ["Image is not in qcow2 format", (i) => i.field("magic", 1)],
    ["Unsupported cluster size: 2^8", (i) => i.field("clusterBits", 8)],
    ["Unsupported cluster size: 2^22", (i) => i.field("clusterBits", 22)],
    ["Unsupported cluster size: 2^4294967295", (i) => i.field("clusterBits", 0xffff_ffff)],
    ["qcow2 header too short", (i) => i.field("headerLength", 96)],
    ["qcow2 header exceeds cluster size", (i) => i.field("headerLength", 4097)],
    ["Invalid backing file offset", (i) => i.field("backingFileOffset", 4097)],
    [
      "Backing file name too long",
      (i) => i.field("backingFileOffset", 1000).field("backingFileSize", 1024),
    ],
    [
      "Backing file name too long",
      (i) => i.field("backingFileOffset", 4090).field("backingFileSize", 7),
    ],
    ["Header extension too large", (i) => i.extension(112, 1, "", 3977)],
    ["Header extension too large", (i) => i.extension(112, 1, "", 0xffff_ffff)],
    [
      "Header extension too large",
      (i) => i.extension(112, 1, "12345678").field("backingFileOffset", 120),
    ],
    [
      "backing format name has 16 bytes",
      (i) => i.extension(112, EXTENSION.backingFormat, "x".repeat(16)),
    ],
    ["bit must not be set", (i) => i.field("incompatible", 8n)],
    ["bit must be set", (i) => i.field("compressionType", 1)],
    ["the data file is said to be raw, and there is none", (i) => i.field("autoclear", 2n)],
    ["may not exceed 64 bits", (i) => i.field("refcountOrder", 7)],
    ["Unsupported encryption method 3", (i) => i.field("cryptMethod", 3)],
    ["does not contain a reference count table", (i) => i.field("refcountTableClusters", 0)],
    ["Reference count table too large", (i) => i.field("refcountTableClusters", 2049)],
    ["Reference count table offset invalid", (i) => i.field("refcountTableOffset", 4608)],
    ["Reference count table offset invalid", (i) => i.field("refcountTableOffset", 2 ** 53 - 4096)],
    ["refcount_table_offset at host offset 0x30", (i) => i.field("refcountTableOffset", 2n ** 60n)],
    ["Snapshot table too large", (i) => i.field("snapshotCount", 65537)],
    ["Snapshot table offset invalid", (i) => i.field("snapshotsOffset", 512)],
    ["Active L1 table too large", (i) => i.field("l1Size", 2 ** 22 + 1)],
    ["Active L1 table offset invalid", (i) => i.field("l1TableOffset", 8)],
    ["L1 table is too small", (i) => i.field("size", 2 ** 21 + 1)],
    ["L1 table is too small", (i) => i.field("l1Size", 0)],
    ["header: size", (i) => i.field("size", 2n ** 63n)],
    ["only expected with LUKS", (i) => i.extension(112, EXTENSION.encryption, "x".repeat(16))],
    [
      "Invalid extension length",
      (i) => i.extension(112, EXTENSION.bitmaps, "x").field("autoclear", 1n),
    ],
    [
      "zero bitmaps",
      (i) => i.extension(112, EXTENSION.bitmaps, new Uint8Array(24)).field("autoclear", 1n),
    ],
  ])("must refuse with '%s'", (words, breakIt, options) => {
    const error = errorOf(breakIt, options);
    expect(error).toBeInstanceOf(CorruptImageError);
    expect(error.message).toContain(words);
  });

  test.each<[string, (image: ImageBuilder) => unknown]>([
    ["Unsupported qcow2 version 4", (i) => i.field("version", 4)],
    ["Unsupported qcow2 version 1", (i) => i.field("version", 1)],
    ["Unknown incompatible feature: 10000000020", (i) => i.field("incompatible", 0x10000000020n)],
    [
      "Unsupported qcow2 feature(s): time travel, Unknown incompatible feature: 20",
      (i) => i.field("incompatible", 0x10000000020n).extension(112, EXTENSION.featureNames, name),
    ],
    [
      "Unknown incompatible feature: 20",
      (i) => i.field("incompatible", 0x20n).extension(112, 1, "", 70000),
    ],
    ["unknown compression type: 2", (i) => i.field("incompatible", 8n).field("compressionType", 2)],
    ["AES encryption", (i) => i.field("cryptMethod", 1)],
    ["LUKS encryption", (i) => i.field("cryptMethod", 2)],
  ])("must say that it does not support '%s'", (words, breakIt) => {
    const error = errorOf(breakIt);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain(words);
  });

  test("must read the name of the external data file, and whether it is raw", () => {
    const image = new ImageBuilder().field("incompatible", 4n).field("autoclear", 2n);
    image.extension(112, EXTENSION.dataFile, "disk.data");
    const header = decode(image);
    expect(header.dataFilename).toBe("disk.data");
    expect(hasRawDataFile(header)).toBe(true);
    expect(hasRawDataFile({ ...header, incompatible: 0n })).toBe(false);
  });

  test("must take the last bitmaps extension, as QEMU does", () => {
    const fields = new Uint8Array(24);
    fields.set([0, 0, 0, 1], 0);
    fields.set([0x20, 0], 22);
    const image = new ImageBuilder({ clusterBits: 12 })
      .extension(112, EXTENSION.bitmaps, fields)
      .extension(144, EXTENSION.bitmaps, fields.with(3, 2));
    expect(bitmapsExtensionIn(decode(image).extensions, 4096)).toMatchObject({ bitmapCount: 2 });
  });

  test("must refuse subclusters of less than a sector, as QEMU does", () => {
    const error = errorOf((i) => i.field("incompatible", 16n).field("clusterBits", 9));
    expect(error).toBeInstanceOf(CorruptImageError);
    expect(error.message).toContain("Unsupported subcluster size: 16");
  });

  test("must not let a stale bitmaps extension stand in the way", () => {
    const image = new ImageBuilder().extension(112, EXTENSION.bitmaps, "x");
    expect(decode(image).extensions).toHaveLength(1);
  });
});

describe("readHeader()", () => {
  test("must answer without a promise, from a file as short as a magic and as long as clusters", () => {
    const image = new ImageBuilder({ clusterBits: 21, dataClusters: 0 });
    image.extension(112, 0x1234_5678, new Uint8Array(2 ** 20).fill(7));
    const header = readHeader(directChild(openMemory({ bytes: image.bytes })));
    expect(header).not.toBeInstanceOf(Promise);
    expect(header).toMatchObject({ clusterBits: 21, unknownExtensions: [{ type: 0x1234_5678 }] });
    for (const length of [0, 1, 4, 71, 103]) {
      const file = directChild(openMemory({ bytes: image.bytes.subarray(0, length) }));
      expect(() => readHeader(file)).toThrow(BlockError);
    }
  });
});

describe("decodeHeader() of arbitrary bytes", () => {
  test(`must let only a BlockError escape, in ${RUNS} mutated headers`, () => {
    const rng = new Rng(7);
    let taken = 0;
    for (let run = 0; run < RUNS; run++) {
      const image = new ImageBuilder({ clusterBits: 9 + rng.below(4), version: rng.pick([2, 3]) });
      const count = 1 + rng.below(6);
      for (let i = 0; i < count; i++) image.bytes[rng.below(160)] = rng.below(256);
      try {
        decode(image);
        taken++;
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
      }
    }
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThan(RUNS);
  });

  test("must let only a BlockError escape, for bytes without any sense", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (bytes, withMagic) => {
        if (withMagic && bytes.length > 24) {
          bytes.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
          bytes.set([0, 0, 0, 9], 20);
        }
        try {
          decodeHeader(bytes, bytes.length);
        } catch (error) {
          expect(error).toBeInstanceOf(BlockError);
        }
      }),
    );
  });
});
