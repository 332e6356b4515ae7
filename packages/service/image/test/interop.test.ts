/** Against the real qemu-img: same answers, same bytes. */
import { fileDriver, hostDeviceDriver } from "@blocklayer/file";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  checkImage,
  compareImages,
  type ConvertOptions,
  convertImage,
  ConvertTarget,
  createImage,
  type CreateImageOptions,
  imageInfo,
  imageInfoChain,
  mapImage,
  openImage,
} from "../src/index.js";
import { isQemuInstalled, qemuImg, qemuIo, tryQemuImg } from "./support/qemu.js";
import { randomDisk } from "./support/random-disk.js";

const drivers = [fileDriver, hostDeviceDriver, rawDriver, qcow2Driver];
const MiB = 2 ** 20;
let folder: string;
const path = (name: string): string => join(folder, name);

/** Images that qemu-img made; the tests only read them. */
const IMAGES = [
  "raw.img",
  "short.img",
  "base.qcow2",
  "top.qcow2",
  "compressed.qcow2",
  "small-clusters.qcow2",
  "old.qcow2",
  "snapshots.qcow2",
  "longer.qcow2",
  "odd-size.qcow2",
  "subclusters.qcow2",
];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-image-"));
  if (!isQemuInstalled) return;
  writeFileSync(path("raw.img"), randomDisk(1, 10 * MiB + 1536));
  writeFileSync(path("short.img"), randomDisk(2, 2 * MiB, 500_000));
  truncateSync(path("short.img"), 3 * MiB);
  qemuImg(folder, "convert", "-O", "qcow2", "raw.img", "base.qcow2");
  const backing = ["-b", "base.qcow2", "-F", "qcow2"];
  qemuImg(folder, "create", "-f", "qcow2", ...backing, "top.qcow2");
  qemuIo(
    folder,
    "top.qcow2",
    "write 1M 300k",
    "write -z 4M 1M",
    "write -c 6M 64k",
    "discard 2M 1M",
  );
  qemuImg(folder, "convert", "-c", "-O", "qcow2", "raw.img", "compressed.qcow2");
  const small = ["-o", "cluster_size=512,refcount_bits=1"];
  qemuImg(folder, "convert", ...small, "-O", "qcow2", "raw.img", "small-clusters.qcow2");
  qemuImg(folder, "convert", "-o", "compat=0.10", "-O", "qcow2", "raw.img", "old.qcow2");
  qemuImg(folder, "convert", "-O", "qcow2", "raw.img", "snapshots.qcow2");
  qemuImg(folder, "snapshot", "-c", "first", "snapshots.qcow2");
  qemuIo(folder, "snapshots.qcow2", "write 0 1M");
  qemuImg(folder, "create", "-f", "qcow2", "-b", "short.img", "-F", "raw", "longer.qcow2", "5M");
  qemuIo(folder, "longer.qcow2", "write 1M 64k", "write 4M 64k");
  const extended = ["-o", "extended_l2=on"];
  qemuImg(folder, "create", "-f", "qcow2", ...extended, ...backing, "subclusters.qcow2");
  qemuIo(
    folder,
    "subclusters.qcow2",
    "write 1000k 300k",
    "write -z 4M 10k",
    "write 9k 3k",
    "write -c 6M 64k",
    "discard 2M 1M",
  );
  // A size that is no multiple of 512, as other programs may leave it.
  const odd = Buffer.from(readFileSync(path("base.qcow2")));
  odd.writeBigUInt64BE(BigInt(10 * MiB + 100), 24);
  writeFileSync(path("odd-size.qcow2"), odd);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function json(...words: readonly string[]): unknown {
  return JSON.parse(qemuImg(folder, ...words));
}

async function convert(
  source: string,
  target: string,
  options: Partial<ConvertOptions> = {},
  create: Readonly<Record<string, string>> = {},
) {
  await using from = await openImage(path(source), { drivers });
  await using to = await ConvertTarget.create({
    drivers,
    filename: path(target),
    format: target.endsWith(".qcow2") ? "qcow2" : "raw",
    sizeBytes: from.lengthBytes,
    options: create,
  });
  const targetIsZero = to.isKnownZero;
  await convertImage({ sources: [from], target: to.backend, targetIsZero, ...options });
  await to.complete();
}

test.skipIf(!isQemuInstalled).for(IMAGES)(
  "imageInfo() must tell what qemu-img tells about %s",
  async (name) => {
    const ours = await imageInfo(path(name), { drivers });
    expect(ours).toEqual(json("info", "--output=json", path(name)));
  },
);

