import { directChild } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import {
  decodeHeader,
  encodeHeader,
  type Qcow2Header,
  withBackingFile,
  writeHeader,
} from "../src/index.js";
import { EXTENSION } from "../src/header/header.js";
import { ImageBuilder } from "./support/image-builder.js";
import { createInMemory } from "./support/images.js";

function decode(image: ImageBuilder): Qcow2Header {
  return decodeHeader(image.bytes.subarray(0, image.clusterSize), image.bytes.length);
}

/** A header with something of everything that we do not know. */
function foreign(): ImageBuilder {
  return new ImageBuilder({ clusterBits: 12 })
    .field("headerLength", 120)
    .field("compatible", 1n << 40n)
    .field("autoclear", 1n << 41n)
    .raw(105, Uint8Array.of(9, 0, 0, 0, 0, 0, 0))
    .raw(112, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    .extension(120, 0x1234_5678, "hello")
    .extension(136, EXTENSION.backingFormat, "raw")
    .extension(152, 0x1234_5678, "twice")
    .raw(176, Uint8Array.of(0x62, 0xff, 0x63))
    .field("backingFileOffset", 176)
    .field("backingFileSize", 3);
}

describe("encodeHeader()", () => {
  test("must give back what was decoded, byte for byte, also what it does not know", () => {
    const image = foreign();
    const bytes = encodeHeader(decode(image));
    expect(bytes).toHaveLength(179);
    expect(bytes).toEqual(image.bytes.slice(0, 179));
  });

  test("must give back what create wrote, in both versions", async () => {
    for (const compat of ["v2", "v3"]) {
      const options = { size: "1M", compat, backing_file: "base", backing_fmt: "raw" };
      const { bytes } = await createInMemory(options);
      const encoded = encodeHeader(decodeHeader(bytes.subarray(0, 65536), bytes.length));
      expect(encoded).toEqual(bytes.slice(0, encoded.length));
    }
  });

  test("must refuse a header that does not fit into a cluster, and a name that is too long", () => {
    const header = decode(new ImageBuilder({ clusterBits: 9 }));
    expect(() => encodeHeader(withBackingFile(header, "x".repeat(392), undefined))).not.toThrow();
    const tooLong = withBackingFile(header, "x".repeat(393), undefined);
    expect(() => encodeHeader(tooLong)).toThrow("do not fit into a cluster of 512");
    const large = decode(new ImageBuilder({ clusterBits: 12 }));
    expect(() => encodeHeader(withBackingFile(large, "x".repeat(1024), undefined))).toThrow("1023");
  });
});

describe("withBackingFile()", () => {
  test("must change name and format, and leave the other extensions alone", () => {
    const header = withBackingFile(decode(foreign()), "new.qcow2", "qcow2");
    const bytes = encodeHeader(header);
    const again = decodeHeader(bytes, bytes.length);
    expect(again).toMatchObject({ backingFilename: "new.qcow2", backingFormat: "qcow2" });
    expect(again).toEqual(header);
    expect(again.unknownExtensions).toEqual(decode(foreign()).unknownExtensions);
  });

  test("must take both away", () => {
    const bytes = encodeHeader(withBackingFile(decode(foreign()), undefined, undefined));
    const again = decodeHeader(bytes, bytes.length);
    expect(again.backingFileOffset).toBe(0);
    expect(again.backingFilename).toBeUndefined();
    expect(again.backingFormat).toBeUndefined();
  });

  test("must refuse a format name that QEMU could not read", () => {
    const header = decode(new ImageBuilder());
    expect(() => withBackingFile(header, "base", "x".repeat(16))).toThrow("too long");
  });
});

describe("writeHeader()", () => {
  test("must write whole sectors, zeroes behind the end", () => {
    const image = foreign();
    const memory = openMemory({ bytes: new Uint8Array(4096).fill(0xee) });
    void writeHeader(directChild(memory), decode(image));
    expect(memory.bytes.slice(0, 512)).toEqual(image.bytes.slice(0, 512));
    expect(memory.bytes[512]).toBe(0xee);
  });

  test("must write nothing of a header that does not fit", () => {
    const memory = openMemory({ lengthBytes: 512 });
    const header = withBackingFile(decode(new ImageBuilder()), "x".repeat(500), undefined);
    expect(() => writeHeader(directChild(memory), header)).toThrow("do not fit");
    expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
  });
});
