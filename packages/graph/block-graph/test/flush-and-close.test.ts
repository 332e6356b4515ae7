import { beforeEach, describe, expect, it } from "vitest";
import { type BlockBackend, BlockGraph } from "../src/index.js";
import { gate, settle, TestWorld } from "./test-store.js";
import { toyDriver, toyImage } from "./toy-format.js";

const KIB = 1024;

let world: TestWorld;
let graph: BlockGraph;

beforeEach(() => {
  world = new TestWorld();
  graph = new BlockGraph({ drivers: [world.driver, toyDriver] });
  world.file("disk", 64 * KIB);
  world.file("base", toyImage({ lengthBytes: 64 * KIB }));
  world.file("top", toyImage({ lengthBytes: 64 * KIB }));
});

async function openStore(): Promise<BlockBackend> {
  const disk = await graph.open({ driver: "file", filename: "disk", "node-name": "disk" });
  world.takeLog();
  return disk;
}

const BYTE = new Uint8Array(1);

describe("flush", () => {
  it("must hand down the caches, then sync the store below, and leave the backing file alone", async () => {
    const disk = await graph.open({
      driver: "toy",
      file: { driver: "file", filename: "top" },
      backing: { driver: "toy", file: { driver: "file", filename: "base" } },
    });
    await disk.write(0, BYTE);
    world.takeLog();
    await disk.flush();
    expect(world.takeLog()).toEqual([
      "top write 4096+4096",
      "top flush to os",
      "top flush to disk",
    ]);
    await graph.close();
  });

  it("must not sync when nothing was written since the last one that succeeded", async () => {
    const disk = await openStore();
    await disk.flush();
    expect(world.takeLog()).toEqual(["disk flush to os"]);
    await disk.write(0, BYTE);
    await disk.flush();
    expect(world.takeLog().at(-1)).toBe("disk flush to disk");
    await disk.flush();
    expect(world.takeLog()).toEqual(["disk flush to os"]);
    await disk.truncate(32 * KIB);
    await disk.flush();
    expect(world.takeLog().at(-1)).toBe("disk flush to disk");
    await graph.close();
  });

  it("must run one at a time; whoever comes meanwhile shares the next", async () => {
    const disk = await openStore();
    const first = gate();
    let syncs = 0;
    world.hook = (call) => {
      if (!call.endsWith("flush to disk")) return undefined;
      syncs++;
      return syncs === 1 ? first.opened : undefined;
    };
    await disk.write(0, BYTE);
    const running = disk.flush();
    await settle();
    await disk.write(1, BYTE);
    const joined = Promise.all([disk.flush(), disk.flush(), disk.flush()]);
    await settle();
    expect(syncs).toBe(1);
    first.open();
    await Promise.all([running, joined]);
    expect(syncs).toBe(2);
    await graph.close();
  });

  it("a write that ends while a flush runs must be synced by the next", async () => {
    const disk = await openStore();
    const sync = gate();
    world.hook = (call) => (call.endsWith("flush to disk") ? sync.opened : undefined);
    await disk.write(0, BYTE);
    const running = disk.flush();
    await settle();
    await disk.write(1, BYTE);
    sync.open();
    await running;
    world.takeLog();
    await disk.flush();
    expect(world.takeLog()).toEqual(["disk flush to os", "disk flush to disk"]);
    await graph.close();
  });

  it("a failure must reach everyone who shared the walk, and the next flush must try again", async () => {
    const disk = await openStore();
    const first = gate();
    let syncs = 0;
    world.hook = (call) => {
      if (!call.endsWith("flush to disk")) return undefined;
      syncs++;
      if (syncs === 1) return first.opened;
      if (syncs === 2) throw new Error("bad cable");
      return undefined;
    };
    await disk.write(0, BYTE);
    const running = disk.flush();
    await settle();
    await disk.write(1, BYTE);
    const joined = Promise.allSettled([disk.flush(), disk.flush()]);
    first.open();
    await running;
    expect(await joined).toMatchObject([
      { status: "rejected", reason: { message: "bad cable" } },
      { status: "rejected", reason: { message: "bad cable" } },
    ]);
    await disk.flush();
    expect(syncs).toBe(3);
    await graph.close();
  });

  it("an abort must end the wait for a flush, not the flush", async () => {
    const disk = await openStore();
    const sync = gate();
    world.hook = (call) => (call.endsWith("flush to disk") ? sync.opened : undefined);
    await disk.write(0, BYTE);
    const abort = new AbortController();
    const aborted = disk.flush({ signal: abort.signal });
    await settle();
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: "ECANCELED" });
    expect(disk.root.inFlight).toBe(1);
    sync.open();
    await settle();
    expect(disk.root.inFlight).toBe(0);
    await graph.close();
  });
});

