import { directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import {
  checkQcow2,
  createOptions,
  createQcow2,
  openQcow2,
  type Qcow2Driver,
  readHeader,
} from "../src/index.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const RUNS = Number(process.env["BLOCKLAYER_MODEL_RUNS"] ?? 1);

/** A shape of image. */
interface Shape {
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly compat: "v2" | "v3";
  readonly backing: "none" | "same" | "short";
  readonly compressionType?: "zstd";
  readonly extendedL2?: boolean;
}

const SHAPES: readonly Shape[] = [
  { clusterSize: 512, refcountBits: 64, compat: "v3", backing: "none" },
  { clusterSize: 512, refcountBits: 1, compat: "v3", backing: "same" },
  { clusterSize: 512, refcountBits: 16, compat: "v2", backing: "short" },
  { clusterSize: 1024, refcountBits: 2, compat: "v3", backing: "short", compressionType: "zstd" },
  { clusterSize: 4096, refcountBits: 4, compat: "v3", backing: "none" },
  { clusterSize: 4096, refcountBits: 16, compat: "v2", backing: "none" },
  { clusterSize: 4096, refcountBits: 8, compat: "v3", backing: "same" },
  { clusterSize: 65536, refcountBits: 16, compat: "v3", backing: "short", compressionType: "zstd" },
  { clusterSize: 65536, refcountBits: 32, compat: "v3", backing: "none" },
  { clusterSize: 2 ** 21, refcountBits: 16, compat: "v3", backing: "same" },
  { clusterSize: 2 ** 14, refcountBits: 16, compat: "v3", backing: "none", extendedL2: true },
  { clusterSize: 2 ** 14, refcountBits: 1, compat: "v3", backing: "short", extendedL2: true },
  { clusterSize: 2 ** 15, refcountBits: 64, compat: "v3", backing: "same", extendedL2: true },
  { clusterSize: 2 ** 16, refcountBits: 16, compat: "v3", backing: "short", extendedL2: true },
  { clusterSize: 2 ** 21, refcountBits: 16, compat: "v3", backing: "same", extendedL2: true },
];

/** What the bytes of a disk may be: bits of the values that overlapping requests could leave. */
async function makeImage(shape: Shape, sizeBytes: number): Promise<Uint8Array> {
  const memory = openMemory();
  const options = parseOptions(
    createOptions,
    {
      size: sizeBytes,
      cluster_size: shape.clusterSize,
      refcount_bits: shape.refcountBits,
      compat: shape.compat,
      compression_type: shape.compressionType ?? "zlib",
      extended_l2: shape.extendedL2 === true,
      ...(shape.backing === "none" ? {} : { backing_file: "base", backing_fmt: "raw" }),
    },
    "qcow2",
  );
  await createQcow2({ file: directChild(memory), options });
  return memory.bytes;
}

function backingOf(shape: Shape, sizeBytes: number, random: Random): MemoryDriver | undefined {
  if (shape.backing === "none") return undefined;
  const length = shape.backing === "same" ? sizeBytes : Math.floor(sizeBytes / 2 / 512) * 512 + 512;
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 512) bytes.fill(random.below(256), at, at + 512);
  return openMemory({ bytes });
}

