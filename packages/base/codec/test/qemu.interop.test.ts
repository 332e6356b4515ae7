/**
 * The real qemu-img reads clusters that either entry wrote, and this package reads those of qemu-img.
 * The image is made and taken apart by hand, so that nothing but the codec is tested.
 */
import { execFile, execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCodec as createPortable, type CodecName } from "../src/index.js";
import { createCodec as createNative } from "../src/index.node.js";
import { CLUSTER, differenceOf, fileClusters, repetitive } from "./samples.js";
import { clusterCases } from "./zstd-frames.js";

const run = promisify(execFile);

function hasQemu(): boolean {
  try {
    execFileSync("qemu-img", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    if (process.env["BLOCKLAYER_REQUIRE_QEMU"] === undefined) return false;
    throw new Error("BLOCKLAYER_REQUIRE_QEMU is set, and there is no qemu-img");
  }
}

/** Where the first compressed cluster starts: behind header, refcount table and block, L1 and L2. */
const DATA_AT = 5 * CLUSTER;
/** Above these bits of an entry stands the number of further sectors, for clusters of 64 KiB. */
const OFFSET_BITS = 62n - 8n;
const COMPRESSED = 1n << 62n;

/** A qcow2 image of compressed clusters only. */
function imageOf(payloads: readonly Uint8Array[], codec: CodecName): Buffer {
  const dataBytes = payloads.reduce((sum, payload) => sum + payload.length, 0);
  const clusters = 5 + Math.ceil(dataBytes / CLUSTER);
  const image = Buffer.alloc(clusters * CLUSTER);
  image.write("QFI\xfb", 0, "latin1");
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(16, 20);
  image.writeBigUInt64BE(BigInt(payloads.length * CLUSTER), 24);
  image.writeUInt32BE(1, 36);
  image.writeBigUInt64BE(BigInt(3 * CLUSTER), 40);
  image.writeBigUInt64BE(BigInt(CLUSTER), 48);
  image.writeUInt32BE(1, 56);
  image.writeUInt32BE(4, 96);
  image.writeUInt32BE(112, 100);
  if (codec === "zstd") {
    image.writeBigUInt64BE(8n, 72);
    image.writeUInt8(1, 104);
  }
  image.writeBigUInt64BE(BigInt(2 * CLUSTER), CLUSTER);
  image.writeBigUInt64BE((1n << 63n) | BigInt(4 * CLUSTER), 3 * CLUSTER);
  const counts = Array.from({ length: clusters }, (_, i) => Number(i < 5));
  let at = DATA_AT;
  for (const [i, payload] of payloads.entries()) {
    image.set(payload, at);
    const last = at + payload.length - 1;
    const sectors = Math.floor(last / 512) - Math.floor(at / 512);
    const entry = COMPRESSED | (BigInt(sectors) << OFFSET_BITS) | BigInt(at);
    image.writeBigUInt64BE(entry, 4 * CLUSTER + i * 8);
    for (let c = Math.floor(at / CLUSTER); c <= Math.floor(last / CLUSTER); c++) {
      counts[c] = (counts[c] ?? 0) + 1;
    }
    at = last + 1;
  }
  for (const [i, count] of counts.entries()) image.writeUInt16BE(count, 2 * CLUSTER + i * 2);
  return image;
}

/** The payloads of an image with one L2 table, padding and all. */
function payloadsOf(image: Buffer, count: number): Uint8Array[] {
  const l1 = Number(image.readBigUInt64BE(40));
  const l2 = Number(image.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
  return Array.from({ length: count }, (_, i) => {
    const entry = image.readBigUInt64BE(l2 + i * 8);
    expect(entry & COMPRESSED).toBe(COMPRESSED);
    const at = Number(entry & ((1n << OFFSET_BITS) - 1n));
    const sectors = Number((entry >> OFFSET_BITS) & 0xffn) + 1;
    return image.subarray(at, Math.floor(at / 512) * 512 + sectors * 512);
  });
}

describe.skipIf(!hasQemu())("with qemu-img", () => {
  let folder = "";
  const clusters = [...fileClusters("/usr", 40, 7), repetitive(CLUSTER, 1)];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "blocklayer-codec-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test.each([
    ["portable", "deflate", createPortable],
    ["node", "deflate", createNative],
    ["portable", "zstd", createPortable],
    ["node", "zstd", createNative],
  ] as const)("compress() of the %s entry to %s must be read by it", async (name, type, create) => {
    const codec = create(type, { threads: 2 });
    const payloads = await codec.compress(clusters, CLUSTER - 1);
    await codec.close();
    const fit = clusters.filter((_, i) => payloads[i] !== undefined);
    expect(fit.length).toBeGreaterThan(clusters.length / 2);
    const [image, raw] = [join(folder, `${name}.qcow2`), join(folder, `${name}.raw`)];
    await writeFile(
      image,
      imageOf(
        payloads.filter((payload) => payload !== undefined),
        type,
      ),
    );
    await run("qemu-img", ["check", "-f", "qcow2", image]);
    await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", image, raw]);
    expect(differenceOf(await readFile(raw), Buffer.concat(fit))).toBeUndefined();
  });

  test.each([
    ["deflate", "zlib"],
    ["zstd", "zstd"],
  ] as const)("decompress() must read what it wrote in %s", async (name, type) => {
    const [raw, image] = [join(folder, "source.raw"), join(folder, "written.qcow2")];
    const source = Array.from({ length: 6 }, (_, i) => repetitive(CLUSTER, i + 20, 2000));
    await writeFile(raw, Buffer.concat(source));
    await run("qemu-img", [
      "convert",
      "-c",
      "-O",
      "qcow2",
      "-o",
      `compression_type=${type}`,
      raw,
      image,
    ]);
    const payloads = payloadsOf(await readFile(image), source.length);
    for (const createCodec of [createPortable, createNative]) {
      const codec = createCodec(name, { threads: 2 });
      for (const [i, payload] of payloads.entries()) {
        const target = new Uint8Array(CLUSTER);
        await codec.decompress(payload, target);
        expect(differenceOf(target, source[i] as Uint8Array)).toBeUndefined();
      }
      await codec.close();
    }
  });

  test.each(clusterCases())("zstd: it must do what the other tests say with $name", async (one) => {
    const { name, payload, cluster } = one;
    const [image, raw] = [join(folder, `${name}.qcow2`), join(folder, `${name}.raw`)];
    await writeFile(image, imageOf([payload], "zstd"));
    const work = run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", image, raw]);
    if (cluster === undefined) {
      await expect(work).rejects.toThrow("error while reading at byte 0");
      return;
    }
    await work;
    expect(differenceOf(await readFile(raw), cluster)).toBeUndefined();
  });
});