describe("close", () => {
  it("must flush, then close each driver", async () => {
    const disk = await graph.open({ driver: "toy", file: { driver: "file", filename: "top" } });
    await disk.write(0, BYTE);
    world.takeLog();
    await disk.close();
    expect(world.takeLog()).toEqual([
      "top write 4096+4096",
      "top flush to os",
      "top flush to disk",
      "top flush to os",
      "top close",
    ]);
  });

  it("must wait for requests in flight, and refuse those that wait to begin", async () => {
    const disk = await openStore();
    const hold = gate();
    world.hook = (call) => (call === "disk read 0+512" ? hold.opened : undefined);
    const reading = disk.read(0, 512);
    const drained = disk.root.drain();
    const late = disk.read(512, 512);
    const closing = disk.close();
    const ended = Promise.allSettled([late]);
    await settle();
    expect(world.open.has("disk")).toBe(true);
    hold.open();
    await Promise.all([reading, drained, closing]);
    disk.root.resume();
    expect(await ended).toMatchObject([{ reason: { code: "ECLOSED" } }]);
    expect(world.open.has("disk")).toBe(false);
  });

  it("must try every step and throw the first error with all in its cause", async () => {
    const disk = await graph.open({ driver: "toy", file: { driver: "file", filename: "top" } });
    await disk.write(0, BYTE);
    world.hook = (call) => {
      if (/flush to disk|close/.test(call)) throw new Error(`failed: ${call}`);
    };
    const error: unknown = await disk.close().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "EIO", message: expect.stringContaining("flush to disk") });
    const { cause } = error as { cause: AggregateError };
    expect(cause).toBeInstanceOf(AggregateError);
    expect(String(cause.errors)).toContain("failed: top flush to disk");
    expect(world.log).toContain("top close");
    expect(graph.nodes()).toEqual([]);
    expect(world.open.size).toBe(0);
  });

  it("must leave a node to its other users, and make the data stable", async () => {
    const disk = await openStore();
    const other = await graph.open("disk");
    await disk.write(0, BYTE);
    world.takeLog();
    await disk.close();
    expect(world.takeLog()).toEqual(["disk flush to os", "disk flush to disk"]);
    await other.write(0, BYTE);
    await other.close();
    expect(graph.nodes()).toEqual([]);
  });

  it("must keep a node that was added until it is removed", async () => {
    await graph.add({ driver: "file", filename: "disk", "node-name": "store" });
    const disk = await graph.open({ driver: "file", filename: "disk" });
    await disk.close();
    expect(graph.node("store")?.isOpen).toBe(true);
    await graph.remove("store");
    expect(graph.node("store")).toBeUndefined();
    await expect(graph.remove("store")).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("of a graph must close every backend even when one fails", async () => {
    const disk = await openStore();
    await graph.open({ driver: "toy", file: { driver: "file", filename: "top" } });
    await disk.write(0, BYTE);
    world.hook = (call) => {
      if (call === "top close") throw new Error("stuck");
    };
    await expect(graph.close()).rejects.toThrow("stuck");
    expect(disk.closed).toBe(true);
    expect(world.open.size).toBe(0);
    expect(graph.nodes()).toEqual([]);
  });

  it("must happen at the end of an `await using` block", async () => {
    {
      await using disk = await openStore();
      await disk.write(0, BYTE);
    }
    expect(world.open.size).toBe(0);
  });
});
