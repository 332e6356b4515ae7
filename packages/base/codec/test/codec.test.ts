/** What holds for both entries, with deflate. */
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { BlockError, hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { afterAll, describe, expect, expectTypeOf, test } from "vitest";
import * as portable from "../src/index.js";
import * as native from "../src/index.node.js";
import { CLUSTER, fileClusters, noise, repetitive, shared, differenceOf } from "./samples.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 300);

test("both entries must export the same, with the same types", () => {
  expect(Object.keys(native).sort()).toEqual(Object.keys(portable).sort());
  expectTypeOf(native.createCodec).toEqualTypeOf(portable.createCodec);
});

test("the package must resolve to the Node entry here, and offer the portable one", () => {
  expect(import.meta.resolve("@blocklayer/codec")).toMatch(/\/dist\/index\.node\.js$/);
  expect(import.meta.resolve("@blocklayer/codec/portable")).toMatch(/\/dist\/index\.js$/);
});

const entries = [
  ["portable", portable.createCodec],
  ["node", native.createCodec],
] as const;

describe.each(entries)("%s", (_name, createCodec) => {
  const codec = createCodec("deflate", { threads: 2 });
  afterAll(() => codec.close());

  const inflated = async (payload: Uint8Array, length: number): Promise<Uint8Array> => {
    const target = new Uint8Array(length);
    await codec.decompress(payload, target);
    return target;
  };
  const samples = [
    repetitive(CLUSTER, 1),
    new Uint8Array(CLUSTER),
    new Uint8Array(CLUSTER).fill(0x5a),
    repetitive(512, 2),
    repetitive(2 * 1024 * 1024, 3),
    repetitive(CLUSTER, 4, 3000),
  ];

  test("createCodec() must refuse a level that does not exist", () => {
    for (const level of [0, 10, 1.5, -1, Number.NaN]) {
      expect(() => createCodec("deflate", { level })).toThrow(BlockError);
    }
  });

  test("compress() and decompress() must give the bytes back, in order, for any size", async () => {
    const payloads = await codec.compress(samples, 4 * 1024 * 1024);
    for (const [i, sample] of samples.entries()) {
      const payload = payloads[i] as Uint8Array;
      expect(payload.length).toBeLessThan(sample.length);
      expect(differenceOf(await inflated(payload, sample.length), sample)).toBeUndefined();
      expect(differenceOf(new Uint8Array(inflateRawSync(payload)), sample)).toBeUndefined();
    }
  });

  test("compress() must read clusters of shared memory, mixed with others", async () => {
    const clusters = samples.map((sample, i) => (i % 2 === 0 ? shared(sample) : sample));
    const payloads = await codec.compress(clusters, 4 * 1024 * 1024);
    const targets = samples.map((s, i) =>
      i % 3 === 0 ? shared(s).fill(0) : new Uint8Array(s.length),
    );
    await codec.decompressMany(
      payloads.map((payload, i) => ({
        payload: i % 2 === 0 ? shared(payload as Uint8Array) : (payload as Uint8Array),
        target: targets[i] as Uint8Array,
      })),
    );
    for (const [i, sample] of samples.entries())
      expect(differenceOf(targets[i], sample)).toBeUndefined();
  });

  test("compress() must give undefined where the payload would be longer than maxBytes", async () => {
    const clusters = [noise(CLUSTER, 5), repetitive(CLUSTER, 6), noise(CLUSTER, 7)];
    const payloads = await codec.compress(clusters, CLUSTER - 1);
    expect(payloads.map((payload) => payload === undefined)).toEqual([true, false, true]);
    const length = (payloads[1] as Uint8Array).length;
    expect((await codec.compress(clusters, length))[1]).toHaveLength(length);
    expect((await codec.compress(clusters, length - 1))[1]).toBeUndefined();
  });

  test("compress() of nothing must give nothing", async () => {
    expect(await codec.compress([], 100)).toEqual([]);
    await codec.decompressMany([]);
  });

  test("compress() at a higher level must not give more bytes", async () => {
    const sizes: number[] = [];
    for (const level of [1, 6, 9]) {
      const other = createCodec("deflate", { level, threads: 2 });
      const [payload] = await other.compress([repetitive(CLUSTER, 8)], CLUSTER);
      sizes.push((payload as Uint8Array).length);
      await other.close();
    }
    expect(sizes[0]).toBeGreaterThanOrEqual(sizes[1] as number);
    expect(sizes[1]).toBeGreaterThanOrEqual(sizes[2] as number);
  });

  test("decompress() must ignore padding behind the stream", async () => {
    const sample = repetitive(CLUSTER, 9);
    const payload = deflateRawSync(sample);
    for (const padding of [new Uint8Array(1), new Uint8Array(511), noise(600, 1)]) {
      expect(
        differenceOf(await inflated(Buffer.concat([payload, padding]), CLUSTER), sample),
      ).toBeUndefined();
    }
  });

  test("decompress() must read distances up to 32 KiB", async () => {
    const sample = new Uint8Array(CLUSTER);
    sample.set(noise(32_768, 3));
    sample.copyWithin(32_768, 0);
    expect(
      differenceOf(await inflated(deflateRawSync(sample, { windowBits: 15 }), CLUSTER), sample),
    ).toBeUndefined();
  });

  test("decompress() must stop at the end of its target, whatever the stream holds", async () => {
    const sample = repetitive(CLUSTER, 10);
    const payload = deflateRawSync(sample);
    const around = new Uint8Array(4096 + 32).fill(0xee);
    await codec.decompress(payload, around.subarray(16, 16 + 4096));
    expect(differenceOf(around.subarray(16, 16 + 4096), sample.subarray(0, 4096))).toBeUndefined();
    expect(differenceOf(around.subarray(0, 16), new Uint8Array(16).fill(0xee))).toBeUndefined();
    expect(differenceOf(around.subarray(16 + 4096), new Uint8Array(16).fill(0xee))).toBeUndefined();
    await codec.decompress(deflateRawSync(new Uint8Array(64 * 1024 * 1024)), around);
  });

  test("decompress() of a stream that is too short must throw EIO, at every size", async () => {
    for (const length of [CLUSTER, 1024 * 1024]) {
      const payload = deflateRawSync(repetitive(length - 1, 11));
      const cut = payload.subarray(0, payload.length >> 1);
      for (const bad of [payload, cut, new Uint8Array(0)]) {
        const failed = (async () => inflated(bad, length))();
        await expect(failed).rejects.toThrow(/^compressed data of \d+ bytes: /);
        await expect(failed).rejects.toMatchObject({ code: "EIO", op: "decompress" });
      }
    }
  });

  test("decompress() must work after a failure", async () => {
    const sample = repetitive(CLUSTER, 12);
    await expect((async () => inflated(noise(3000, 1), CLUSTER))()).rejects.toThrow(
      "compressed data",
    );
    expect(differenceOf(await inflated(deflateRawSync(sample), CLUSTER), sample)).toBeUndefined();
  });

  test("decompressMany() must fail when one item does, and work afterwards", async () => {
    const sample = repetitive(CLUSTER, 13);
    const payload = deflateRawSync(sample);
    const items = Array.from({ length: 12 }, () => ({ payload, target: new Uint8Array(CLUSTER) }));
    const bad = { payload: payload.subarray(0, 100), target: new Uint8Array(CLUSTER) };
    const run = (async () => codec.decompressMany([...items, bad, ...items]))();
    await expect(run).rejects.toMatchObject({ code: "EIO" });
    await codec.decompressMany(items);
    for (const { target } of items) expect(differenceOf(target, sample)).toBeUndefined();
  });

  test("decompress() of random and of mutated bytes must throw nothing but EIO", async () => {
    const whole = deflateRawSync(repetitive(4096, 14));
    const mutated = fc
      .array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
      .map((changes) => {
        const bytes = new Uint8Array(whole);
        for (const [at, value] of changes) bytes[at] = value;
        return bytes;
      });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 2000 }), mutated), async (payload) => {
        const around = new Uint8Array(4096 + 64).fill(0xee);
        try {
          await codec.decompress(payload, around.subarray(32, 32 + 4096));
        } catch (error) {
          expect(hasCode(error, "EIO")).toBe(true);
        }
        expect(differenceOf(around.subarray(0, 32), new Uint8Array(32).fill(0xee))).toBeUndefined();
        expect(
          differenceOf(around.subarray(32 + 4096), new Uint8Array(32).fill(0xee)),
        ).toBeUndefined();
      }),
      { numRuns: RUNS },
    );
  });

  test("close() must refuse later calls", async () => {
    const other = createCodec("deflate", { threads: 1 });
    await other.close();
    await other.close();
    const target = new Uint8Array(8);
    expect(() => other.compress([], 1)).toThrow("closed");
    expect(() => other.decompress(target, target)).toThrow("closed");
    expect(() => other.decompressMany([])).toThrow("closed");
  });
});

