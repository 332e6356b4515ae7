/** amend() of the external data file's name, and of whether it is valid as a raw image. */
import { type BlockChild, directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import {
  checkQcow2,
  createOptions,
  createQcow2,
  openQcow2,
  type Qcow2Driver,
  readHeader,
} from "../src/index.js";
import { amendOptions } from "../src/amend/options.js";
import { EXTENSION, hasRawDataFile } from "../src/header/header.js";

const KIB = 1024;
const SIZE = 64 * KIB;

async function sample(
  given: Readonly<Record<string, unknown>>,
): Promise<{ image: MemoryDriver; dataFile: BlockChild; content: Uint8Array }> {
  const image = openMemory();
  const file = directChild(image);
  const dataFile = directChild(openMemory());
  const options = parseOptions(
    createOptions,
    { size: SIZE, cluster_size: 8192, data_file: "old.data", ...given },
    "qcow2",
  );
  await createQcow2({ file, dataFile, options });
  const disk = await openQcow2({ file, dataFile });
  const content = stampedBytes(1, 0, SIZE);
  await disk.writev(0, IoVector.of(content));
  await disk.close();
  return { image, dataFile, content };
}

async function amend(disk: Qcow2Driver, wanted: Readonly<Record<string, unknown>>): Promise<void> {
  await disk.amend(parseOptions(amendOptions, wanted, "qcow2"));
}

async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

describe("amend() of an image with an external data file", () => {
  test("must change the name in the header alone, and keep all else of it", async () => {
    const { image, dataFile, content } = await sample({ data_file_raw: true });
    const file = directChild(image);
    const before = await readHeader(file);
    const disk = await openQcow2({ file, dataFile });
    await amend(disk, { data_file: "elsewhere/new.data" });
    expect(Buffer.compare(await contentOf(disk), content)).toBe(0);
    expect((await disk.formatInfo()).data).toMatchObject({ "data-file": "elsewhere/new.data" });
    await disk.close();
    const { dataFilename, extensions, featureNames, ...header } = await readHeader(file);
    expect(dataFilename).toBe("elsewhere/new.data");
    expect(hasRawDataFile(header)).toBe(true);
    expect(featureNames).toEqual(before.featureNames);
    expect(extensions.map(({ type }) => type)).toEqual(before.extensions.map(({ type }) => type));
    const { corruptions, leaks } = await checkQcow2(file, await readHeader(file));
    expect([corruptions, leaks]).toEqual([0, 0]);
  });

  test("must keep the bytes of a name that is no UTF-8", async () => {
    const { image, dataFile } = await sample({});
    const file = directChild(image);
    const disk = await openQcow2({ file, dataFile });
    await amend(disk, { data_file: "odd\udcff.data" });
    await disk.close();
    const { dataFilename, extensions } = await readHeader(file);
    expect(dataFilename).toBe("odd\udcff.data");
    const stored = extensions.find(({ type }) => type === EXTENSION.dataFile)?.data;
    expect([...(stored ?? [])]).toEqual([...Buffer.from("odd\xff.data", "latin1")]);
  });

  test("data_file_raw=off must be kept to at once: a longer disk names nothing more", async () => {
    const { image, dataFile, content } = await sample({ data_file_raw: true });
    const file = directChild(image);
    const disk = await openQcow2({ file, dataFile });
    await amend(disk, { data_file_raw: true });
    expect(hasRawDataFile(await readHeader(file))).toBe(true);
    await amend(disk, { data_file_raw: false, size: 2 * SIZE });
    expect((await disk.formatInfo()).data).toMatchObject({ "data-file-raw": false });
    const status = await disk.blockStatus(SIZE, SIZE);
    expect([status.allocated, status.lengthBytes]).toEqual([false, SIZE]);
    await expect(amend(disk, { data_file_raw: true })).rejects.toThrow(
      "data-file-raw cannot be set on existing images",
    );
    await disk.close();
    expect(hasRawDataFile(await readHeader(file))).toBe(false);
    const again = await openQcow2({ file, dataFile, readOnly: true });
    expect(Buffer.compare((await contentOf(again)).subarray(0, SIZE), content)).toBe(0);
    await again.close();
  });

  test.each([
    ["Expected data file name, got empty string", { data_file: "" }, {}],
    ["holds a zero byte", { data_file: "a\0b" }, {}],
    ["do not fit into a cluster", { data_file: "x".repeat(3000) }, { cluster_size: 512 }],
    ["cannot be set on existing images", { data_file: "x", data_file_raw: true }, {}],
    ["Cannot downgrade an image with a data file", { data_file: "x", compat: "0.10" }, {}],
  ])("must refuse with '%s', and change nothing", async (words, wanted, given) => {
    const { image, dataFile } = await sample(given);
    const before = image.bytes;
    const disk = await openQcow2({ file: directChild(image), dataFile });
    await expect(amend(disk, wanted)).rejects.toThrow(words);
    await disk.close();
    expect(Buffer.compare(image.bytes, before)).toBe(0);
  });

  test("must leave the old name and kind or the new ones after a crash [C1]", async () => {
    const { image, dataFile, content } = await sample({ data_file_raw: true });
    const trace = new Trace();
    const file = new SimDisk({ content: image.bytes, trace });
    const disk = await openQcow2({ file: directChild(file), dataFile });
    await amend(disk, { data_file: "the new name of the data file", data_file_raw: false });
    await disk.close();
    const seen = new Set<string>();
    for (const state of crashStates(trace, { seed: 2, maxSubsets: 16, tear: true })) {
      const left = directChild(state.open());
      const header = await readHeader(left);
      seen.add(`${header.dataFilename}, ${hasRawDataFile(header) ? "raw" : "not raw"}`);
      const { corruptions } = await checkQcow2(left, header);
      expect([state.describe(), corruptions]).toEqual([state.describe(), 0]);
      const after = await openQcow2({ file: left, dataFile, readOnly: true });
      expect(Buffer.compare(await contentOf(after), content)).toBe(0);
      await after.close();
    }
    expect([...seen]).toEqual(["old.data, raw", "the new name of the data file, not raw"]);
  });
});
