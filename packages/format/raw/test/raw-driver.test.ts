import { IoVector } from "@blocklayer/bytes";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { type DriverSource, driverSuite, pattern, through } from "@blocklayer/conformance";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { openRaw, type RawOptions } from "../src/index.js";

const memory: DriverSource = {
  name: "memory",
  open: (lengthBytes) => openMemory({ lengthBytes }),
  growsPastEnd: true,
  synchronous: true,
};

driverSuite(through("raw", memory, (driver) => openRaw(directChild(driver))));
driverSuite({
  ...through("probed raw", memory, (driver) => openRaw(directChild(driver), { probed: true })),
});
driverSuite({
  name: "raw, a window of fixed size",
  capabilities: { write: true, truncate: false },
  synchronous: true,
  open(lengthBytes) {
    const file = openMemory({ bytes: pattern(1, lengthBytes + 9000) });
    file.writeZeroes(3000, lengthBytes);
    return openRaw(directChild(file), { offset: 3000, size: lengthBytes });
  },
});

const SIZE = 8192;

function opened(options: RawOptions = {}): {
  file: MemoryDriver;
  child: BlockChild;
  disk: ReturnType<typeof openRaw>;
} {
  const file = openMemory({ bytes: pattern(2, SIZE) });
  const child = directChild(file);
  return { file, child, disk: openRaw(child, options) };
}

test("requests must return the child's own promise", () => {
  const { child } = opened();
  const promise = Promise.resolve();
  const disk = openRaw({
    ...child,
    limits: child.limits,
    capabilities: child.capabilities,
    readv: () => promise,
    writev: () => promise,
    writeZeroes: () => promise,
    discard: () => promise,
    truncate: () => promise,
  });
  const vector = IoVector.allocate(512);
  expect(disk.readv(0, vector)).toBe(promise);
  expect(disk.writev(0, vector)).toBe(promise);
  expect(disk.writeZeroes(0, 512)).toBe(promise);
  expect(disk.discard(0, 512)).toBe(promise);
  expect(disk.truncate(512)).toBe(promise);
});

test("limits must be the child's", () => {
  const limits = { requestAlignment: 512, memoryAlignment: 4096, maxTransfer: 65536 };
  const disk = openRaw(directChild(openMemory({ lengthBytes: SIZE, limits })));
  expect(disk.limits).toMatchObject(limits);
});

test("a window must show its part of the file, and change nothing around it", async () => {
  const { file, disk } = opened({ offset: 1000, size: 1024 });
  expect(disk.lengthBytes).toBe(1024);
  const target = new Uint8Array(1024);
  await disk.readv(0, IoVector.of(target));
  expect(target).toEqual(pattern(2, SIZE).subarray(1000, 2024));
  await disk.writev(0, IoVector.of(new Uint8Array(1024).fill(7)));
  const expected = pattern(2, SIZE);
  expected.fill(7, 1000, 2024);
  expect(file.bytes).toEqual(expected);
});

test("an offset without a size must reach to the end of the file, wherever that moves", async () => {
  const { file, disk } = opened({ offset: 1000 });
  expect(disk.lengthBytes).toBe(SIZE - 1000);
  await disk.truncate(10_000);
  expect(file.lengthBytes).toBe(11_000);
  expect(disk.lengthBytes).toBe(10_000);
});

test.each([
  [
    { offset: SIZE + 1 },
    "offset (8193) cannot be greater than the size of the containing file (8192)",
  ],
  [{ offset: 512, size: 100 }, "size (100) is not a multiple of 512"],
  [{ offset: 512, size: SIZE }, "the sum of offset (512) and size (8192) has to be smaller"],
  [{ size: Number.MAX_SAFE_INTEGER - 511 }, "the sum of offset (0) and size"],
])("the window %o must be refused", (options, message) => {
  expect(() => opened(options)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(() => opened(options)).toThrow(message);
});

test("an offset that breaks the file's alignment must be refused", () => {
  const file = openMemory({ lengthBytes: SIZE, limits: { requestAlignment: 512 } });
  expect(() => openRaw(directChild(file), { offset: 100 })).toThrow("alignment 512");
  expect(openRaw(directChild(file), { offset: 1024 }).lengthBytes).toBe(SIZE - 1024);
});

test("a disk of fixed size must refuse truncate() and requests past its end", () => {
  const { disk, file } = opened({ size: 1024 });
  expect(disk.capabilities.truncate).toBe(false);
  expect(() => disk.truncate(512)).toThrow(expect.objectContaining({ code: "ENOTSUP" }));
  expect(() => disk.writev(1024, IoVector.allocate(512))).toThrow("inside the window");
  expect(file.bytes).toEqual(pattern(2, SIZE));
});

test("truncate() past 2^53 - 1 in the file must be refused", () => {
  const { disk } = opened({ offset: 1024 });
  expect(() => disk.truncate(Number.MAX_SAFE_INTEGER)).toThrow("too large");
});

test("blockStatus() must be the file's, at its place in the file, and ask on", async () => {
  const file = openMemory({ lengthBytes: 1024 * 1024 });
  await file.writev(65536, IoVector.of(pattern(1, 65536)));
  const disk = openRaw(directChild(file), { offset: 4096 });
  expect(await disk.blockStatus(0, 1_000_000)).toEqual({
    lengthBytes: 65536 - 4096,
    allocated: true,
    data: false,
    zero: true,
    compressed: false,
    hostOffset: 4096,
    recurse: true,
  });
  expect(await disk.blockStatus(65536, 1000)).toMatchObject({ data: true, hostOffset: 69632 });
});

test("capabilities must follow the child, and the disk's own mode", async () => {
  const { file, disk } = opened();
  expect(disk.capabilities.write).toBe(true);
  await disk.reopen({ readOnly: true, options: {} });
  expect(disk.capabilities).toMatchObject({ write: false, discard: false, truncate: false });
  expect(() => disk.writev(0, IoVector.allocate(512))).toThrow("read-only");
  await disk.reopen({ readOnly: false, options: {} });
  expect(disk.capabilities.write).toBe(true);
  file.reopen({ readOnly: true, options: {} });
  expect(disk.capabilities.write).toBe(false);
});

test("reopen() must move the window, or refuse and leave it", () => {
  const { disk } = opened({ offset: 512, size: 1024 });
  disk.reopen({ readOnly: false, options: { offset: 1024, size: 2048 } });
  expect(disk.lengthBytes).toBe(2048);
  const bad = { readOnly: true, options: { offset: SIZE } };
  expect(() => disk.reopen(bad)).toThrow("the sum of offset");
  expect(disk.lengthBytes).toBe(2048);
  expect(disk.capabilities.write).toBe(true);
});
