import { beforeEach, describe, expect, it } from "vitest";
import { IoVector } from "@blocklayer/bytes";
import { memoryDriver, nullDriver } from "@blocklayer/memory";
import type { DriverDefinition } from "@blocklayer/block-api";
import {
  type BlockBackend,
  BlockGraph,
  type Extent,
  type GraphOpenOptions,
  type NodeOptions,
} from "../src/index.js";
import { gate, settle, TestWorld } from "./test-store.js";
import { TOY_CLUSTER, toyDriver, toyImage } from "./toy-format.js";

const KIB = 1024;

let world: TestWorld;
let graph: BlockGraph;

beforeEach(() => {
  world = new TestWorld();
  graph = new BlockGraph({
    drivers: [world.driver, toyDriver, memoryDriver, nullDriver],
    openGate: ({ filename }) => toy(filename),
  });
});

function toy(filename: string, more: NodeOptions = {}): NodeOptions {
  return { driver: "toy", file: { driver: "file", filename }, ...more };
}

/** `top` over `base`, which is shorter. */
async function openChain(): Promise<BlockBackend> {
  world.file("base", toyImage({ lengthBytes: 6 * TOY_CLUSTER }));
  const base = await graph.open(toy("base"));
  await base.write(0, new Uint8Array(3 * TOY_CLUSTER).fill(1));
  await base.close();
  const backing = { filename: "base", format: "toy" };
  world.file("top", toyImage({ lengthBytes: 8 * TOY_CLUSTER, backing }));
  const top = await graph.open(toy("top"));
  await top.write(TOY_CLUSTER, new Uint8Array(TOY_CLUSTER).fill(2));
  return top;
}

async function collect(extents: AsyncIterable<Extent>): Promise<readonly string[]> {
  const lines: string[] = [];
  for await (const { offset, lengthBytes, depth, ...flags } of extents) {
    const kind = flags.data ? (flags.zero ? "hole" : "data") : flags.zero ? "zero" : "none";
    const at = flags.hostOffset === undefined ? "" : ` @${flags.hostOffset / TOY_CLUSTER}`;
    lines.push(`${offset / TOY_CLUSTER}+${lengthBytes / TOY_CLUSTER} ${kind} ${depth}${at}`);
  }
  return lines;
}

