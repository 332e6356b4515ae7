import { chmodSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IoVector, MiB, TiB } from "@blocklayer/bytes";
import {
  ALL_PERMISSIONS,
  type DriverDefinition,
  type OpenContext,
  parseOptions,
} from "@blocklayer/block-api";
import { describe, expect, test } from "vitest";
import { alignedZeroes } from "../src/aligned-memory.js";
import { fileDriver, hostDeviceDriver, loadNative, openFile } from "../src/index.js";
import { failureOf, noNative, run, scratchDirectory } from "./support.js";

const directory = scratchDirectory();
const native = (await loadNative()).native;
let files = 0;

function fresh(content?: Uint8Array | number): string {
  const filename = join(directory, `disk-${files++}.img`);
  writeFileSync(filename, content instanceof Uint8Array ? content : "");
  if (typeof content === "number") truncateSync(filename, content);
  return filename;
}

function patterned(lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => ((i * 7 + (i >> 8)) % 255) | 1);
}

const layers = [
  { layer: "with native calls", load: loadNative, isNative: native !== undefined },
  { layer: "without", load: noNative, isNative: false },
];

describe.each(layers)("FileDriver $layer", ({ load, isNative }) => {
  test("readv() must give zeroes past the end, and writev() must make the file longer", async () => {
    const filename = fresh(Uint8Array.of(1, 2, 3));
    await using disk = await openFile(filename, { loadNative: load });
    const target = IoVector.from([new Uint8Array(2).fill(9), new Uint8Array(3).fill(9)]);
    await disk.readv(1, target);
    expect([...target.toBytes()]).toEqual([2, 3, 0, 0, 0]);
    await disk.writev(6, IoVector.from([Uint8Array.of(4), Uint8Array.of(5, 6)]));
    expect(disk.lengthBytes).toBe(9);
    expect([...readFileSync(filename)]).toEqual([1, 2, 3, 0, 0, 0, 4, 5, 6]);
  });

  test("buffers in shared memory must be read into and written from", async () => {
    await using disk = await openFile(fresh(8192), { loadNative: load });
    const shared = new Uint8Array(new SharedArrayBuffer(8192));
    shared.set(patterned(8192));
    await disk.writev(0, IoVector.of(shared));
    await disk.writev(8192, IoVector.from([shared.subarray(0, 100), shared.subarray(100)]));
    const target = new Uint8Array(new SharedArrayBuffer(16384));
    await disk.readv(0, IoVector.from([target.subarray(0, 5000), target.subarray(5000)]));
    expect(Buffer.compare(target.subarray(0, 8192), shared)).toBe(0);
    expect(Buffer.compare(target.subarray(8192), shared)).toBe(0);
  });

  test("a vector of more parts than the kernel takes must be moved whole", async () => {
    await using disk = await openFile(fresh(), { loadNative: load });
    const content = patterned(3000);
    await disk.writev(0, IoVector.from(Array.from(content, (byte) => Uint8Array.of(byte))));
    const parts = Array.from({ length: 3000 }, () => new Uint8Array(1));
    await disk.readv(0, IoVector.from(parts));
    expect(Buffer.compare(Buffer.concat(parts), content)).toBe(0);
  });

  test.each([
    { mayUnmap: true, name: "mayUnmap" },
    { mayUnmap: false, name: "no mayUnmap" },
  ])("writeZeroes() with $name must zero exactly its range", async ({ mayUnmap }) => {
    const content = patterned(3 * MiB);
    const filename = fresh(content);
    await using disk = await openFile(filename, { loadNative: load });
    await disk.writeZeroes(5000, 2 * MiB, { mayUnmap });
    const expected = Uint8Array.from(content);
    expected.fill(0, 5000, 5000 + 2 * MiB);
    expect(Buffer.compare(readFileSync(filename), expected)).toBe(0);
    expect(disk.lengthBytes).toBe(3 * MiB);
  });

  test.each([
    { mayUnmap: true, name: "mayUnmap" },
    { mayUnmap: false, name: "no mayUnmap" },
  ])("writeZeroes() with $name across the end must make the file longer", async ({ mayUnmap }) => {
    const filename = fresh(patterned(10000));
    await using disk = await openFile(filename, { loadNative: load });
    await disk.writeZeroes(9000, 3000, { mayUnmap });
    expect(disk.lengthBytes).toBe(12000);
    expect(Buffer.compare(readFileSync(filename).subarray(9000), new Uint8Array(3000))).toBe(0);
    await disk.writeZeroes(20000, 5, { mayUnmap, noFallback: true });
    expect(statSync(filename).size).toBe(20005);
  });

  test("writeZeroes() beside a write further on must not cut that off", async () => {
    const filename = fresh(100);
    await using disk = await openFile(filename, { loadNative: load });
    for (let turn = 0; turn < 20; turn++) {
      const start = disk.lengthBytes;
      await Promise.all([
        disk.writeZeroes(start, 500, { mayUnmap: turn % 2 === 0 }),
        disk.writev(start + 500, IoVector.of(new Uint8Array(100).fill(turn + 1))),
      ]);
      expect(statSync(filename).size).toBe(start + 600);
      expect(readFileSync(filename).subarray(start + 500)).toEqual(
        Buffer.alloc(100).fill(turn + 1),
      );
    }
  });

  test("discard() must leave old bytes or zeroes, the length, and all others", async () => {
    const content = patterned(MiB);
    const filename = fresh(content);
    await using disk = await openFile(filename, { loadNative: load });
    await disk.discard(65536, 2 * MiB);
    const after = readFileSync(filename);
    expect(after.length).toBe(MiB);
    expect(Buffer.compare(after.subarray(0, 65536), content.subarray(0, 65536))).toBe(0);
    const rest = Uint8Array.from(after.subarray(65536));
    const isOld = Buffer.compare(rest, content.subarray(65536)) === 0;
    expect(isOld).toBe(!disk.capabilities.discard);
    expect(isOld || rest.every((byte) => byte === 0)).toBe(true);
  });

  test("blockStatus() must call nothing a hole that holds data", async () => {
    const filename = fresh(8 * MiB);
    await using disk = await openFile(filename, { loadNative: load });
    const holes = await disk.blockStatus(0, 8 * MiB);
    expect(holes).toMatchObject({ lengthBytes: 8 * MiB, allocated: true, hostOffset: 0 });
    await disk.writev(4 * MiB, IoVector.of(patterned(4096)));
    const status = await disk.blockStatus(4 * MiB, 4096);
    expect(status).toMatchObject({ data: true, zero: false, lengthBytes: 4096 });
    const past = await disk.blockStatus(9 * MiB, 512);
    expect(past).toMatchObject({ data: false, zero: true, lengthBytes: 512 });
    const quick = await disk.blockStatus(0, 8 * MiB, { wantZero: false });
    expect(quick).toMatchObject({ data: true, lengthBytes: 8 * MiB });
  });

  test.runIf(process.platform === "linux")(
    "blockStatus() of a file without a block must be one hole",
    async () => {
      await using disk = await openFile(fresh(TiB), { loadNative: load });
      expect(await disk.blockStatus(0, TiB)).toMatchObject({ zero: true, lengthBytes: TiB });
    },
  );

  test.runIf(isNative)("blockStatus() must see at once what was written into a hole", async () => {
    await using disk = await openFile(fresh(MiB), { loadNative: load });
    expect(await disk.blockStatus(0, MiB)).toMatchObject({ zero: true });
    await disk.writev(65536, IoVector.of(patterned(65536)));
    expect(await disk.blockStatus(0, MiB)).toMatchObject({ zero: true, lengthBytes: 65536 });
    expect(await disk.blockStatus(65536, MiB)).toMatchObject({ data: true, lengthBytes: 65536 });
    await disk.writeZeroes(65536, 65536, { mayUnmap: true });
    expect(await disk.blockStatus(0, MiB)).toMatchObject({ zero: true, lengthBytes: MiB });
  });

  test("truncate() must set the length, and preallocation must set space aside", async () => {
    const filename = fresh();
    await using disk = await openFile(filename, { loadNative: load });
    await disk.truncate(MiB);
    expect(statSync(filename).size).toBe(MiB);
    expect(statSync(filename).blocks * 512).toBeLessThan(65536);
    await disk.truncate(2 * MiB, { preallocation: "full" });
    expect(statSync(filename).size).toBe(2 * MiB);
    expect(await disk.allocatedBytes()).toBe(statSync(filename).blocks * 512);
    expect(statSync(filename).blocks * 512).toBeGreaterThanOrEqual(MiB);
    await disk.truncate(1000);
    expect(disk.lengthBytes).toBe(1000);
    expect(statSync(filename).size).toBe(1000);
  });

  test("truncate() must refuse what it cannot do, and leave the length", async () => {
    const filename = fresh(1000);
    await using disk = await openFile(filename, { loadNative: load });
    expect((await failureOf(() => disk.truncate(10, { preallocation: "full" }))).code).toBe(
      "ENOTSUP",
    );
    expect((await failureOf(() => disk.truncate(2000, { preallocation: "metadata" }))).code).toBe(
      "ENOTSUP",
    );
    expect(statSync(filename).size).toBe(1000);
  });

  test.runIf(isNative)("truncate() with falloc must set space aside", async () => {
    const filename = fresh();
    await using disk = await openFile(filename, { loadNative: load });
    await disk.truncate(MiB, { preallocation: "falloc" });
    expect(statSync(filename).blocks * 512).toBeGreaterThanOrEqual(MiB);
  });

  test.runIf(!isNative)("truncate() with falloc must say what is missing", async () => {
    const filename = fresh();
    await using disk = await openFile(filename, { loadNative: load });
    const failure = await failureOf(() => disk.truncate(MiB, { preallocation: "falloc" }));
    expect(failure.code).toBe("ENOTSUP");
    expect(failure.message).toContain("koffi");
    expect(statSync(filename).size).toBe(0);
  });

  test("an aborted request must reject with ECANCELED, and only after the kernel is done", async () => {
    await using disk = await openFile(fresh(patterned(70_000)), { loadNative: load });
    // Too long for an answer out of the page cache, which would come before the abort.
    const target = IoVector.allocate(70_000);
    const early = await failureOf(() => disk.readv(0, target, { signal: AbortSignal.abort() }));
    expect(early.code).toBe("ECANCELED");
    const controller = new AbortController();
    const under = failureOf(() => disk.readv(0, target, { signal: controller.signal }));
    controller.abort(new Error("enough"));
    expect(await under).toMatchObject({ code: "ECANCELED", op: "read" });
    expect(target.parts[0]?.[0]).toBe(1);
    await disk.readv(0, target, { signal: new AbortController().signal });
  });

  test("a read-only file must refuse every change", async () => {
    const filename = fresh(patterned(100));
    await using disk = await openFile(filename, { readOnly: true, loadNative: load });
    expect(disk.capabilities).toMatchObject({ write: false, truncate: false, discard: false });
    expect((await failureOf(() => disk.writev(0, IoVector.allocate(1)))).code).toBe("EACCES");
    expect((await failureOf(() => disk.truncate(1))).code).toBe("EACCES");
    expect((await failureOf(() => disk.writeZeroes(0, 1))).code).toBe("EACCES");
    expect(Buffer.compare(readFileSync(filename), patterned(100))).toBe(0);
  });

  test("reopen() must change between read-only and not, and refuse a file that was replaced", async () => {
    const filename = fresh(patterned(100));
    await using disk = await openFile(filename, { readOnly: true, loadNative: load });
    await disk.reopen({ readOnly: false, options: {} });
    await disk.writev(0, IoVector.of(Uint8Array.of(77)));
    await disk.reopen({ readOnly: true, options: {} });
    expect((await failureOf(() => disk.writev(0, IoVector.allocate(1)))).code).toBe("EACCES");
    const target = IoVector.allocate(1);
    await disk.readv(0, target);
    expect([...target.toBytes()]).toEqual([77]);
    const other = fresh(patterned(5));
    run("mv", other, filename);
    expect((await failureOf(() => disk.reopen({ readOnly: false, options: {} }))).code).toBe(
      "EBUSY",
    );
    await disk.readv(0, target);
    expect([...target.toBytes()]).toEqual([77]);
  });

  test("close() must end every use, and be harmless twice", async () => {
    const disk = await openFile(fresh(100), { loadNative: load });
    await disk.close();
    await disk.close();
    expect((await failureOf(() => disk.readv(0, IoVector.allocate(1)))).code).toBe("ECLOSED");
    expect((await failureOf(() => disk.truncate(1))).code).toBe("ECLOSED");
  });

  test("statistics() must count requests and bytes", async () => {
    await using disk = await openFile(fresh(100), { loadNative: load });
    await disk.readv(0, IoVector.allocate(10));
    await disk.writev(0, IoVector.allocate(20));
    await disk.flushToDisk();
    expect(disk.statistics()).toMatchObject({
      reads: 1,
      readBytes: 10,
      writes: 1,
      writtenBytes: 20,
      flushes: 1,
    });
  });

  test("noFlush must make flushes do nothing", async () => {
    await using disk = await openFile(fresh(100), { noFlush: true, loadNative: load });
    expect(disk.flushToDisk()).toBeUndefined();
    expect(disk.statistics()).toMatchObject({ flushes: 0 });
  });
});

