import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readZstdFrame, windowByteFor } from "../src/zstd-frame.js";
import { CLUSTER, noise } from "./samples.js";
import {
  block,
  bytesOf,
  frame,
  type FrameFields,
  littleEndian,
  rawBlock,
  rleBlock,
  skippable,
} from "./zstd-frames.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 2000);
const body = noise(100, 1);

/** Every combination of header fields, with lengths that each field can state. */
function* allFields(): Generator<FrameFields & { readonly stated: number | undefined }> {
  for (const windowLog of [undefined, 10, 17]) {
    const fields = windowLog === undefined ? [1, 2, 4, 8] : [0, 2, 4, 8];
    for (const contentField of fields) {
      for (const dictionaryField of [undefined, 1, 2, 4] as const) {
        for (const hasChecksum of [false, true]) {
          const stated = contentField === 0 ? undefined : contentField === 2 ? 300 : 100;
          yield {
            stated,
            contentField,
            ...(stated === undefined ? {} : { content: stated }),
            ...(windowLog === undefined ? {} : { windowLog }),
            ...(dictionaryField === undefined
              ? {}
              : { dictionary: { id: 0, field: dictionaryField } }),
            ...(hasChecksum ? { checksum: littleEndian(0x0403_0201, 4) } : {}),
          };
        }
      }
    }
  }
}

describe("readZstdFrame()", () => {
  test("must find the end and the fields of every kind of header, at any place", () => {
    let count = 0;
    for (const { stated, ...fields } of allFields()) {
      const bytes = frame([rawBlock(body)], fields);
      const all = bytesOf([7, 7, 7], bytes, [9, 9]);
      const found = readZstdFrame(all, 3);
      const { windowLog } = fields;
      expect(found).toEqual({
        kind: "frame",
        end: 3 + bytes.length,
        contentBytes: stated,
        windowBytes: windowLog === undefined ? stated : 2 ** windowLog,
        windowAt: windowLog === undefined ? undefined : 3 + 5,
      });
      count++;
    }
    expect(count).toBe(3 * 4 * 4 * 2);
  });

  test("must say of every kind of header that it is cut off, wherever it is", () => {
    for (const { stated: _, ...fields } of allFields()) {
      const bytes = frame([rleBlock(1, 50, false), rawBlock(body)], fields);
      for (let length = 0; length < bytes.length; length++) {
        const found = readZstdFrame(bytes.subarray(0, length), 0);
        expect(found).toEqual({ kind: "damaged", reason: "is cut off" });
      }
      expect(readZstdFrame(bytes, 0).kind).toBe("frame");
    }
  });

  test("must go over blocks of every type by the bytes that they take", () => {
    const blocks = [
      rawBlock(body, false),
      rleBlock(3, 128 * 1024, false),
      block(2, 60, noise(60, 2), false),
      rawBlock(new Uint8Array(0), false),
      block(2, 5, noise(5, 3), true),
    ];
    const bytes = frame(blocks, { windowLog: 20 });
    const found = readZstdFrame(bytesOf(bytes, rawBlock(body)), 0);
    expect(found).toMatchObject({ kind: "frame", end: bytes.length });
  });

  test("must refuse what RFC 8878 does not have", () => {
    const reasons: [string, Uint8Array][] = [
      ["sets a reserved bit", frame([rawBlock(body)], { windowLog: 10, bits: 8 })],
      ["has a block of a reserved type", frame([block(3, 9, body)], { windowLog: 10 })],
      ["has a block that is too long", frame([rleBlock(1, 1025)], { windowLog: 10 })],
      ["has a block that is too long", frame([rleBlock(1, 131_073)], { windowLog: 20 })],
      ["has a block that is too long", frame([rawBlock(body)], { content: 99, contentField: 1 })],
      ["does not begin with a frame's magic number", new Uint8Array(64)],
      ["does not begin with a frame's magic number", bytesOf([0x60, 0x2a, 0x4d, 0x18], body)],
      ["is cut off", skippable(body).subarray(0, 107)],
      ["is cut off", skippable(body).subarray(0, 7)],
    ];
    for (const field of [1, 2, 4] as const) {
      const dictionary = { id: 2 ** (8 * field - 1), field };
      reasons.push(["needs a dictionary", frame([rawBlock(body)], { windowLog: 10, dictionary })]);
    }
    for (const [reason, bytes] of reasons) {
      expect(readZstdFrame(bytes, 0)).toEqual({ kind: "damaged", reason });
    }
  });

  test("must read the longest window and the longest content", () => {
    const fields = { windowLog: 41, windowEighths: 7, content: 2n ** 64n - 1n };
    expect(readZstdFrame(frame([rawBlock(body)], fields), 0)).toMatchObject({
      windowBytes: 2 ** 41 + (7 * 2 ** 41) / 8,
      contentBytes: 2 ** 64,
    });
  });

  test("must go over all sixteen kinds of skippable frame", () => {
    for (let variant = 0; variant < 16; variant++) {
      const bytes = bytesOf(skippable(body, variant), body);
      expect(readZstdFrame(bytes, 0)).toEqual({ kind: "skippable", end: 108 });
    }
  });

  test("of any bytes must end within them and not throw", () => {
    const magic = fc.constantFrom([0x28, 0xb5, 0x2f, 0xfd], [0x5a, 0x2a, 0x4d, 0x18], []);
    const bytes = fc
      .tuple(magic, fc.uint8Array({ maxLength: 300 }))
      .map(([head, tail]) => bytesOf(head, tail));
    const kinds = new Set<string>();
    fc.assert(
      fc.property(bytes, fc.nat(8), (input, start) => {
        const found = readZstdFrame(input, Math.min(start, input.length));
        kinds.add(found.kind);
        if (found.kind !== "damaged") {
          expect(found.end).toBeGreaterThan(start);
          expect(found.end).toBeLessThanOrEqual(input.length);
        }
      }),
      { numRuns: RUNS },
    );
    expect(kinds).toContain("damaged");
  });

  test("of two mebibytes of empty blocks must take no more than a moment", () => {
    const bytes = new Uint8Array(2 * 1024 * 1024);
    bytes.set(frame([], { windowLog: 10 }));
    expect(readZstdFrame(bytes, 0)).toEqual({ kind: "damaged", reason: "is cut off" });
  });
});

test("windowByteFor() must give the shortest window that is long enough", () => {
  for (const lengthBytes of [0, 1, 1024, 1025, CLUSTER, 2 ** 21, 2 ** 21 + 1]) {
    const windowLog = (windowByteFor(lengthBytes) >> 3) + 10;
    expect(2 ** windowLog).toBeGreaterThanOrEqual(lengthBytes);
    if (windowLog > 10) expect(2 ** (windowLog - 1)).toBeLessThan(lengthBytes);
    const bytes = frame([rawBlock(body)], { windowLog });
    expect(readZstdFrame(bytes, 0)).toMatchObject({ windowBytes: 2 ** windowLog });
    expect(bytes[5]).toBe(windowByteFor(lengthBytes));
  }
});
