import { hasCode, IoVector } from "@blocklayer/bytes";
import { ALL_PERMISSIONS, type OpenContext, parseOptions } from "@blocklayer/block-api";
import { describe, expect, test } from "vitest";
import { memoryDriver, openMemory } from "../src/index.js";

function contextOf(given: Record<string, unknown>, readOnly = false): OpenContext {
  return {
    nodeName: "m",
    readOnly,
    options: parseOptions(memoryDriver.openOptions, given, "memory"),
    permissions: { held: ALL_PERMISSIONS, shared: 0 },
    children: {},
    openBacking: () => undefined,
  };
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return hasCode(error, (error as { code: never }).code) ? error.code : String(error);
  }
  return "no error";
}

describe("MemoryDriver", () => {
  test("writev() must scatter its parts and readv() gather them again, without a promise", () => {
    const disk = openMemory();
    const source = IoVector.from([Uint8Array.of(1, 2), Uint8Array.of(3), Uint8Array.of(4, 5, 6)]);
    expect(disk.writev(65534, source)).toBeUndefined();
    expect(disk.lengthBytes).toBe(65540);
    const target = IoVector.from([new Uint8Array(1), new Uint8Array(7)]);
    expect(disk.readv(65533, target)).toBeUndefined();
    expect([...target.toBytes()]).toEqual([0, 1, 2, 3, 4, 5, 6, 0]);
  });

  test("readv() past the end must give zeroes over whatever the buffer held", () => {
    const target = new Uint8Array(4).fill(9);
    openMemory({ bytes: Uint8Array.of(5) }).readv(0, IoVector.of(target));
    expect([...target]).toEqual([5, 0, 0, 0]);
  });

  test("openMemory() must copy the bytes it is given", () => {
    const given = Uint8Array.of(1, 2, 3);
    const disk = openMemory({ bytes: given, lengthBytes: 5 });
    given[0] = 99;
    expect([...disk.bytes]).toEqual([1, 2, 3, 0, 0]);
  });

  test("blockStatus() must tell holes from data", () => {
    const disk = openMemory({ lengthBytes: 1 << 20 });
    disk.writev(131072, IoVector.of(Uint8Array.of(1)));
    expect(disk.blockStatus(10, 1 << 19)).toMatchObject({
      lengthBytes: 131062,
      zero: true,
      data: false,
      allocated: true,
    });
    expect(disk.blockStatus(131072, 1 << 19)).toMatchObject({
      lengthBytes: 65536,
      zero: false,
      data: true,
      hostOffset: 131072,
    });
    disk.writeZeroes(131072, 65536);
    expect(disk.blockStatus(0, 1 << 20).lengthBytes).toBe(1 << 20);
  });

  test("a read-only store must refuse every change, and reopen() must allow it", () => {
    const disk = openMemory({ bytes: Uint8Array.of(1), readOnly: true });
    expect(disk.capabilities.write).toBe(false);
    expect(codeOf(() => disk.writev(0, IoVector.of(Uint8Array.of(2))))).toBe("EACCES");
    expect(codeOf(() => disk.truncate(0))).toBe("EACCES");
    expect([...disk.bytes]).toEqual([1]);
    disk.reopen({ readOnly: false, options: {} });
    disk.writev(0, IoVector.of(Uint8Array.of(2)));
    expect([...disk.bytes]).toEqual([2]);
  });

  test("a request must be refused when its signal is aborted, and after close()", () => {
    const disk = openMemory({ lengthBytes: 4 });
    const signal = AbortSignal.abort();
    const target = IoVector.allocate(4);
    expect(codeOf(() => disk.readv(0, target, { signal }))).toBe("ECANCELED");
    disk.close();
    expect(codeOf(() => disk.readv(0, target))).toBe("ECLOSED");
  });

  test("truncate() must refuse a preallocation that it cannot give", () => {
    expect(codeOf(() => openMemory().truncate(1, { preallocation: "full" }))).toBe("ENOTSUP");
  });

  test("statistics() must count", () => {
    const disk = openMemory();
    disk.writev(0, IoVector.allocate(1));
    disk.flushToDisk();
    expect(disk.allocatedBytes()).toBe(65536);
    expect(disk.statistics()).toEqual({ reads: 0, writes: 1, flushes: 1, storedBytes: 65536 });
  });

  test("bytes must refuse to copy a terabyte", () => {
    expect(codeOf(() => openMemory({ lengthBytes: 2 ** 40 }).bytes)).toBe("EFBIG");
  });
});

describe("memoryDriver", () => {
  test("open() must take its size and read-only state from the context", async () => {
    const disk = await memoryDriver.open(contextOf({ size: "64k" }, true));
    expect(disk.lengthBytes).toBe(65536);
    expect(disk.capabilities.write).toBe(false);
    expect((await memoryDriver.open(contextOf({}))).lengthBytes).toBe(0);
  });
});