describe("BlockBackend", () => {
  it("read() must refuse more than memory can hold with ENOMEM", async () => {
    const disk = await graph.open({ driver: "memory", size: 2 ** 52 });
    await expect(disk.read(0, 2 ** 52)).rejects.toMatchObject({ code: "ENOMEM", op: "read" });
    await graph.close();
  });

  it("must refuse ranges past the end with EIO that names the range", async () => {
    const disk = await graph.open({ driver: "memory", size: 1000, "node-name": "mem" });
    const error = {
      code: "EIO",
      message: "node 'mem': read of 2 bytes at 0x3e7 goes past the end at 0x3e8",
      offset: 999,
      length: 2,
    };
    await expect(disk.read(999, 2)).rejects.toMatchObject(error);
    await expect(disk.write(999, new Uint8Array(2))).rejects.toMatchObject({ code: "EIO" });
    await expect(disk.writeZeroes(0, 1001)).rejects.toMatchObject({ code: "EIO" });
    await expect(disk.discard(1001, 0)).rejects.toMatchObject({ code: "EIO" });
    expect(await disk.read(1000, 0)).toEqual(new Uint8Array());
    await disk.write(1000, new Uint8Array());
    await graph.close();
  });

  it.each([-1, 0.5, Number.NaN, 2 ** 53, Infinity])("must refuse the offset %d", async (offset) => {
    const disk = await graph.open({ driver: "memory", size: 1000 });
    await expect(disk.read(offset, 1)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(disk.read(0, offset)).rejects.toMatchObject({ code: "EINVAL" });
    await graph.close();
  });

  it("must refuse everything after close with ECLOSED", async () => {
    const disk = await graph.open({ driver: "memory", size: 1000 });
    await disk.close();
    await disk.close();
    const closed = { code: "ECLOSED" };
    await expect(disk.read(0, 1)).rejects.toMatchObject(closed);
    await expect(disk.readInto(0, new Uint8Array(1))).rejects.toMatchObject(closed);
    await expect(disk.write(0, new Uint8Array(1))).rejects.toMatchObject(closed);
    await expect(disk.writeZeroes(0, 1)).rejects.toMatchObject(closed);
    await expect(disk.discard(0, 1)).rejects.toMatchObject(closed);
    await expect(disk.flush()).rejects.toMatchObject(closed);
    await expect(disk.truncate(0)).rejects.toMatchObject(closed);
    expect(() => disk.readv(0, IoVector.allocate(1))).toThrow("closed");
    expect(() => disk.blockStatus(0, 1)).toThrow("closed");
    expect(() => disk.extents()).toThrow("closed");
    expect(() => disk.readable()).toThrow("closed");
  });

  it("must refuse an aborted request before it reaches the driver", async () => {
    const disk = await graph.open({ driver: "memory", size: 1000 });
    const signal = AbortSignal.abort();
    const canceled = { code: "ECANCELED" };
    await expect(disk.read(0, 1, { signal })).rejects.toMatchObject(canceled);
    await expect(disk.write(0, new Uint8Array(1), { signal })).rejects.toMatchObject(canceled);
    await expect(disk.flush({ signal })).rejects.toMatchObject(canceled);
    await expect(disk.truncate(5, { signal })).rejects.toMatchObject(canceled);
    expect(disk.root.statistics()).toMatchObject({ reads: 0, writes: 0 });
    expect(disk.lengthBytes).toBe(1000);
    await graph.close();
  });

  it("a serialising read must hold back a write that overlaps it, and only that", async () => {
    world.file("disk", 64 * KIB);
    const disk = await graph.open({ driver: "file", filename: "disk" });
    const hold = gate();
    world.hook = (call) => (call === "disk read 0+4096" ? hold.opened : undefined);
    world.takeLog();
    const reading = disk.read(0, 4096, { serialising: true });
    const inside = disk.write(512, new Uint8Array(512));
    await disk.write(4096, new Uint8Array(512));
    await settle();
    expect(world.takeLog()).toEqual(["disk read 0+4096", "disk write 4096+512"]);
    hold.open();
    await Promise.all([reading, inside]);
    expect(world.takeLog()).toEqual(["disk write 512+512"]);
    await graph.close();
  });

  it("truncate() must wait for requests in flight and hold back new ones", async () => {
    world.file("disk", 64 * KIB);
    const disk = await graph.open(
      { driver: "file", filename: "disk" },
      { permissions: { held: 11, shared: 15 } },
    );
    const hold = gate();
    world.hook = (call) => (call === "disk read 0+512" ? hold.opened : undefined);
    world.takeLog();
    const reading = disk.read(0, 512);
    const cutting = disk.truncate(32 * KIB);
    await settle();
    const late = disk.read(512, 512);
    await settle();
    expect(world.takeLog()).toEqual(["disk read 0+512"]);
    hold.open();
    await Promise.all([reading, cutting, late]);
    const log = world.takeLog();
    expect(log.indexOf("disk truncate 32768")).toBeLessThan(log.indexOf("disk read 512+512"));
    await graph.close();
  });

  it("truncates side by side must all have the permission, and give it back", async () => {
    world.file("disk", 64 * KIB);
    const disk = await graph.open({ driver: "file", filename: "disk" });
    await Promise.all([disk.truncate(1000), disk.truncate(2000), disk.truncate(3000)]);
    expect(disk.lengthBytes).toBe(3000);
    expect(disk.root.permissions).toEqual({ held: 3, shared: 15 });
    await graph.close();
  });

  it("asChild() must grow the disk when the backend may resize it, and only then", async () => {
    const may = await graph.open({ driver: "memory" }, { permissions: { held: 11, shared: 15 } });
    const child = may.asChild();
    await child.writev(4096, IoVector.of(new Uint8Array(512).fill(1)));
    expect(child.lengthBytes).toBe(4608);
    await child.flush();
    const mayNot = await graph.open({ driver: "memory" });
    expect(() => mayNot.asChild().writev(0, IoVector.allocate(1))).toThrow("may not");
    await graph.close();
  });

  it("two truncates must run one after the other", async () => {
    world.file("disk", 64 * KIB);
    const disk = await graph.open(
      { driver: "file", filename: "disk" },
      { permissions: { held: 11, shared: 15 } },
    );
    let running = 0;
    world.hook = async (call) => {
      if (!call.includes("truncate")) return;
      running++;
      expect(running).toBe(1);
      await settle();
      running--;
    };
    await Promise.all([disk.truncate(1000), disk.truncate(2000), disk.truncate(3000)]);
    expect(disk.lengthBytes).toBe(3000);
    await graph.close();
  });
});

describe("check()", () => {
  /** A format whose checks are told to the log, and whose repair writes. */
  const checked: DriverDefinition = {
    ...toyDriver,
    name: "checked",
    open: async (context) => {
      const driver = await toyDriver.open(context);
      seen.push(`open ${context.forCheck === true ? "for a check" : "plainly"}`);
      driver.check = async ({ fix } = {}) => {
        seen.push(`check ${fix ?? "only"}`);
        await settle();
        if (fix !== undefined)
          await context.children.file?.writev(TOY_CLUSTER, IoVector.allocate(1));
        seen.push("checked");
        return { corruptions: 0, leaks: 0, checkErrors: 0, findings: [], findingsOmitted: 0 };
      };
      return driver;
    },
  };
  const seen: string[] = [];

  async function open(how: GraphOpenOptions = {}): Promise<BlockBackend> {
    seen.length = 0;
    world.file("disk", toyImage({ lengthBytes: 8 * TOY_CLUSTER }));
    graph = new BlockGraph({ drivers: [world.driver, toyDriver, checked] });
    return await graph.open({ ...toy("disk"), driver: "checked" }, how);
  }

  it("must repair while no request runs, and hold back those that come", async () => {
    const disk = await open();
    const hold = gate();
    await disk.write(0, new Uint8Array(512).fill(1));
    world.hook = async (call) => {
      if (!call.startsWith("disk read")) return;
      await hold.opened;
      seen.push("read");
    };
    const reading = disk.read(0, 512);
    const mending = disk.check({ fix: "all" });
    await settle();
    expect(seen).toEqual(["open plainly"]);
    const late = disk.read(0, 512);
    hold.open();
    await Promise.all([reading, mending, late]);
    expect(seen).toEqual(["open plainly", "read", "check all", "checked", "read"]);
    await graph.close();
  });

  it("must look without stopping anybody", async () => {
    const disk = await open({ readOnly: true });
    await Promise.all([disk.check(), disk.read(0, 512)]);
    expect(seen).toEqual(["open plainly", "check only", "checked"]);
    await graph.close();
  });

  it("must refuse to repair what is read-only, what others use, and what has no checks", async () => {
    const reader = await open({ readOnly: true });
    await expect(reader.check({ fix: "all" })).rejects.toMatchObject({ code: "EPERM" });
    await graph.close();
    const disk = await open();
    const strict = { held: 1, shared: 7 };
    const other = await graph.open(disk.root.name, { permissions: strict });
    await expect(disk.check({ fix: "all" })).rejects.toMatchObject({ code: "EPERM" });
    await other.close();
    await disk.check({ fix: "all" });
    expect(disk.root.permissions.held & 8).toBe(0);
    await graph.close();
    const none = await new BlockGraph({ drivers: [memoryDriver] }).open({ driver: "memory" });
    await expect(none.check()).rejects.toMatchObject({ code: "ENOTSUP" });
    await none.close();
  });

  it("open() must say that it is for a check, to the root alone", async () => {
    await open({ forCheck: true });
    expect(seen).toEqual(["open for a check"]);
    await graph.close();
    seen.length = 0;
    world.file("top", toyImage({ lengthBytes: 8 * TOY_CLUSTER }));
    const nested = new BlockGraph({ drivers: [world.driver, toyDriver, checked] });
    const backing = { ...toy("disk"), driver: "checked" };
    await nested.open(toy("top", { backing }), { forCheck: true });
    expect(seen).toEqual(["open plainly"]);
    await nested.close();
  });
});

describe("a child that is written past its end", () => {
  it("must grow, and read as zeroes behind its end", async () => {
    const disk = await openChain();
    const { length } = world.files.get("top") ?? new Uint8Array();
    expect(length).toBe(4 * TOY_CLUSTER);
    expect(await disk.read(7 * TOY_CLUSTER, TOY_CLUSTER)).toEqual(new Uint8Array(TOY_CLUSTER));
    await graph.close();
  });
});

describe("blockStatusAbove and extents", () => {
  it("must find the deciding layer, cut at a shorter backing file, and see holes", async () => {
    const disk = await openChain();
    world.files.get("base")?.fill(0, 2 * TOY_CLUSTER, 3 * TOY_CLUSTER);
    expect(await collect(disk.extents())).toEqual([
      "0+1 hole 1 @2",
      "1+1 data 0 @3",
      "2+1 data 1 @4",
      "3+3 zero 1",
      "6+2 zero 0",
    ]);
    await graph.close();
  });

  it("must merge neighbours that continue each other, and keep to the range", async () => {
    const disk = await openChain();
    await disk.write(2 * TOY_CLUSTER, new Uint8Array(TOY_CLUSTER).fill(3));
    const range = { start: TOY_CLUSTER + 512, end: 3 * TOY_CLUSTER - 512 };
    const extents: Extent[] = [];
    for await (const extent of disk.extents(range)) extents.push(extent);
    expect(extents).toHaveLength(1);
    expect(extents[0]).toMatchObject({
      offset: TOY_CLUSTER + 512,
      lengthBytes: 2 * TOY_CLUSTER - 1024,
      hostOffset: 3 * TOY_CLUSTER + 512,
      depth: 0,
    });
    expect(extents[0]?.fileNode?.filename).toBe("top");
    await graph.close();
  });

  it("must leave open what only layers from the base on know", async () => {
    const disk = await openChain();
    const base = disk.root.backing;
    expect(await disk.blockStatusAbove(base, 0, 8 * TOY_CLUSTER)).toMatchObject({
      lengthBytes: TOY_CLUSTER,
      allocated: false,
      zero: false,
      depth: 0,
    });
    expect(() => disk.blockStatusAbove(disk.root, 0, 1)).toThrow("no layer below");
    await graph.close();
  });

  it("must not ask for holes when only allocation matters", async () => {
    const disk = await openChain();
    world.takeLog();
    expect(await collect(disk.extents({ wantZero: false }))).toContain("0+1 data 1 @2");
    expect(world.takeLog().filter((call) => call.includes("status"))).toEqual([]);
    await graph.close();
  });

  it("must take a failed look for holes as data", async () => {
    const disk = await openChain();
    world.hook = (call) => {
      if (call.includes("status")) throw new Error("no such ioctl");
    };
    expect(await collect(disk.extents())).toContain("0+1 data 1 @2");
    await graph.close();
  });

  it("must stop when aborted, and when the disk shrinks", async () => {
    const disk = await openChain();
    const abort = new AbortController();
    const seen: number[] = [];
    const walking = (async () => {
      for await (const { offset } of disk.extents({ signal: abort.signal })) {
        seen.push(offset);
        abort.abort();
      }
    })();
    await expect(walking).rejects.toMatchObject({ code: "ECANCELED" });
    expect(seen).toEqual([0]);
    const memory = await graph.open({ driver: "memory", size: 1024 * KIB });
    await memory.write(512 * KIB, new Uint8Array(1).fill(1));
    let bytes = 0;
    for await (const extent of memory.extents()) {
      if (bytes === 0) await memory.truncate(600 * KIB);
      bytes += extent.lengthBytes;
    }
    expect(bytes).toBeLessThanOrEqual(1024 * KIB);
    await graph.close();
  });

  it("must give a status in aligned units cut to what was asked", async () => {
    world.limits = { requestAlignment: 512 };
    world.file("disk", new Uint8Array(8192).fill(1));
    const disk = await graph.open({ driver: "file", filename: "disk" });
    world.takeLog();
    expect(await disk.blockStatus(700, 100)).toMatchObject({ lengthBytes: 100, hostOffset: 700 });
    expect(world.takeLog()).toEqual(["disk status 512+512"]);
    await graph.close();
  });
});

describe("readable", () => {
  it("must stream the bytes, one chunk ahead at most", async () => {
    world.file(
      "disk",
      Uint8Array.from({ length: 10_000 }, (_, at) => at % 253),
    );
    const disk = await graph.open({ driver: "file", filename: "disk" });
    world.takeLog();
    const reader = disk.readable({ start: 10, end: 9000, chunkBytes: 4000 }).getReader();
    await settle();
    expect(world.log).toEqual([]);
    const chunks: Uint8Array[] = [];
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      chunks.push(next.value);
    }
    expect(chunks.map((chunk) => chunk.length)).toEqual([4000, 4000, 990]);
    expect(Buffer.concat(chunks)).toEqual(
      Buffer.from(world.files.get("disk")?.subarray(10, 9000) ?? []),
    );
    await graph.close();
  });

  it("must fill the consumer's own buffer", async () => {
    const disk = await graph.open({ driver: "memory", size: 10 });
    await disk.write(0, Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    const reader = disk.readable().getReader({ mode: "byob" });
    const { value } = await reader.read(new Uint8Array(4));
    expect(value).toEqual(Uint8Array.from([1, 2, 3, 4]));
    await reader.cancel();
    await graph.close();
  });

  it("must pass an error on, and end at once over an empty range", async () => {
    const empty = await graph.open({ driver: "memory" });
    expect(await empty.readable().getReader().read()).toEqual({ done: true, value: undefined });
    world.file("disk", 100);
    const disk = await graph.open({ driver: "file", filename: "disk" });
    world.hook = (call) => {
      if (call.includes("read")) throw new Error("bad sector");
    };
    await expect(disk.readable().getReader().read()).rejects.toThrow("bad sector");
    await graph.close();
  });
});