/** One random request on the disk and on the model, where v2 discards keep what they hide. */
async function step(
  disk: Qcow2Driver,
  model: Uint8Array,
  shape: Shape,
  random: Random,
): Promise<void> {
  const size = model.length;
  const { clusterSize } = shape;
  const kind = random.below(10);
  const aligned = random.below(2) === 0;
  const small = shape.extendedL2 === true ? clusterSize / 32 : 512;
  const unit = aligned ? clusterSize : random.pick([small, 512, 1]);
  const maxLength = Math.min(size, Math.max(6 * clusterSize, 4096));
  let offset = Math.floor(random.below(size) / unit) * unit;
  let length = Math.max(1, Math.floor(random.below(maxLength) / unit)) * unit;
  length = Math.min(length, size - offset);
  const end = offset + length;
  switch (kind) {
    case 0:
    case 1:
    case 2: {
      const value = 1 + random.below(255);
      await disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value)));
      model.fill(value, offset, end);
      break;
    }
    case 3:
    case 4: {
      offset -= offset % clusterSize;
      const stop = Math.min(size, offset + Math.ceil(length / clusterSize) * clusterSize);
      const bytes = new Uint8Array(stop - offset).fill(1 + random.below(255));
      // Noise in some clusters, so that they do not shrink.
      for (let at = 0; at < bytes.length; at += clusterSize) {
        if (random.below(3) > 0) continue;
        for (let i = at; i < Math.min(at + clusterSize, bytes.length); i++) {
          bytes[i] = random.below(256);
        }
      }
      await disk.writev(offset, IoVector.of(bytes), { compressed: true });
      model.set(bytes, offset);
      break;
    }
    case 5:
      await disk.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
      model.fill(0, offset, end);
      break;
    case 6: {
      if (shape.backing !== "none" && shape.compat === "v2") break;
      await disk.discard(offset, length);
      const first = Math.ceil(offset / clusterSize) * clusterSize;
      const last = end === size ? size : Math.floor(end / clusterSize) * clusterSize;
      if (last > first) model.fill(0, first, last);
      break;
    }
    case 7:
      await disk.flushToOs();
      break;
    default: {
      const target = new Uint8Array(length);
      const cut = random.below(length + 1);
      await disk.readv(offset, IoVector.from([target.subarray(0, cut), target.subarray(cut)]));
      expect(Buffer.compare(target, model.subarray(offset, end))).toBe(0);
    }
  }
}

async function expectClean(bytes: Uint8Array): Promise<void> {
  const file = directChild(openMemory({ bytes }));
  const result = await checkQcow2(file, await readHeader(file));
  expect(result.findings.map((one) => one.message)).toEqual([]);
}

describe("Qcow2Driver against a byte array", () => {
  for (const shape of SHAPES) {
    const { clusterSize, refcountBits, compat, backing } = shape;
    const entries = shape.extendedL2 === true ? ", subclusters" : "";
    const name = `${clusterSize} B clusters, ${refcountBits} bits, ${compat}, backing ${backing}${entries}`;
    test(`must read what was written: ${name}`, { timeout: 30_000 * (1 + RUNS) }, async () => {
      for (let run = 0; run < RUNS; run++) {
        const random = new Random(run * 7919 + clusterSize + refcountBits);
        const clusters = clusterSize > 65536 ? 9 : 40;
        const size =
          clusterSize * clusters - (random.below(2) === 0 ? 0 : 512 * random.below(2) + 512);
        const image = openMemory({ bytes: await makeImage(shape, size) });
        const base = backingOf(shape, size, random);
        const model = new Uint8Array(size);
        if (base !== undefined) model.set(base.bytes.subarray(0, size));
        const open = (): Promise<Qcow2Driver> =>
          openQcow2({
            file: directChild(image),
            ...(base === undefined ? {} : { backing: directChild(base) }),
            options: { "l2-cache-size": "4k", "l2-cache-entry-size": 512 },
          });
        const rounds = clusterSize > 2 ** 20 ? 2 : 3;
        for (let round = 0; round < rounds; round++) {
          const disk = await open();
          const steps = clusterSize > 65536 ? 15 : 60;
          for (let i = 0; i < steps; i++) await step(disk, model, shape, random);
          await disk.close();
          await expectClean(new Uint8Array(image.bytes));
        }
        const disk = await open();
        const all = new Uint8Array(size);
        await disk.readv(0, IoVector.of(all));
        expect(Buffer.compare(all, model)).toBe(0);
        await disk.close();
        // The memory driver closes with the image's bytes kept.
      }
    });
  }
});
