import { BlockError, hasCode, MiB } from "@blocklayer/bytes";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { convertImage, ConvertTarget, type NewTargetOptions, openImage } from "../src/index.js";
import { HEAD_BYTES, NOTICE } from "../src/create/held-head.js";
import { Files } from "./support/files.js";
import { randomDisk } from "./support/random-disk.js";

const LENGTH = 3 * MiB;

function setUp(format: string) {
  const files = new Files();
  const drivers = [files.driver, rawDriver, qcow2Driver];
  const bytes = randomDisk(1, LENGTH);
  bytes.fill(1, 0, 600);
  files.put("a", bytes);
  const create = (more: Partial<NewTargetOptions> = {}) =>
    ConvertTarget.create({ drivers, filename: "b", format, sizeBytes: LENGTH, ...more });
  const copyTo = async (target: ConvertTarget) => {
    await using source = await openImage("a", { drivers, format: "raw" });
    const { isKnownZero } = target;
    await convertImage({ sources: [source], target: target.backend, targetIsZero: isKnownZero });
  };
  const content = async () => {
    await using disk = await openImage("b", { drivers, format });
    return Buffer.from(await disk.read(0, disk.lengthBytes));
  };
  return { files, drivers, bytes, create, copyTo, content };
}

test.each(["raw", "qcow2"])(
  "ConvertTarget must be a whole %s image after complete()",
  async (format) => {
    const { create, copyTo, content, bytes } = setUp(format);
    const target = await create();
    expect(target).toMatchObject({ isKnownZero: true, isNewFile: true });
    await copyTo(target);
    await target.complete();
    expect((await content()).compare(bytes)).toBe(0);
  },
);

test("ConvertTarget must open the new image with nodeOptions, and look at their names first", async () => {
  const { files, create, copyTo } = setUp("qcow2");
  files.put("b", new Uint8Array(1000).fill(7));
  const options = { compression_type: "zstd" };
  const unknown = create({ options, nodeOptions: { "compression-grade": 3 } });
  await expect(unknown).rejects.toThrow("qcow2: option 'compression-grade' is unknown");
  expect(files.get("b")).toEqual(new Uint8Array(1000).fill(7));
  const tooHigh = create({ options, nodeOptions: { "compression-level": 23 } });
  await expect(tooHigh).rejects.toThrow("compression type 'zstd' has levels 1 to 22");
  const target = await create({ options, nodeOptions: { "compression-level": "22" } });
  await copyTo(target);
  await target.complete();
});

test.each(["raw", "qcow2"])(
  "ConvertTarget must leave no %s image on the disk at any moment before complete()",
  async (format) => {
    const { files, create, copyTo, drivers } = setUp(format);
    const head = () => new TextDecoder().decode(files.get("b").subarray(0, NOTICE.length));
    const target = await create();
    let writes = 0;
    files.onWrite = (name) => {
      if (name !== "b") return;
      writes++;
      expect(head()).toBe(NOTICE);
    };
    await copyTo(target);
    await target.backend.flush();
    expect(writes).toBeGreaterThan(3);
    expect(head()).toBe(NOTICE);
    await expect(openImage("b", { drivers })).rejects.toThrow(/'b' is incomplete/);
    if (format === "qcow2") {
      await expect(openImage("b", { drivers, format })).rejects.toThrow(/magic|qcow2/);
    }
    files.onWrite = undefined;
    await target.complete();
    expect(head()).not.toBe(NOTICE);
  },
);

test("ConvertTarget must show readers of the open target what was written to its head", async () => {
  const { create } = setUp("raw");
  await using target = await create();
  const { backend } = target;
  await backend.write(HEAD_BYTES - 700, new Uint8Array(1400).fill(5));
  await backend.writeZeroes(HEAD_BYTES - 100, 200);
  const expected = new Uint8Array(2 * HEAD_BYTES);
  expected.fill(5, HEAD_BYTES - 700, HEAD_BYTES + 700).fill(0, HEAD_BYTES - 100, HEAD_BYTES + 100);
  expect(await backend.read(0, 2 * HEAD_BYTES)).toEqual(expected);
});

test("ConvertTarget must put zeroes at the start of a disk that starts with them", async () => {
  const { create, files } = setUp("raw");
  const target = await create();
  await target.complete();
  expect(files.get("b").every((byte) => byte === 0)).toBe(true);
});

test("ConvertTarget.abandon() must remove a file that it made", async () => {
  const { create, files } = setUp("qcow2");
  const target = await create();
  expect(await target.abandon()).toBe("removed");
  expect(files.stores.has("b")).toBe(false);
});

test("ConvertTarget.abandon() must leave a file that was there before, with the notice", async () => {
  const { create, files, drivers } = setUp("qcow2");
  files.put("b", new Uint8Array(100));
  const target = await create();
  expect(target.isNewFile).toBe(false);
  expect(await target.abandon()).toBe("left-incomplete");
  expect(files.stores.has("b")).toBe(true);
  await expect(openImage("b", { drivers })).rejects.toMatchObject({ code: "ECORRUPT" });
});

test("ConvertTarget must be abandoned by `await using` when it was not completed", async () => {
  const { create, files } = setUp("raw");
  {
    await using target = await create();
    expect(target.backend.lengthBytes).toBe(LENGTH);
  }
  expect(files.stores.has("b")).toBe(false);
});

test("ConvertTarget.complete() must not let the head go when a flush before it fails", async () => {
  const { create, files, copyTo } = setUp("qcow2");
  const target = await create();
  await copyTo(target);
  files.onWrite = () => {
    throw new BlockError("ENOSPC", "No space left on device");
  };
  await expect(target.complete()).rejects.toSatisfy((error) => hasCode(error, "ENOSPC"));
  files.onWrite = undefined;
  expect(new TextDecoder().decode(files.get("b").subarray(0, NOTICE.length))).toBe(NOTICE);
  expect(await target.abandon()).toBe("removed");
});

test("ConvertTarget.existing() must write in place and hold nothing back", async () => {
  const { copyTo, content, bytes, drivers, files } = setUp("raw");
  files.put("b", new Uint8Array(LENGTH).fill(9));
  const target = await ConvertTarget.existing("b", { drivers, format: "raw" });
  expect(target).toMatchObject({ isKnownZero: false, isNewFile: false, plan: undefined });
  await copyTo(target);
  await target.complete();
  expect((await content()).compare(bytes)).toBe(0);
});

test("ConvertTarget with a backing image must not count as zero, and leave what is shared alone", async () => {
  const { create, drivers, files } = setUp("qcow2");
  const backing = { filename: "a", format: "raw" };
  const middle = await create({ backing });
  expect(middle.isKnownZero).toBe(false);
  await middle.backend.write(MiB, new Uint8Array(1000).fill(7));
  await middle.backend.writeZeroes(2 * MiB, 65536);
  await middle.complete();
  const target = await create({ filename: "c", backing });
  const source = await openImage("b", { drivers, format: "qcow2" });
  const result = await convertImage({
    sources: [source],
    target: target.backend,
    targetBacking: { lengthBytes: LENGTH },
  });
  expect(result).toMatchObject({ dataBytes: 65536, zeroBytes: 65536 });
  expect(result.backingBytes).toBe(LENGTH - 2 * 65536);
  await target.complete();
  const copy = await openImage("c", { drivers, format: "qcow2" });
  const [a, b] = [await source.read(0, LENGTH), await copy.read(0, LENGTH)];
  expect(Buffer.compare(a, b)).toBe(0);
  await source.close();
  await copy.close();
  expect(files.stores.has("c")).toBe(true);
});
