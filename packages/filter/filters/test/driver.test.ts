/** The driver in a graph: options, file names, and what becomes of requests that a rule fails. */
import { BlockError, IoVector } from "@blocklayer/bytes";
import { BlockGraph, type NodeOptions } from "@blocklayer/block-graph";
import { memoryDriver } from "@blocklayer/memory";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { blkdebugDriver, createBlkdebugDriver } from "../src/index.js";
import { filled, qcow2Disk } from "./support/qcow2-disk.js";

const KiB = 1024;
const MEMORY = { driver: "memory", size: 64 * KiB };

async function opened(options: NodeOptions) {
  const graph = new BlockGraph({ drivers: [memoryDriver, rawDriver, blkdebugDriver] });
  return await graph.open({ driver: "blkdebug", ...options });
}

test("rules must be taken nested and dotted, in the order of their indices", async () => {
  const nested = { "inject-error": [{ event: "none", errno: 28, iotype: "read" }] };
  const dotted = {
    "inject-error.1.event": "none",
    "inject-error.1.errno": "12",
    "inject-error.0.event": "none",
    "inject-error.0.errno": "28",
    "inject-error.0.iotype": "read",
  };
  for (const rules of [nested, dotted]) {
    await using disk = await opened({ ...rules, file: MEMORY });
    await expect(disk.read(0, 512)).rejects.toMatchObject({ code: "ENOSPC", op: "read" });
  }
});

test.each([
  [{ "inject-error.x.event": "none" }, "is not 'inject-error.NUMBER.WORD'"],
  [{ "inject-error.0.event": "frob" }, "inject-error.0: event 'frob' is unknown"],
  [{ "set-state.0.event": "read_aio" }, "set-state.0: 'new_state' is missing"],
  [{ align: 3 }, "cannot meet constraints with align 3"],
  [{ config: "rules.conf" }, "nobody here can read the file"],
  [{ frob: 1 }, "option 'frob' is unknown"],
])("%j must be refused", async (options, message) => {
  await expect(opened({ ...options, file: MEMORY })).rejects.toThrow(message);
});

test("config must be read by the reader that was given, before the rules of options", async () => {
  const asked: string[] = [];
  const driver = createBlkdebugDriver({
    readConfig: (filename) => {
      asked.push(filename);
      return '[inject-error]\nevent = "none"\nerrno = "28"\niotype = "read"\n';
    },
  });
  const graph = new BlockGraph({ drivers: [memoryDriver, driver] });
  await using disk = await graph.open({
    driver: "blkdebug",
    config: "rules.conf",
    "inject-error": [{ event: "none", errno: 12, iotype: "read" }],
    file: MEMORY,
  });
  expect(asked).toEqual(["rules.conf"]);
  await expect(disk.read(0, 512)).rejects.toMatchObject({ code: "ENOSPC" });
});

test.each([
  ["blkdebug:rules.conf:disk.img", { config: "rules.conf", file: { filename: "disk.img" } }],
  ["blkdebug::disk.img", { file: { filename: "disk.img" } }],
  ["blkdebug::nbd://host:1/x", { file: { filename: "nbd://host:1/x" } }],
])("parseFilename(%j) must find config and image", (filename, options) => {
  expect(blkdebugDriver.parseFilename?.(filename)).toEqual(options);
});

test.each(["blkdebug:disk.img", "blkdebug:", "blkdebug::", "blkdebug:rules.conf:"])(
  "parseFilename(%j) must be refused",
  (filename) => {
    expect(() => blkdebugDriver.parseFilename?.(filename)).toThrow(BlockError);
  },
);

test("a request that a rule fails must not reach the child", async () => {
  const rule = { event: "none", iotype: "write", once: true };
  await using disk = await opened({ "inject-error": [rule], file: MEMORY });
  await expect(disk.write(0, filled(512, 7))).rejects.toMatchObject({
    code: "EIO",
    offset: 0,
    length: 512,
  });
  expect(await disk.read(0, 512)).toEqual(filled(512, 0));
  await disk.write(0, filled(512, 7));
  expect(await disk.read(0, 512)).toEqual(filled(512, 7));
});

test("`immediately` must throw, and all else reject", async () => {
  const vector = IoVector.of(new Uint8Array(512));
  for (const immediately of [true, false]) {
    const rule = { event: "none", iotype: "read", immediately };
    await using disk = await opened({ "inject-error": [rule], file: MEMORY });
    const attempt = (): unknown => disk.root.driver.readv(0, vector);
    if (immediately) expect(attempt).toThrow("injected");
    else await expect(attempt()).rejects.toThrow("injected");
  }
});

test.each(["write_aio", "cluster_alloc", "refblock_load", "l2_alloc_write"])(
  "a write through qcow2 that fails once at %s must leave a disk that goes on",
  async (event) => {
    await using work = await qcow2Disk(1024 * KiB, {
      debug: { "inject-error": [{ event, once: true, iotype: "write", errno: 28 }] },
    });
    const { disk } = work;
    const written = disk.write(0, filled(64 * KiB, 1)).then(async () => await disk.flush());
    await expect(written).rejects.toMatchObject({ code: "ENOSPC" });
    await disk.write(0, filled(64 * KiB, 2));
    expect(await work.patternAt(0, 64 * KiB)).toBe(2);
    expect((await work.faults())[0]).toBe(0);
  },
);

test("align must make qcow2 pad, max-transfer must make it split", async () => {
  await using work = await qcow2Disk(1024 * KiB, {
    create: { cluster_size: 65536 },
    debug: { align: 4096, "max-transfer": 8192 },
  });
  const { disk, graph } = work;
  const counted = (name: string): number => Number(graph.node("store")?.statistics()[name]);
  const before = [counted("writes"), counted("writtenBytes"), counted("reads")] as const;
  await disk.write(0, filled(200 * KiB, 1));
  await disk.write(1000, filled(9000, 2));
  await disk.write(512 * KiB, filled(64 * KiB, 3), { compressed: true });
  await disk.flush();
  expect(await work.patternAt(1000, 9000)).toBe(2);
  expect(await work.patternAt(10_000, 190 * KiB)).toBe(1);
  expect(await work.patternAt(512 * KiB, 64 * KiB)).toBe(3);
  expect(await work.faults()).toEqual([0, 0]);
  const writes = counted("writes") - before[0];
  expect(writes).toBeGreaterThan(25);
  expect((counted("writtenBytes") - before[1]) / writes).toBeLessThanOrEqual(8192);
  expect(counted("reads")).toBeGreaterThan(before[2]);
});