describe("the two entries together", () => {
  const clusters = [...fileClusters("/usr", 24, 42), repetitive(CLUSTER, 15)];
  test("each must read what the other writes, on files of this machine", async () => {
    const codecs = [portable.createCodec("deflate"), native.createCodec("deflate", { threads: 2 })];
    for (const writer of codecs) {
      const payloads = await writer.compress(clusters, 2 * CLUSTER);
      for (const reader of codecs) {
        for (const [i, cluster] of clusters.entries()) {
          const target = new Uint8Array(CLUSTER);
          await reader.decompress(payloads[i] as Uint8Array, target);
          expect(differenceOf(target, cluster)).toBeUndefined();
        }
      }
    }
    for (const codec of codecs) await codec.close();
  });

  // A small output chunk makes zlib use its window, which a single large one hides.
  const strict = (payload: Uint8Array): Uint8Array =>
    inflateRawSync(payload, { windowBits: 12, chunkSize: 64 });

  test("the Node entry must write streams that a strict reader with a 4 KiB window takes", async () => {
    const codec = native.createCodec("deflate", { threads: 2 });
    for (const payload of await codec.compress(clusters, 2 * CLUSTER))
      expect(strict(payload as Uint8Array)).toHaveLength(CLUSTER);
    await codec.close();
  });

  test("the portable entry does not: its README says so", async () => {
    const [payload] = await portable
      .createCodec("deflate")
      .compress([repetitive(CLUSTER, 16)], CLUSTER);
    expect(() => strict(payload as Uint8Array)).toThrow("too far back");
  });
});
