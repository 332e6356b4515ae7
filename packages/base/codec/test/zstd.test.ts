/** What holds for zstd in both entries, and in WebAssembly and in node:zlib where there is a choice. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { afterAll, describe, expect, test, vi } from "vitest";
import { COMPRESSION_LEVELS } from "../src/codec.js";
import * as portable from "../src/index.js";
import * as node from "../src/index.node.js";
import { NodeCodec } from "../src/node-codec.js";
import { nativeZstdDecoder, NodeZstd } from "../src/node-zstd.js";
import { ZSTD_WASM_GZIP_BASE64 } from "../src/zstd-binary.js";
import { loadZstdModule, WasmZstd } from "../src/zstd-wasm.js";
import { CLUSTER, differenceOf, fileClusters, noise, repetitive, shared } from "./samples.js";
import { bytesOf, clusterCases, rleBlock, frame } from "./zstd-frames.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 300);

type Create = (options?: portable.CodecOptions) => portable.ClusterCodec;
const makers: [string, Create][] = [
  ["portable", (options) => portable.createCodec("zstd", options)],
  ["node", (options) => node.createCodec("zstd", options)],
];
if (nativeZstdDecoder() !== undefined) {
  makers.push(["node, WebAssembly", (o = {}) => new NodeCodec("zstd", new NodeZstd(false), o)]);
}

describe.each(makers)("zstd, %s", (_name, create) => {
  const codec = create({ threads: 2 });
  afterAll(() => codec.close());

  const decompressed = async (payload: Uint8Array, length: number): Promise<Uint8Array> => {
    const target = new Uint8Array(length);
    await codec.decompress(payload, target);
    return target;
  };

  /** What is wrong with clusters of these sizes after the way there and back. */
  const faults = async (level: number, sizes: readonly number[]): Promise<string[]> => {
    const one = create({ level, threads: 2 });
    const clusters = sizes.map((size) => repetitive(size, size + level, 300));
    const payloads = await one.compress(clusters, 2 ** 22);
    const found: string[] = [];
    for (const [i, cluster] of clusters.entries()) {
      const target = await decompressed(payloads[i] as Uint8Array, cluster.length);
      const difference = differenceOf(target, cluster);
      if (difference !== undefined) found.push(`level ${level}: ${difference}`);
    }
    await one.close();
    return found;
  };

  test("compress() and decompress() must give the bytes back at every level", async () => {
    const { min, max } = COMPRESSION_LEVELS.zstd;
    for (let level = min; level <= max; level++)
      expect(await faults(level, [512, 4096, CLUSTER])).toEqual([]);
  }, 20_000);

  test("compress() and decompress() must give clusters of every size back", async () => {
    const sizes = Array.from({ length: 13 }, (_, i) => 2 ** (9 + i));
    for (const level of [1, 3, 12]) expect(await faults(level, sizes)).toEqual([]);
  }, 20_000);

  test("compress() and decompress() must give any bytes back", async () => {
    const cluster = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 5000 }),
      fc.tuple(fc.nat(), fc.integer({ min: 1, max: 70_000 })).map(([s, n]) => repetitive(n, s)),
    );
    const level = fc.integer({ min: 1, max: 6 });
    await fc.assert(
      fc.asyncProperty(fc.array(cluster, { maxLength: 4 }), level, async (clusters, n) => {
        const one = create({ level: n, threads: 2 });
        const payloads = await one.compress(clusters, 2 ** 20);
        const targets = clusters.map(({ length }) => new Uint8Array(length));
        await one.decompressMany(
          targets.map((target, i) => ({ payload: payloads[i] as Uint8Array, target })),
        );
        await one.close();
        for (const [i, target] of targets.entries())
          expect(differenceOf(target, clusters[i] as Uint8Array)).toBeUndefined();
      }),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });

  test("compress() must read clusters of shared memory, mixed with others", async () => {
    const samples = [repetitive(CLUSTER, 1), new Uint8Array(2 ** 21), repetitive(2 ** 20, 3)];
    const clusters = samples.map((sample, i) => (i % 2 === 0 ? shared(sample) : sample));
    const payloads = await codec.compress(clusters, 2 ** 22);
    const targets = samples.map((s, i) =>
      i % 2 === 0 ? new Uint8Array(s.length) : shared(s).fill(1),
    );
    await codec.decompressMany(
      targets.map((target, i) => ({
        payload: i % 2 === 0 ? shared(payloads[i] as Uint8Array) : (payloads[i] as Uint8Array),
        target,
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
    expect((await codec.compress(clusters, 0))[1]).toBeUndefined();
    expect(await codec.compress([], 100)).toEqual([]);
  });

  test("compress() must write one frame that states its length, with no more than it needs", async () => {
    const payloads = await codec.compress(
      [repetitive(CLUSTER, 8), repetitive(512, 9, 50)],
      CLUSTER,
    );
    // A single segment, its length in two bytes (less 256), no checksum, no dictionary: as QEMU's.
    expect([...(payloads[0] as Uint8Array).subarray(0, 7)]).toEqual([
      0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0xff,
    ]);
    expect([...(payloads[1] as Uint8Array).subarray(4, 7)]).toEqual([0x60, 0x00, 0x01]);
  });

  test("compress() at a higher level must not give more bytes", async () => {
    const clusters = fileClusters("/usr", 12, 3);
    const sizes: number[] = [];
    for (const level of [1, 3, 9, 19]) {
      const other = create({ level, threads: 2 });
      const payloads = await other.compress(clusters, 2 * CLUSTER);
      sizes.push(payloads.reduce((sum, payload) => sum + (payload as Uint8Array).length, 0));
      await other.close();
    }
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    expect(sizes[0]).toBeGreaterThan(sizes.at(-1) as number);
    const [usual] = await codec.compress([clusters.at(-1) as Uint8Array], 2 * CLUSTER);
    const three = create({ level: 3, threads: 1 });
    const [same] = await three.compress([clusters.at(-1) as Uint8Array], 2 * CLUSTER);
    expect(differenceOf(same, usual as Uint8Array)).toBeUndefined();
    await three.close();
  });

  test("createCodec() must refuse a level that does not exist", () => {
    for (const level of [0, 23, 1.5, -1, Number.NaN]) {
      try {
        create({ level });
        expect.unreachable();
      } catch (error) {
        expect(hasCode(error, "EINVAL")).toBe(true);
        expect(String(error)).toContain("not between 1 and 22, the levels of zstd");
      }
    }
  });

  test("decompress() and decompressMany() must do as QEMU with every cluster", async () => {
    const good = clusterCases().filter(({ cluster }) => cluster !== undefined);
    // Enough at once for the workers.
    const items = good.map(({ payload }) => ({ payload, target: new Uint8Array(CLUSTER) }));
    await codec.decompressMany(items);
    for (const [i, { target }] of items.entries())
      expect(differenceOf(target, good[i]?.cluster as Uint8Array)).toBeUndefined();
    for (const { payload, cluster } of clusterCases()) {
      const target = new Uint8Array(CLUSTER);
      const one = async (): Promise<void> => codec.decompress(payload, target);
      const among = async (): Promise<void> =>
        codec.decompressMany([...items, { payload, target }]);
      if (cluster !== undefined) {
        await one();
        expect(differenceOf(target, cluster)).toBeUndefined();
        continue;
      }
      await expect(one()).rejects.toMatchObject({ code: "EIO", op: "decompress" });
      await expect(among()).rejects.toMatchObject({ code: "EIO", op: "decompress" });
    }
  });

  test("decompress() must fill clusters that end in the middle of a large one's data", async () => {
    const sample = repetitive(2 ** 21, 3, 1000);
    const [payload] = await codec.compress([sample], sample.length);
    const padded = bytesOf(payload as Uint8Array, noise(700, 2));
    expect(differenceOf(await decompressed(padded, 2 ** 21), sample)).toBeUndefined();
    const short = (async () => decompressed(padded.subarray(0, 1000), 2 ** 21))();
    await expect(short).rejects.toThrow("the zstd frame is cut off");
    const small = (async () => decompressed(padded, 2 ** 21 - 1))();
    await expect(small).rejects.toThrow(/says that it holds 2097152 bytes, for 2097151$/);
  });

  test("decompress() of random and of mutated bytes must throw nothing but EIO", async () => {
    const whole = await codec.compress([repetitive(4096, 14, 500)], 8192);
    const first = whole[0] as Uint8Array;
    const mutated = fc
      .array(fc.tuple(fc.nat(first.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
      .map((changes) => {
        const bytes = first.slice();
        for (const [at, value] of changes) bytes[at] = value;
        return bytes;
      });
    const random = fc.uint8Array({ maxLength: 600 });
    const headed = fc
      .tuple(fc.constantFrom(0x00, 0x20, 0x24, 0x60, 0x84, 0xe0), random)
      .map(([descriptor, tail]) => bytesOf([0x28, 0xb5, 0x2f, 0xfd, descriptor], tail));
    let failures = 0;
    await fc.assert(
      fc.asyncProperty(fc.oneof(random, headed, mutated), async (payload) => {
        const around = new Uint8Array(4096 + 64).fill(0xee);
        try {
          await codec.decompress(payload, around.subarray(32, 32 + 4096));
        } catch (error) {
          expect(hasCode(error, "EIO")).toBe(true);
          failures++;
        }
        const edges = bytesOf(around.subarray(0, 32), around.subarray(32 + 4096));
        expect(differenceOf(edges, new Uint8Array(64).fill(0xee))).toBeUndefined();
      }),
      { numRuns: RUNS },
    );
    expect(failures).toBeGreaterThan(RUNS / 2);
    const target = new Uint8Array(4096);
    await codec.decompress(first, target);
    expect(differenceOf(target, repetitive(4096, 14, 500))).toBeUndefined();
  });

  test("close() must refuse later calls, and wait for what is under way", async () => {
    const other = create({ threads: 1 });
    const work = other.compress([repetitive(CLUSTER, 4)], CLUSTER);
    await other.close();
    await other.close();
    expect((await work)[0]).toBeDefined();
    const target = new Uint8Array(8);
    expect(() => other.compress([], 1)).toThrow("closed");
    expect(() => other.decompress(target, target)).toThrow("closed");
    expect(() => other.decompressMany([])).toThrow("closed");
  });
});

test("each way must read what the others write, on files of this machine", async () => {
  const clusters = [...fileClusters("/usr", 24, 42), repetitive(CLUSTER, 15)];
  const codecs = makers.map(([, create]) => create({ threads: 2 }));
  for (const writer of codecs) {
    const payloads = await writer.compress(clusters, 2 * CLUSTER);
    for (const reader of codecs) {
      const items = payloads.map((payload) => ({
        payload: payload as Uint8Array,
        target: new Uint8Array(CLUSTER),
      }));
      await reader.decompressMany(items);
      for (const [i, { target }] of items.entries())
        expect(differenceOf(target, clusters[i] as Uint8Array)).toBeUndefined();
    }
  }
  for (const codec of codecs) await codec.close();
});

describe("WebAssembly", () => {
  test("the binary must be the one of the pinned package", () => {
    const folder = dirname(createRequire(import.meta.url).resolve("@bokuweb/zstd-wasm"));
    const ours = gunzipSync(Buffer.from(ZSTD_WASM_GZIP_BASE64, "base64"));
    expect(Buffer.compare(ours, readFileSync(join(folder, "zstd.wasm")))).toBe(0);
  });

  test("memory must not grow with the work done, and stay below 64 MiB at the highest level", async () => {
    const grow = vi.spyOn(WebAssembly.Memory.prototype, "grow");
    const zstd = new WasmZstd(await loadZstdModule());
    const cluster = repetitive(2 ** 21, 1);
    const round = (): void => {
      const payload = zstd.compress(cluster, 22, 2 ** 22) as Uint8Array;
      expect(zstd.decompress(payload, new Uint8Array(2 ** 21))).toBe(2 ** 21);
    };
    round();
    const pages = grow.mock.calls.reduce((sum, [count]) => sum + count, 0);
    expect(pages * 65536).toBeLessThan(64 * 1024 * 1024);
    const grown = grow.mock.calls.length;
    for (let i = 0; i < 200; i++) {
      const payload = zstd.compress(cluster.subarray(0, CLUSTER), 3, CLUSTER) as Uint8Array;
      zstd.decompress(payload, new Uint8Array(CLUSTER));
    }
    expect(grow.mock.calls.length).toBe(grown);
    grow.mockRestore();
  }, 20_000);

  test("a frame that says 2 GiB of window must not make memory grow", async () => {
    const grow = vi.spyOn(WebAssembly.Memory.prototype, "grow");
    const codec = portable.createCodec("zstd");
    const payload = frame([rleBlock(7, 4096)], { windowLog: 31, content: 4096, contentField: 2 });
    const target = new Uint8Array(4096);
    await codec.decompress(payload, target);
    expect(target).toEqual(new Uint8Array(4096).fill(7));
    expect(grow.mock.calls).toEqual([]);
    grow.mockRestore();
  });

  test("an instance that ran out of memory must be replaced", async () => {
    const zstd = new WasmZstd(await loadZstdModule());
    const grow = vi.spyOn(WebAssembly.Memory.prototype, "grow").mockImplementation(() => {
      throw new RangeError("no memory");
    });
    const Instance = WebAssembly.Instance;
    const instances = vi.spyOn(WebAssembly, "Instance").mockImplementation(function make(...of) {
      return new Instance(...of);
    });
    const cluster = repetitive(2 ** 21, 1);
    const failed = (): unknown => zstd.compress(cluster, 22, 2 ** 22);
    expect(failed).toThrow("zstd ran out of memory or failed");
    expect(failed).toThrow("zstd ran out of memory or failed");
    expect(instances).toHaveBeenCalledTimes(2);
    grow.mockRestore();
    const payload = zstd.compress(cluster, 3, 2 ** 22) as Uint8Array;
    expect(zstd.decompress(payload, new Uint8Array(2 ** 21))).toBe(2 ** 21);
    expect(instances).toHaveBeenCalledTimes(3);
    instances.mockRestore();
  });
});
