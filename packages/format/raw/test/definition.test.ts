import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ALL_PERMISSIONS, directChild, parseOptions } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { rawDriver } from "../src/index.js";

const create = (file: ReturnType<typeof openMemory>, given: Record<string, unknown>): unknown =>
  rawDriver.create?.({
    file: directChild(file),
    options: parseOptions(rawDriver.createOptions ?? {}, given, "raw"),
  });

test("probe() must take any bytes, with the lowest score above none", () => {
  expect(rawDriver.probe?.(new Uint8Array(0))).toBe(1);
  expect(rawDriver.probe?.(Uint8Array.of(0x51, 0x46, 0x49, 0xfb))).toBe(1);
});

test("its users' permissions must pass through to the file, as with QEMU (locks 100 101, read-only 100)", () => {
  expect(rawDriver.passThrough).toBe(true);
});

test("open() must take its options as a user writes them", async () => {
  const file = directChild(openMemory({ lengthBytes: 1024 * 1024 }));
  const disk = await rawDriver.open({
    nodeName: "disk",
    readOnly: true,
    options: parseOptions(rawDriver.openOptions, { offset: "64k", size: "128k" }, "raw"),
    permissions: { held: 1, shared: ALL_PERMISSIONS },
    children: { file },
    openBacking: () => undefined,
  });
  expect(disk.lengthBytes).toBe(131072);
  expect(disk.capabilities.write).toBe(false);
  expect(await disk.blockStatus(0, 512)).toMatchObject({ hostOffset: 65536 });
});

test("create() must give the file the length that qemu-img gives it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-raw-"));
  try {
    for (const size of ["0", "1", "1000", "512", "64k", "1.5M"]) {
      const path = join(folder, "image.raw");
      execFileSync("qemu-img", ["create", "-q", "-f", "raw", path, size]);
      const file = openMemory();
      await create(file, { size });
      expect([size, file.lengthBytes]).toEqual([size, statSync(path).size]);
      rmSync(path);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("create() must hand the preallocation to the file", () => {
  const file = openMemory();
  expect(() => create(file, { size: 512, preallocation: "full" })).toThrow(
    expect.objectContaining({ code: "ENOTSUP" }),
  );
  expect(() => create(file, { size: 512, preallocation: "metadata" })).toThrow("must be one of");
});

test("create() must need a size", () => {
  expect(() => create(openMemory(), {})).toThrow("'size' is required");
});

test("create() on a file of fixed length must do when that is long enough", () => {
  const child = directChild(openMemory({ lengthBytes: 4096 }));
  const fixed = {
    ...child,
    lengthBytes: 4096,
    limits: child.limits,
    capabilities: { ...child.capabilities, truncate: false },
  };
  expect(rawDriver.create?.({ file: fixed, options: { size: 4096 } })).toBeUndefined();
  expect(() => rawDriver.create?.({ file: fixed, options: { size: 4097 } })).toThrow(
    expect.objectContaining({ code: "ENOSPC" }),
  );
});
