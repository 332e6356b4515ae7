import { readFile } from "node:fs/promises";
import { type BlockChild, directChild, parseOptions } from "@blocklayer/block-api";
import { BlockError, hasCode, type IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import {
  checkQcow2,
  createOptions,
  createQcow2,
  decodeHeader,
  formatInfoOf,
  readHeader,
} from "../src/index.js";
import { childOf, createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

type Options = Readonly<Record<string, string>>;

async function codeOf(options: Readonly<Record<string, unknown>>): Promise<string> {
  try {
    await createInMemory(options);
  } catch (error) {
    if (error instanceof BlockError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "created";
}

describe("createQcow2()", () => {
  test.each<[string, Options]>([
    ["EINVAL: Cluster size must be a power of two", { size: "1M", cluster_size: "1000" }],
    ["EINVAL: Cluster size must be a power of two", { size: "1M", cluster_size: "256" }],
    ["EINVAL: Cluster size must be a power of two", { size: "1M", cluster_size: "4M" }],
    ["EINVAL: Cluster size must be a power of two", { size: "1M", cluster_size: "0" }],
    ["EINVAL: Refcount width must be a power of two", { size: "1M", refcount_bits: "3" }],
    ["EINVAL: Refcount width must be a power of two", { size: "1M", refcount_bits: "128" }],
    ["EINVAL: Different refcount widths", { size: "1M", compat: "0.10", refcount_bits: "8" }],
    [
      "EINVAL: Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
      { size: "1M", extended_l2: "on", compat: "0.10", cluster_size: "8k", refcount_bits: "3" },
    ],
    [
      "EINVAL: Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
      { size: "1M", extended_l2: "on", cluster_size: "8k", refcount_bits: "3" },
    ],
    ["EINVAL: Backing format cannot be used", { size: "1M", backing_fmt: "raw" }],
    ["EINVAL: Expected backing file name", { size: "1M", backing_file: "" }],
    ["EINVAL: Backing file name is longer", { size: "1M", backing_file: "x".repeat(1024) }],
    ["EINVAL: The backing file name holds a zero byte", { size: "1M", backing_file: "a\0b" }],
    ["EINVAL: data-file-raw requires data-file", { size: "1M", data_file_raw: "on" }],
    ["EINVAL: External data files are only", { size: "1M", data_file: "x", compat: "0.10" }],
    ["EINVAL: Expected data file name", { size: "1M", data_file: "" }],
    ["EINVAL: The data file name holds a zero byte", { size: "1M", data_file: "a\0b" }],
    ["EINVAL: nobody made the external data file 'x'", { size: "1M", data_file: "x" }],
    [
      "EINVAL: Backing file and data-file-raw cannot be used",
      { size: "1M", data_file: "x", data_file_raw: "on", backing_file: "b", backing_fmt: "raw" },
    ],
    ["EINVAL: qcow2: option 'compat'", { size: "1M", compat: "0.9" }],
    ["EINVAL: option 'size' is required", {}],
    ["EFBIG: The image size is too large", { size: "128.001G", cluster_size: "512" }],
    [
      "ENOSPC: header",
      { size: "1M", cluster_size: "512", backing_file: "x".repeat(393), backing_fmt: "raw" },
    ],
    ["ENOTSUP: creating an image with encryption", { size: "1M", encryption: "on" }],
    ["ENOTSUP: creating an image with encryption", { size: "1M", "encrypt.format": "luks" }],
    [
      "EINVAL: Non-zlib compression type is only supported with compatibility level 1.1 and above",
      { size: "1M", compat: "0.10", compression_type: "zstd" },
    ],
    ["EINVAL: Lazy refcounts only supported", { size: "1M", compat: "v2", lazy_refcounts: "on" }],
    [
      "EINVAL: Backing file and preallocation can only be used at the same time if extended_l2",
      {
        size: "1M",
        data_file: "x",
        preallocation: "full",
        backing_file: "b",
        backing_fmt: "raw",
      },
    ],
  ])("must refuse with '%s'", async (words, options) => {
    expect(await codeOf(options)).toContain(words);
  });

  test("must make an image that is sound, whose size is rounded up to a sector", async () => {
    const memory = await createInMemory({ size: "1025", backing_file: "base", backing_fmt: "raw" });
    const header = await readHeader(directChild(memory));
    expect(header).toMatchObject({
      virtualSize: 1536,
      backingFilename: "base",
      backingFormat: "raw",
    });
    expect(header.featureNames).toHaveLength(8);
    const result = await checkQcow2(directChild(memory), header);
    expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  });

  test("must write the magic last and behind a flush, so that a cut creation is no image", async () => {
    const memory = openMemory({ bytes: new Uint8Array(512).fill(0x51) });
    const events: string[] = [];
    const inner = directChild(memory);
    const file: BlockChild = {
      ...inner,
      nodeName: "watched",
      get lengthBytes() {
        return inner.lengthBytes;
      },
      writev(offset: number, source: IoVector) {
        events.push(`write ${offset}+${source.lengthBytes}`);
        expect(memory.bytes[0] ?? 0).not.toBe(0x51);
        return inner.writev(offset, source);
      },
      flush() {
        events.push("flush");
        return inner.flush();
      },
    };
    await createQcow2({ file, options: parseOptions(createOptions, { size: "1M" }, "qcow2") });
    expect(events.slice(-3)).toEqual(["flush", "write 0+4", "flush"]);
    expect(events.filter((event) => event === "write 0+4")).toHaveLength(1);
  });

  test("must make the same image on a device full of old bytes", async () => {
    const fresh = (await createInMemory({ size: "100G" })).bytes;
    const store = openMemory({ bytes: new Uint8Array(fresh.length).fill(0xee) });
    const inner = directChild(store);
    const capabilities = { ...inner.capabilities, truncate: false, writeZeroes: false };
    const options = parseOptions(createOptions, { size: "100G" }, "qcow2");
    await createQcow2({ file: { ...inner, lengthBytes: fresh.length, capabilities }, options });
    const header = decodeHeader(fresh.subarray(0, 65536), fresh.length);
    expect(await readHeader(inner)).toEqual(header);
    expect(store.bytes.subarray(65536)).toEqual(fresh.subarray(65536));
    const small = { ...inner, lengthBytes: fresh.length - 1, capabilities };
    await expect(createQcow2({ file: small, options })).rejects.toSatisfy((error) =>
      hasCode(error, "ENOSPC"),
    );
  });

  test("must plan the largest image that there is in about a second", async () => {
    const memory = await createInMemory({
      size: "128G",
      cluster_size: "512",
      refcount_bits: "64",
    });
    expect(memory.lengthBytes).toBe(34_101_760);
    const file = directChild(memory);
    expect(await checkQcow2(file, await readHeader(file))).toMatchObject({
      corruptions: 0,
      leaks: 0,
      checkErrors: 0,
    });
  }, 20_000);
});

/** Small clusters make the refcount structures grow; the larger sizes give long L1 tables. */
const SIZES = ["0", "1", "513", "1000000", "10G", "1T", "64T"];
const CLUSTER_SIZES = ["512", "1k", "4k", "8k", "64k", "2M"];
/** Of the matrix, one case in so many by default; all of them when a long run is wanted. */
const STRIDE = process.env["BLOCKLAYER_FUZZ_RUNS"] === undefined ? 3 : 1;

function* matrix(): Generator<Options> {
  for (const size of SIZES) {
    for (const cluster_size of CLUSTER_SIZES) {
      yield { size, cluster_size, compat: "0.10" };
      const refcount_bits = String(2 ** ((size.length + cluster_size.length * 3) % 7));
      yield { size, cluster_size, compat: "1.1", refcount_bits };
    }
  }
  for (const cluster_size of CLUSTER_SIZES) {
    yield { size: "1M", cluster_size, compression_type: "zstd" };
    yield {
      size: "1M",
      cluster_size,
      compression_type: "zstd",
      backing_file: "b",
      backing_fmt: "raw",
    };
    yield { size: "1M", cluster_size, compression_type: "zstd", compat: "0.10" };
  }
  for (const refcount_bits of ["1", "2", "4", "8", "16", "32", "64"]) {
    yield { size: "5G", cluster_size: "512", refcount_bits };
    yield { size: "5G", cluster_size: "64k", refcount_bits };
  }
  for (const backing_file of ["b", "base.img", "ünïcode", "x".repeat(376), "x".repeat(377)]) {
    for (const cluster_size of ["512", "8k", "64k"]) {
      yield { size: "1M", cluster_size, backing_file, backing_fmt: "raw" };
      yield { size: "1M", cluster_size, backing_file, backing_fmt: "qcow2", compat: "0.10" };
    }
  }
  yield { size: "1M", backing_file: "x".repeat(1023), backing_fmt: "raw" };
  for (const size of ["0", "513", "1000000", "10G", "1T", "4T", "64T", "4P"]) {
    for (const cluster_size of [
      "512",
      "8k",
      "16k",
      "32k",
      "64k",
      "128k",
      "256k",
      "512k",
      "1M",
      "2M",
    ]) {
      const refcount_bits = String(2 ** ((size.length + cluster_size.length * 3) % 7));
      yield { size, cluster_size, extended_l2: "on", refcount_bits };
      yield { size, cluster_size, extended_l2: "on", backing_file: "base", backing_fmt: "raw" };
    }
  }
  yield { size: "1M", extended_l2: "on", compat: "0.10" };
}

describeWithQemu("createQcow2() beside qemu-img create", () => {
  const scratch = useScratch();

  test("must make the same bytes, or refuse what qemu-img refuses", async () => {
    let made = 0;
    for (const [index, options] of [...matrix()].entries()) {
      if (index % STRIDE !== 0) continue;
      const filename = scratch("theirs.qcow2");
      const { size, ...rest } = options;
      const list = Object.entries(rest).map(([name, value]) => `${name}=${value}`);
      const theirs = await qemuImg(
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-o",
        list.join(","),
        filename,
        size as string,
      );
      const what = JSON.stringify(options);
      const ours = await createInMemory(options).catch((error: unknown) => {
        if (error instanceof BlockError) return error;
        throw error;
      });
      if (theirs.code !== 0) {
        expect({ what, refused: ours instanceof BlockError }).toEqual({ what, refused: true });
        continue;
      }
      if (ours instanceof BlockError) throw new Error(`${what}: ${ours.message}`);
      made++;
      const difference = Buffer.compare(ours.bytes, await readFile(filename));
      expect({ what, difference }).toEqual({ what, difference: 0 });
    }
    expect(made).toBeGreaterThan(100 / STRIDE);
  }, 120_000);

  test("formatInfoOf() and readHeader() must agree with qemu-img info", async () => {
    for (const options of [
      "compat=0.10",
      "compat=1.1,refcount_bits=1",
      "lazy_refcounts=on",
      "extended_l2=on",
    ]) {
      const filename = scratch("info.qcow2");
      await qemuImg("create", "-q", "-f", "qcow2", "-o", options, filename, "1000001");
      const theirs = JSON.parse(
        (await qemuImg("info", "--output=json", filename)).stdout,
      ) as Record<string, unknown>;
      const header = await readHeader(childOf(await readFile(filename)));
      const info = formatInfoOf(header);
      expect({ type: info.type, data: info.data }).toEqual(theirs["format-specific"]);
      expect(Object.keys(info.data)).toEqual(
        Object.keys((theirs["format-specific"] as { data: object }).data),
      );
      expect(header.virtualSize).toBe(theirs["virtual-size"]);
      expect(info.clusterSizeBytes).toBe(theirs["cluster-size"]);
      expect(info.dirty).toBe(theirs["dirty-flag"]);
    }
  });
});