describe("openFile()", () => {
  test("must say which file is not there", async () => {
    const failure = await failureOf(() => openFile(join(directory, "none")));
    expect(failure.code).toBe("ENOENT");
    expect(failure.message).toBe(
      `Could not open '${join(directory, "none")}': No such file or directory`,
    );
  });

  test("must refuse directories, pipes and character devices without opening them", async () => {
    mkdirSync(join(directory, "folder"));
    const folder = await failureOf(() => openFile(join(directory, "folder")));
    expect(folder.code).toBe("EISDIR");
    expect(folder.message).toContain("a directory");
    expect(run("mkfifo", join(directory, "pipe")).status).toBe(0);
    const pipe = await failureOf(() => openFile(join(directory, "pipe"), { readOnly: true }));
    expect(pipe.message).toContain("a pipe");
    const device = await failureOf(() => openFile("/dev/null", { readOnly: true }));
    expect(device.message).toContain("a character device");
  });

  test("must refuse force-share for a writer", async () => {
    expect((await failureOf(() => openFile(fresh(10), { forceShare: true }))).code).toBe("EINVAL");
  });

  test.skipIf(process.getuid?.() === 0)(
    "must fall back to read-only with autoReadOnly, and not without",
    async () => {
      const filename = fresh(10);
      chmodSync(filename, 0o444);
      expect((await failureOf(() => openFile(filename))).code).toBe("EACCES");
      await using disk = await openFile(filename, { autoReadOnly: true });
      expect(disk.capabilities.write).toBe(false);
    },
  );
});

