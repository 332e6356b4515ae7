import { BlockError } from "@blocklayer/bytes";
import type { DriverDefinition } from "@blocklayer/block-api";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { createImage, type CreateImageOptions, type CreatePlan, imageInfo } from "../src/index.js";
import { Files } from "./support/files.js";

function setUp() {
  const files = new Files();
  const drivers = [files.driver, rawDriver, qcow2Driver];
  const create = (options: Omit<CreateImageOptions, "drivers">) =>
    createImage({ drivers, ...options });
  return { files, drivers, create };
}

test("createImage() must make an image of the size and options given", async () => {
  const { create, drivers } = setUp();
  const options = { cluster_size: "4k" };
  await create({ filename: "x", format: "qcow2", sizeBytes: 1 << 20, options });
  const info = await imageInfo("x", { drivers });
  expect(info).toMatchObject({ format: "qcow2", "virtual-size": 1 << 20, "cluster-size": 4096 });
});

test("createImage() must show the whole plan, in order, before it makes anything", async () => {
  const { create, files } = setUp();
  let shown: CreatePlan | undefined;
  const result = await create({
    filename: "x",
    format: "qcow2",
    options: { size: "1M", lazy_refcounts: false, nocow: "on" },
    onFormatting: (plan) => {
      shown = plan;
      expect(files.stores.has("x")).toBe(false);
    },
  });
  expect(shown?.options.map(([name]) => name)).toEqual([
    "cluster_size",
    "extended_l2",
    "compression_type",
    "size",
    "lazy_refcounts",
    "refcount_bits",
    "nocow",
  ]);
  expect(result).toMatchObject({ isNewFile: true, sizeBytes: 1 << 20 });
});

test("createImage() must make the external data file beside the image, and take it away again", async () => {
  const { create, files } = setUp();
  const options = { data_file: "disk.data", data_file_raw: true };
  await create({ filename: "dir/x", format: "qcow2", sizeBytes: 1 << 20, options });
  expect([...files.stores.keys()].sort()).toEqual(["dir/disk.data", "dir/x"]);
  expect(files.stores.get("dir/disk.data")?.lengthBytes).toBe(1 << 20);
  files.stores.clear();
  files.onWrite = (filename) => {
    if (filename === "dir/x") throw new BlockError("EIO", "injected");
  };
  await expect(
    create({ filename: "dir/x", format: "qcow2", sizeBytes: 1 << 20, options }),
  ).rejects.toMatchObject({ code: "EIO" });
  expect([...files.stores.keys()]).toEqual([]);
});

test("createImage() must not empty a data file that is there for an image that cannot be", async () => {
  const { create, files } = setUp();
  files.put("disk.data", new Uint8Array(512).fill(1));
  const options = { data_file: "disk.data", data_file_raw: true, cluster_size: 1000 };
  await expect(
    create({ filename: "x", format: "qcow2", sizeBytes: 1 << 20, options }),
  ).rejects.toMatchObject({ code: "EINVAL" });
  expect(files.stores.get("disk.data")?.lengthBytes).toBe(512);
  await expect(
    create({ filename: "x", format: "qcow2", sizeBytes: 512, options: { data_file: "x" } }),
  ).rejects.toMatchObject({ message: expect.stringContaining("the same file") });
  const backing = { filename: "disk.data", format: "raw" };
  await expect(
    create({ filename: "x", format: "qcow2", backing, options: { data_file: "disk.data" } }),
  ).rejects.toMatchObject({ message: expect.stringContaining("as the backing file") });
  expect(files.stores.get("disk.data")?.lengthBytes).toBe(512);
});

test("createImage() must take the size from the backing image, found beside the new one", async () => {
  const { create, drivers, files } = setUp();
  files.put("dir/base", new Uint8Array(8192));
  const backing = { filename: "base", format: "raw" };
  await create({ filename: "dir/top", format: "qcow2", backing });
  expect(await imageInfo("dir/top", { drivers })).toMatchObject({
    "virtual-size": 8192,
    "backing-filename": "base",
    "full-backing-filename": "dir/base",
    "backing-filename-format": "raw",
  });
});

test("createImage() must not look at the backing image when told so", async () => {
  const { create, files } = setUp();
  const backing = { filename: "nowhere", format: "raw" };
  await create({
    filename: "x",
    format: "qcow2",
    backing,
    unsafeNoBackingCheck: true,
    sizeBytes: 512,
  });
  expect(files.opened).not.toContain("nowhere");
});

const raw = { filename: "base", format: "raw" };
test.each([
  ["an unknown format", { format: "foo", sizeBytes: 1 }, /Unknown file format 'foo'/],
  ["no size", { format: "qcow2" }, /needs a size parameter/],
  ["two sizes", { sizeBytes: 1, options: { size: "1M" } }, /only once/],
  [
    "a backing image without a format",
    { format: "qcow2", backing: { filename: "base" } },
    /without backing format/,
  ],
  [
    "a backing format alone",
    { format: "qcow2", options: { backing_fmt: "raw" } },
    /no backing file/,
  ],
  [
    "a format without backing",
    { format: "raw", backing: raw },
    /not supported for file format 'raw'/,
  ],
  [
    "itself as backing",
    { format: "qcow2", backing: { filename: "x", format: "raw" } },
    /same filename/,
  ],
  ["a backing image that is not there", { format: "qcow2", backing: raw }, /Could not open 'base'/],
  ["an unknown option", { sizeBytes: 1, options: { color: "red" } }, /'color' is unknown/],
])("createImage() must refuse %s and touch nothing", async (_what, options, message) => {
  const { create, files } = setUp();
  files.put("x", new Uint8Array([1, 2, 3]));
  await expect(create({ filename: "x", ...options })).rejects.toThrow(message);
  expect(files.get("x")).toEqual(new Uint8Array([1, 2, 3]));
});

test("createImage() must leave an existing file alone when the format refuses its options", async () => {
  const { create, files } = setUp();
  files.put("x", new Uint8Array([1, 2, 3]));
  const options = { cluster_size: 1000 };
  await expect(create({ filename: "x", format: "qcow2", sizeBytes: 512, options })).rejects.toThrow(
    /power of two/,
  );
  expect(files.get("x")).toEqual(new Uint8Array([1, 2, 3]));
});

test("createImage() must take its own file away after a failure, never one that was there", async () => {
  const { files, create } = setUp();
  files.onWrite = () => {
    throw new BlockError("ENOSPC", "No space left on device");
  };
  const wanted = { filename: "x", format: "qcow2", sizeBytes: 512 };
  await expect(create(wanted)).rejects.toMatchObject({ code: "ENOSPC" });
  expect(files.stores.has("x")).toBe(false);
  files.put("x", new Uint8Array([1]));
  await expect(create(wanted)).rejects.toMatchObject({ code: "ENOSPC" });
  expect(files.stores.has("x")).toBe(true);
});

test("createImage() must report a store that cannot be created", async () => {
  const { files } = setUp();
  const { name, kind, openOptions } = files.driver;
  const open: DriverDefinition["open"] = (context) => files.driver.open(context);
  const drivers: DriverDefinition[] = [{ name, kind, openOptions, open }, rawDriver];
  await expect(createImage({ drivers, filename: "x", sizeBytes: 1 })).rejects.toMatchObject({
    code: "ENOTSUP",
  });
});