test.skipIf(!isQemuInstalled)(
  "imageInfoChain() must tell what qemu-img tells about a chain",
  async () => {
    const ours = await imageInfoChain(path("top.qcow2"), { drivers });
    expect(ours).toEqual(json("info", "--backing-chain", "--output=json", path("top.qcow2")));
  },
);

test.skipIf(!isQemuInstalled).for(IMAGES)(
  "mapImage() must map %s as qemu-img does",
  async (name) => {
    await using disk = await openImage(path(name), { drivers });
    const entries: unknown[] = [];
    for await (const { compressed, filename, ...entry } of mapImage(disk)) {
      expect(compressed && entry.offset !== undefined).toBe(false);
      expect(filename === undefined).toBe(entry.offset === undefined);
      entries.push(entry);
    }
    expect(entries).toEqual(json("map", "--output=json", path(name)));
  },
);

test.skipIf(!isQemuInstalled)("mapImage() must keep to the range that it is given", async () => {
  await using disk = await openImage(path("top.qcow2"), { drivers });
  const entries: unknown[] = [];
  for await (const { compressed: _, filename: __, ...entry } of mapImage(disk, {
    start: 1_000_000,
    max: 5_000_000,
  })) {
    entries.push(entry);
  }
  const range = ["--start-offset=1000000", "--max-length=5000000"];
  expect(entries).toEqual(json("map", "--output=json", ...range, path("top.qcow2")));
});

test.skipIf(!isQemuInstalled).for(IMAGES.filter((name) => name.endsWith(".qcow2")))(
  "checkImage() must count what qemu-img counts in %s",
  async (name) => {
    await using disk = await openImage(path(name), { drivers });
    const { report } = await checkImage(disk);
    expect(report).toEqual(json("check", "--output=json", path(name)));
  },
);

test.skipIf(!isQemuInstalled).for(IMAGES)(
  "openImage() must read %s as qemu-img does",
  async (name) => {
    qemuImg(folder, "convert", "-O", "raw", name, "expected.img");
    await using ours = await openImage(path(name), { drivers });
    await using expected = await openImage(path("expected.img"), { drivers, format: "raw" });
    expect(await compareImages(ours, expected)).toEqual({ kind: "identical", sizesDiffer: false });
  },
);

test.skipIf(!isQemuInstalled).for([
  ["raw.img", "qcow2", {}, []],
  ["raw.img", "raw", {}, []],
  ["top.qcow2", "qcow2", {}, []],
  ["compressed.qcow2", "qcow2", { parallel: 16 }, ["-m", "16"]],
  ["small-clusters.qcow2", "raw", { sparseSizeBytes: 0 }, ["-S", "0"]],
  ["longer.qcow2", "qcow2", { sparseSizeBytes: 65536 }, ["-S", "64k"]],
] as const)(
  "convertImage() must make the same file of %s in %s as qemu-img (%o)",
  async ([source, format, options, words]) => {
    const [ours, theirs] = [`ours-${source}.${format}`, `theirs-${source}.${format}`];
    await convert(source, ours, options);
    qemuImg(folder, "convert", ...words, "-O", format, source, theirs);
    expect(readFileSync(path(ours)).equals(readFileSync(path(theirs)))).toBe(true);
  },
);

test.skipIf(!isQemuInstalled).for(["16k", "64k", "2M"])(
  "convertImage() must make the same file with subclusters as qemu-img, and back: clusters of %s",
  async (clusterSize) => {
    const create = { extended_l2: "on", cluster_size: clusterSize };
    await convert("raw.img", "ours-parts.qcow2", {}, create);
    const words = ["-o", `extended_l2=on,cluster_size=${clusterSize}`, "-O", "qcow2"];
    qemuImg(folder, "convert", ...words, "raw.img", "theirs-parts.qcow2");
    const theirs = readFileSync(path("theirs-parts.qcow2"));
    expect(readFileSync(path("ours-parts.qcow2")).equals(theirs)).toBe(true);
    await convert("theirs-parts.qcow2", "back.img");
    expect(readFileSync(path("back.img")).equals(readFileSync(path("raw.img")))).toBe(true);
  },
);