async function tryDirect(): Promise<boolean> {
  try {
    await (await openFile(fresh(4096), { direct: true })).close();
    return true;
  } catch {
    return false;
  }
}

describe.runIf(await tryDirect())("FileDriver past the page cache", () => {
  const aligned = (lengthBytes: number): Uint8Array => {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(lengthBytes / 65536) || 1 });
    return new Uint8Array(memory.buffer, 0, lengthBytes);
  };

  test("limits must ask for what the system asks for", async () => {
    await using disk = await openFile(fresh(patterned(65536)), { direct: true });
    const { requestAlignment, memoryAlignment, maxTransfer } = disk.limits;
    expect([512, 1024, 2048, 4096]).toContain(requestAlignment);
    expect([512, 1024, 2048, 4096]).toContain(memoryAlignment);
    expect(maxTransfer % requestAlignment).toBe(0);
    const target = aligned(65536);
    await disk.readv(
      requestAlignment,
      IoVector.of(target.subarray(memoryAlignment, memoryAlignment + requestAlignment)),
    );
    expect(target[memoryAlignment]).toBe(patterned(65536)[requestAlignment]);
  });

  test("readv() of an unaligned tail must give zeroes past the end", async () => {
    await using disk = await openFile(fresh(patterned(10001)), { direct: true });
    const target = aligned(16384).fill(9);
    await disk.readv(0, IoVector.of(target));
    expect(Buffer.compare(target.subarray(0, 10001), patterned(10001))).toBe(0);
    expect(target.subarray(10001).every((byte) => byte === 0)).toBe(true);
    await disk.readv(8192, IoVector.from([target.subarray(0, 4096), target.subarray(4096, 8192)]));
    expect(target[10001 - 8192 - 1]).toBe(patterned(10001)[10000]);
    expect(target.subarray(10001 - 8192, 8192).every((byte) => byte === 0)).toBe(true);
  });

  test("writev() and writeZeroes() at the end must make the file longer by whole blocks", async () => {
    const filename = fresh(patterned(1000));
    await using disk = await openFile(filename, { direct: true });
    await disk.writeZeroes(0, 4096, { mayUnmap: true });
    expect(statSync(filename).size).toBe(4096);
    await disk.writev(4096, IoVector.of(aligned(4096).fill(3)));
    expect(disk.lengthBytes).toBe(8192);
    expect(readFileSync(filename)[8191]).toBe(3);
  });

  test("writeZeroes() without native calls must write aligned zeroes over an unaligned tail", async () => {
    const filename = fresh(patterned(5000));
    await using disk = await openFile(filename, { direct: true, loadNative: noNative });
    await disk.writeZeroes(4096, 8192);
    expect(statSync(filename).size).toBe(12288);
    expect(
      readFileSync(filename)
        .subarray(4096)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test("truncate() with preallocation=full must take unaligned lengths, old and new", async () => {
    const filename = fresh(patterned(1000));
    await using disk = await openFile(filename, { direct: true });
    await disk.truncate(100_000, { preallocation: "full" });
    expect([disk.lengthBytes, statSync(filename).size]).toEqual([100_000, 100_000]);
    const bytes = readFileSync(filename);
    expect(Buffer.compare(bytes.subarray(0, 1000), patterned(1000))).toBe(0);
    expect(bytes.subarray(1000).every((byte) => byte === 0)).toBe(true);
    expect(await disk.allocatedBytes()).toBeGreaterThanOrEqual(100_000);
  });

  test("blockStatus() must give whole units, at an unaligned end too", async () => {
    const filename = fresh(patterned(10001));
    await using disk = await openFile(filename, { direct: true });
    const unit = disk.limits.requestAlignment;
    const wanted = Math.ceil(10001 / unit) * unit;
    const status = await disk.blockStatus(0, wanted);
    expect(status).toMatchObject({ data: true, lengthBytes: wanted });
    truncateSync(filename, 20001);
    await disk.reopen({ readOnly: true, options: {} });
    const hole = await disk.blockStatus(16384, Math.ceil(20001 / unit) * unit - 16384);
    expect(hole.lengthBytes % unit).toBe(0);
    expect(hole.zero).toBe(native !== undefined);
  });

  test("reopen() must go into the page cache and back", async () => {
    await using disk = await openFile(fresh(patterned(8192)), { direct: true });
    await disk.reopen({ readOnly: false, options: { "cache.direct": false } });
    expect(disk.limits.requestAlignment).toBe(1);
    await disk.writev(3, IoVector.of(Uint8Array.of(200)));
    await disk.reopen({ readOnly: false, options: { "cache.direct": true } });
    expect(disk.limits.requestAlignment).toBeGreaterThan(1);
    const target = aligned(4096);
    await disk.readv(0, IoVector.of(target));
    expect(target[3]).toBe(200);
  });
});

describe("fileDriver", () => {
  const contextOf = (
    driver: DriverDefinition,
    given: Record<string, unknown>,
    readOnly: boolean,
  ): OpenContext => ({
    nodeName: "disk0",
    readOnly,
    options: parseOptions(driver.openOptions, given, driver.name),
    permissions: { held: ALL_PERMISSIONS, shared: 0 },
    children: {},
    openBacking: () => undefined,
  });

  test("open() must take QEMU's option names", async () => {
    const filename = fresh(100);
    const given = { filename, "cache.no-flush": "on", locking: "off", "cache.direct": "off" };
    const disk = await fileDriver.open(contextOf(fileDriver, given, false));
    expect(disk.driverName).toBe("file");
    expect(disk.flushToDisk()).toBeUndefined();
    expect(disk.statistics?.()).toMatchObject({ locks: "unlocked", direct: false });
    await disk.close();
  });

  test("open() must ask for a file name", async () => {
    const failure = await failureOf(() => fileDriver.open(contextOf(fileDriver, {}, true)));
    expect(failure).toMatchObject({ code: "EINVAL", message: /filename/ });
  });

  test("parseFilename() must take off its prefix, once", () => {
    expect(fileDriver.parseFilename?.("file:file:a")).toEqual({ filename: "file:a" });
    expect(fileDriver.parseFilename?.("a")).toEqual({ filename: "a" });
  });

  test("host_device must refuse a regular file", async () => {
    const filename = fresh(10);
    const failure = await failureOf(() =>
      hostDeviceDriver.open(contextOf(hostDeviceDriver, { filename }, true)),
    );
    expect(failure.message).toContain("a block device");
  });

  const loop = process.env["BLOCKLAYER_TEST_DEVICE"];
  test.runIf(loop !== undefined)(
    "host_device must read, write and zero the device in BLOCKLAYER_TEST_DEVICE",
    async () => {
      const filename = loop as string;
      for (const direct of ["off", "on"]) {
        const given = { filename, "cache.direct": direct };
        const disk = await hostDeviceDriver.open(contextOf(hostDeviceDriver, given, false));
        expect(disk.driverName).toBe("host_device");
        expect(disk.lengthBytes).toBeGreaterThan(MiB);
        expect(disk.capabilities.truncate).toBe(false);
        const memory = new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer);
        memory.fill(5);
        await disk.writev(disk.lengthBytes - 65536, IoVector.of(memory));
        await disk.writeZeroes(disk.lengthBytes - 65536, 32768, { mayUnmap: true });
        await disk.discard(disk.lengthBytes - 4096, 4096);
        await disk.readv(disk.lengthBytes - 65536, IoVector.of(memory));
        expect(memory.subarray(0, 32768)).toEqual(alignedZeroes(32768));
        expect(memory[32768]).toBe(5);
        expect((await failureOf(() => disk.truncate(disk.lengthBytes + 512))).code).toBe("ENOTSUP");
        await disk.close();
      }
    },
  );
});
