/** What resizeImage refuses, and what it asks of the drivers. */
import { BlockError } from "@blocklayer/bytes";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { createImage, openImage, resizeImage } from "../src/index.js";
import { Files } from "./support/files.js";

const KiB = 1024;

async function overlay(
  files: Files,
): Promise<{ drivers: Parameters<typeof openImage>[1]["drivers"] }> {
  const drivers = [files.driver, rawDriver, qcow2Driver];
  files.put("base.raw", new Uint8Array(256 * KiB).fill(9));
  await createImage({
    drivers,
    filename: "top.qcow2",
    format: "qcow2",
    sizeBytes: 64 * KiB,
    backing: { filename: "base.raw", format: "raw" },
  });
  return { drivers };
}

test("resizeImage() must show zeroes where a backing file is longer than the disk was", async () => {
  const options = await overlay(new Files());
  await using disk = await openImage("top.qcow2", { ...options, readOnly: false });
  await resizeImage(disk, { lengthBytes: 300 * KiB });
  const bytes = await disk.read(0, 300 * KiB);
  expect(bytes.subarray(0, 64 * KiB).every((byte) => byte === 9)).toBe(true);
  expect(bytes.subarray(64 * KiB).every((byte) => byte === 0)).toBe(true);
});

test("resizeImage() must let go of an end only when told to, and refuse what makes no sense", async () => {
  const options = await overlay(new Files());
  await using disk = await openImage("top.qcow2", { ...options, readOnly: false });
  const lengthBytes = 32 * KiB;
  await expect(resizeImage(disk, { lengthBytes })).rejects.toMatchObject({ code: "EINVAL" });
  await expect(resizeImage(disk, { lengthBytes: 0, shrink: true })).rejects.toThrow(
    "New image size must be positive",
  );
  await expect(
    resizeImage(disk, { lengthBytes, shrink: true, preallocation: "full" }),
  ).rejects.toThrow("Preallocation can only be used for growing images");
  expect(disk.lengthBytes).toBe(64 * KiB);
  await resizeImage(disk, { lengthBytes, shrink: true });
  expect(disk.lengthBytes).toBe(lengthBytes);
});

test("resizeImage() must end with everything flushed, or with the old length", async () => {
  const files = new Files();
  const options = await overlay(files);
  await using disk = await openImage("top.qcow2", { ...options, readOnly: false });
  files.onWrite = () => {
    throw new BlockError("EIO", "no more writes");
  };
  await expect(resizeImage(disk, { lengthBytes: 128 * KiB })).rejects.toThrow(/no more writes/);
  files.onWrite = undefined;
  await using again = await openImage("top.qcow2", options);
  expect(again.lengthBytes).toBe(64 * KiB);
  await disk.close().catch(() => undefined);
});
