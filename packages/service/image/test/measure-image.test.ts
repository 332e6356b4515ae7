/** Measuring what a disk would take, beside the real qemu-img. */
import { fileDriver } from "@blocklayer/file";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { measureImage, openImage } from "../src/index.js";
import { isQemuInstalled, qemuImg, qemuIo } from "./support/qemu.js";

const drivers = [fileDriver, rawDriver, qcow2Driver];
const MiB = 2 ** 20;
let folder: string;
const path = (name: string): string => join(folder, name);

const SOURCES = [
  "holes.raw",
  "odd.raw",
  "nothing.raw",
  "base.qcow2",
  "top.qcow2",
  "packed.qcow2",
  "old.qcow2",
  "bitmaps.qcow2",
  "preallocated.qcow2",
];
const TARGETS: readonly { format: string; options: Record<string, string> }[] = [
  { format: "raw", options: {} },
  { format: "qcow2", options: {} },
  { format: "qcow2", options: { cluster_size: "512" } },
  { format: "qcow2", options: { cluster_size: "2M", refcount_bits: "64" } },
  { format: "qcow2", options: { cluster_size: "16k", extended_l2: "on" } },
  { format: "qcow2", options: { compat: "0.10" } },
  { format: "qcow2", options: { preallocation: "falloc" } },
  { format: "qcow2", options: { backing_file: "base.qcow2", size: "1G" } },
];

/**
 * Files with holes inside of clusters. qemu-img looks for them in images that it takes for preallocated, and then counts
 * less than these clusters; here a cluster is data or a hole as a whole.
 */
const HOLES_IN_CLUSTERS: ReadonlySet<string> = new Set(["bitmaps.qcow2", "preallocated.qcow2"]);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-measure-"));
  writeFileSync(path("holes.raw"), new Uint8Array(8192).fill(1));
  truncateSync(path("holes.raw"), 40 * MiB);
  const file = openSync(path("holes.raw"), "r+");
  for (const at of [MiB + 4096, 3 * MiB, 3 * MiB + 8192, 17 * MiB, 40 * MiB - 4096]) {
    writeSync(file, new Uint8Array(4096).fill(2), 0, 4096, at);
  }
  closeSync(file);
  writeFileSync(path("odd.raw"), new Uint8Array(70_001).fill(3));
  writeFileSync(path("nothing.raw"), "");
  if (!isQemuInstalled) return;
  qemuImg(folder, "create", "-f", "qcow2", "base.qcow2", "20M");
  qemuIo(folder, "base.qcow2", "write 0 192k", "write -z 256k 64k", "write 9M 4k");
  const backing = ["-b", "base.qcow2", "-F", "qcow2"];
  qemuImg(folder, "create", "-f", "qcow2", "-o", "cluster_size=4k", ...backing, "top.qcow2", "30M");
  qemuIo(folder, "top.qcow2", "write 64k 4k", "write -z 128k 64k", "write 29M 1k", "discard 0 64k");
  qemuImg(folder, "convert", "-c", "-O", "qcow2", "base.qcow2", "packed.qcow2");
  qemuImg(folder, "convert", "-O", "qcow2", "-o", "compat=0.10", "base.qcow2", "old.qcow2");
  qemuImg(folder, "convert", "-O", "qcow2", "base.qcow2", "bitmaps.qcow2");
  for (const words of ["b0", "b1 -g 512", "a-longer-name --disable"]) {
    const [name = "", ...more] = words.split(" ");
    qemuImg(folder, "bitmap", "--add", ...more, "bitmaps.qcow2", name);
  }
  qemuImg(
    folder,
    "create",
    "-f",
    "qcow2",
    "-o",
    "preallocation=metadata",
    "preallocated.qcow2",
    "3M",
  );
  qemuIo(folder, "preallocated.qcow2", "write 1M 100k");
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.runIf(isQemuInstalled)("measureImage() must give qemu-img's numbers", () => {
  test.each(SOURCES)("for a copy of %s", async (name) => {
    for (const { format, options } of TARGETS) {
      const words = Object.entries(options).map(([key, value]) => `${key}=${value}`);
      const given = words.length === 0 ? [] : ["-o", words.join(",")];
      const line = ["measure", "--output=json", "-O", format, ...given, name];
      const theirs = JSON.parse(qemuImg(folder, ...line)) as { required: number };
      await using source = await openImage(path(name), { drivers });
      const ours = await measureImage({ drivers, format, options, content: source });
      const isExact = !HOLES_IN_CLUSTERS.has(name) || options["cluster_size"] === undefined;
      expect([line, asJson(ours)]).toEqual([
        line,
        isExact
          ? theirs
          : { ...theirs, required: expect.toSatisfy((it: number) => it >= theirs.required) },
      ]);
    }
  });
});

function asJson(result: Awaited<ReturnType<typeof measureImage>>): unknown {
  return {
    ...(result.bitmapsBytes === undefined ? {} : { bitmaps: result.bitmapsBytes }),
    required: result.requiredBytes,
    "fully-allocated": result.fullyAllocatedBytes,
  };
}

test("measureImage() must see the holes of a raw file, and stop when asked to", async () => {
  await using source = await openImage(path("holes.raw"), { drivers, format: "raw" });
  const { requiredBytes } = await measureImage({ drivers, format: "qcow2", content: source });
  expect(requiredBytes).toBe((5 + 5) * 65_536);
  const signal = AbortSignal.abort();
  const stopped = measureImage({ drivers, format: "qcow2", content: source, signal });
  await expect(stopped).rejects.toMatchObject({ code: "ECANCELED" });
});

test("measureImage() must refuse a format without sizes, and options that nobody knows", async () => {
  await expect(measureImage({ drivers, format: "file", content: 512 })).rejects.toThrow(
    "Block driver 'file' does not support size measurement",
  );
  await expect(measureImage({ drivers, format: "frob", content: 512 })).rejects.toThrow(
    "Unknown file format 'frob'",
  );
  const unknown = { frob: "1" };
  await expect(
    measureImage({ drivers, format: "qcow2", options: unknown, content: 512 }),
  ).rejects.toThrow(/option 'frob' is unknown/);
  const ofTheFile = { nocow: "on" };
  expect(await measureImage({ drivers, options: ofTheFile, content: 513 })).toEqual({
    requiredBytes: 1024,
    fullyAllocatedBytes: 1024,
  });
});