test.skipIf(!isQemuInstalled).for([
  { name: "in order", options: {}, create: {} },
  { name: "out of order", options: { outOfOrder: true, parallel: 16 }, create: {} },
  { name: "with subclusters", options: {}, create: { extended_l2: "on" } },
])("convertImage() must make compressed images that qemu-img reads, $name", async (one) => {
  await convert("raw.img", "c.qcow2", { compressed: true, ...one.options }, one.create);
  expect(qemuImg(folder, "check", "c.qcow2")).toMatch(/No errors/);
  expect(qemuImg(folder, "compare", "-f", "raw", "raw.img", "c.qcow2")).toMatch(/identical/);
  const theirs = statSync(path("compressed.qcow2")).size;
  expect(statSync(path("c.qcow2")).size).toBeLessThan(1.05 * theirs);
});

test.skipIf(!isQemuInstalled)(
  "ConvertTarget must take no more space than qemu-img's target, also at its start",
  async () => {
    const bytes = new Uint8Array(4 * MiB);
    bytes.fill(1, MiB, MiB + 4096);
    writeFileSync(path("hole.img"), bytes);
    await convert("hole.img", "ours-hole.img");
    qemuImg(folder, "convert", "-O", "raw", "hole.img", "theirs-hole.img");
    const blocks = (name: string): number => statSync(path(name)).blocks;
    expect(blocks("ours-hole.img")).toBeLessThanOrEqual(blocks("theirs-hole.img"));
  },
);

test.skipIf(!isQemuInstalled).for([
  ["qcow2", { cluster_size: "4k", refcount_bits: "8" }, "1000"],
  ["qcow2", { compat: "0.10" }, "3G"],
  ["qcow2", { backing_file: "base.qcow2", backing_fmt: "qcow2" }, undefined],
  ["raw", { preallocation: "falloc" }, "1M"],
  ["raw", {}, "1000"],
] as const)(
  "createImage() must announce and make %s with %o as qemu-img",
  async ([format, given, size]) => {
    const [ours, theirs] = [path("created-a"), path("created-b")];
    for (const name of [ours, theirs]) rmSync(name, { force: true });
    const words = Object.entries(given).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    const sizes = size === undefined ? [] : [size];
    const line = qemuImg(folder, "create", "-f", format, ...words, theirs, ...sizes);
    let shown = "";
    const options: CreateImageOptions = {
      drivers,
      filename: ours,
      format,
      options: { ...given, ...(size === undefined ? {} : { size }) },
      onFormatting: (plan) => {
        const text = (value: unknown) =>
          typeof value === "boolean" ? (value ? "on" : "off") : value;
        const pairs = plan.options.map(([name, value]) => `${name}=${String(text(value))}`);
        shown = `Formatting '${plan.filename}', fmt=${plan.format} ${pairs.join(" ")}\n`;
      },
    };
    await createImage(options);
    expect(shown.replace("created-a", "created-b")).toBe(line);
    expect(readFileSync(ours).equals(readFileSync(theirs))).toBe(true);
  },
);

test.skipIf(!isQemuInstalled).for([
  ["raw.img", "base.qcow2"],
  ["raw.img", "top.qcow2"],
  ["short.img", "longer.qcow2"],
  ["raw.img", "short.img"],
  ["compressed.qcow2", "old.qcow2"],
])("compareImages() must find what qemu-img finds between %s and %s", async ([a, b]) => {
  await using first = await openImage(path(a as string), { drivers });
  await using second = await openImage(path(b as string), { drivers });
  const ours = await compareImages(first, second);
  const theirs = tryQemuImg(folder, "compare", a as string, b as string);
  expect(theirs.status).toBe(ours.kind === "identical" ? 0 : 1);
  const place = /Content mismatch at offset (\d+)/.exec(theirs.output)?.[1];
  expect(ours.kind === "content-mismatch" ? String(ours.offset) : undefined).toBe(place);
  const warning = /Warning: Image size mismatch/.test(theirs.output);
  if (ours.kind !== "size-mismatch" && ours.kind !== "allocation-mismatch") {
    expect(ours.sizesDiffer).toBe(warning);
  }
});

test.skipIf(!isQemuInstalled)(
  "ConvertTarget must leave nothing that qemu-img takes for an image of its format",
  async () => {
    const filename = path("half.qcow2");
    await using target = await ConvertTarget.create({
      drivers,
      filename,
      format: "qcow2",
      sizeBytes: MiB,
    });
    await target.backend.write(0, new Uint8Array(MiB).fill(1));
    await target.backend.flush();
    const seen = tryQemuImg(folder, "info", "-U", "-f", "qcow2", "half.qcow2");
    expect(seen.status).toBe(1);
    expect(seen.output).toMatch(/not in qcow2 format/);
  },
);
