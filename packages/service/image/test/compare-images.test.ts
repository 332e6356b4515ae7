import { BlockError, MiB } from "@blocklayer/bytes";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { compareImages, type CompareOptions, openImage } from "../src/index.js";
import { Files } from "./support/files.js";
import { randomDisk } from "./support/random-disk.js";

async function compare(files: Files, options?: CompareOptions) {
  const drivers = [files.driver, rawDriver];
  await using a = await openImage("a", { drivers, format: "raw" });
  await using b = await openImage("b", { drivers, format: "raw" });
  return await compareImages(a, b, options);
}

function filesWith(a: Uint8Array, b: Uint8Array): Files {
  const files = new Files();
  files.put("a", a);
  files.put("b", b);
  return files;
}

test("compareImages() must find disks of equal bytes identical, holes or not", async () => {
  const bytes = randomDisk(1, 5 * MiB);
  const files = filesWith(bytes, bytes);
  files.stores.get("b")?.discard(0, 0);
  expect(await compare(files)).toEqual({ kind: "identical", sizesDiffer: false });
  files.put("a", new Uint8Array(MiB));
  files.put("b", new Uint8Array(0), MiB);
  expect(await compare(files)).toEqual({ kind: "identical", sizesDiffer: false });
});

test("compareImages() must name the first sector that differs, whatever is read first", async () => {
  const a = randomDisk(2, 20 * MiB);
  const b = a.slice();
  const places = [3 * MiB + 700, 3 * MiB + 9000, 11 * MiB, 19 * MiB];
  for (const at of places) b[at] = (b[at] as number) ^ 1;
  const files = filesWith(a, b);
  files.onRead = (_name, offset) =>
    new Promise((resolve) => setTimeout(resolve, offset < 4 * MiB ? 15 : 0));
  expect(await compare(files)).toEqual({
    kind: "content-mismatch",
    offset: 3 * MiB + 512,
    sizesDiffer: false,
  });
});

test("compareImages() must find a byte that is not zero against a hole", async () => {
  const files = filesWith(new Uint8Array(0), new Uint8Array(0));
  files.put("a", new Uint8Array(0), 4 * MiB);
  const b = new Uint8Array(4 * MiB);
  b[2 * MiB + 1000] = 1;
  files.put("b", b);
  const offset = 2 * MiB + 512;
  expect(await compare(files)).toMatchObject({ kind: "content-mismatch", offset });
});

test("compareImages() must let a tail of zeroes pass, and no other", async () => {
  const a = randomDisk(3, MiB);
  const longer = new Uint8Array(3 * MiB);
  longer.set(a);
  const files = filesWith(a, longer);
  expect(await compare(files)).toEqual({ kind: "identical", sizesDiffer: true });
  expect(await compare(files, { strict: true })).toEqual({ kind: "size-mismatch" });
  longer[2 * MiB] = 1;
  files.put("b", longer);
  const found = { kind: "content-mismatch", offset: 2 * MiB, sizesDiffer: true };
  expect(await compare(files)).toEqual(found);
});

test("compareImages() strictly must also compare what is allocated", async () => {
  const files = filesWith(new Uint8Array(MiB), new Uint8Array(0));
  files.put("b", new Uint8Array(0), MiB);
  files.stores.get("a")?.write(4 * 65536, new Uint8Array(512));
  const result = await compare(files, { strict: true });
  expect(result.kind).toBe("allocation-mismatch");
});

test("compareImages() must tell a difference in front of an error, and the error otherwise", async () => {
  const a = new Uint8Array(8 * MiB).fill(1);
  const b = a.slice();
  const files = filesWith(a, b);
  files.onRead = (_name, offset, length) => {
    if (offset <= 6 * MiB && offset + length > 6 * MiB) throw new BlockError("EIO", "bad sector");
  };
  await expect(compare(files)).rejects.toMatchObject({ code: "EIO" });
  b[MiB] = 2;
  files.put("b", b);
  expect(await compare(files)).toMatchObject({ kind: "content-mismatch", offset: MiB });
});

test("compareImages() must stop at an abort", async () => {
  const files = filesWith(new Uint8Array(MiB).fill(1), new Uint8Array(MiB).fill(1));
  await expect(compare(files, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "ECANCELED",
  });
});
