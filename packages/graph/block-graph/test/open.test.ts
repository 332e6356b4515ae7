import { beforeEach, describe, expect, it } from "vitest";
import { AlignedArena } from "@blocklayer/aligned-io";
import { type DriverDefinition, type OpenContext, UNLIMITED } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { rawDriver } from "@blocklayer/raw";
import {
  type BlockBackend,
  BlockGraph,
  type GateRequest,
  type NodeOptions,
  type OpenGate,
} from "../src/index.js";
import { gate, TestWorld } from "./test-store.js";
import { toyDriver, toyImage } from "./toy-format.js";

const KIB = 1024;
const ODD_FILE: NodeOptions = { driver: "file", filename: "odd.img" };

let world: TestWorld;
let graph: BlockGraph;
let asked: GateRequest[];

/** Opens what the image names, with the format that it names. */
const friendlyGate: OpenGate = (request) => {
  asked.push(request);
  return {
    ...(request.format === undefined ? {} : { driver: request.format }),
    file: { driver: "file", filename: request.filename },
  };
};

function newGraph(openGate?: OpenGate, resolveFilename?: (name: string) => string): BlockGraph {
  return new BlockGraph({
    drivers: [world.driver, toyDriver, rawDriver],
    ...(openGate === undefined ? {} : { openGate }),
    ...(resolveFilename === undefined ? {} : { resolveFilename }),
  });
}

function toy(filename: string, more: NodeOptions = {}): NodeOptions {
  return { driver: "toy", file: { driver: "file", filename }, ...more };
}

beforeEach(() => {
  world = new TestWorld();
  asked = [];
  graph = newGraph(friendlyGate);
  world.file("base.toy", toyImage({ lengthBytes: 64 * KIB }));
  world.file(
    "top.toy",
    toyImage({ lengthBytes: 64 * KIB, backing: { filename: "base.toy", format: "toy" } }),
  );
  world.file("plain.img", 64 * KIB);
});

/** Nothing is left open, in the graph or in the world. */
function expectNothingOpen(): void {
  expect(graph.nodes()).toEqual([]);
  expect([...world.open.keys()]).toEqual([]);
}

describe("BlockGraph.open", () => {
  it("must open children first, with names of its own, and close in reverse", async () => {
    const disk = await graph.open(toy("top.toy"));
    expect(graph.nodes().map((node) => node.driverName)).toEqual(["toy", "file", "toy", "file"]);
    expect(graph.nodes().map((node) => node.name)).toEqual([
      "#block000",
      "#block001",
      "#block002",
      "#block003",
    ]);
    expect(disk.root.backing?.file?.filename).toBe("base.toy");
    expect(disk.root.backing?.readOnly).toBe(true);
    expect(disk.root.backing?.file?.readOnly).toBe(true);
    world.takeLog();
    await disk.close();
    expect(world.takeLog().filter((call) => call.endsWith("close"))).toEqual([
      "base.toy close",
      "top.toy close",
    ]);
    expectNothingOpen();
  });

  it("must take dotted keys and a node's name", async () => {
    await graph.add({ driver: "file", filename: "plain.img", "node-name": "store" });
    const disk = await graph.open({ driver: "raw", file: "store", "node-name": "disk" });
    expect(disk.root.file?.name).toBe("store");
    await disk.close();
    expect(graph.nodes().map((node) => node.name)).toEqual(["store"]);
    const other = await graph.open({
      driver: "raw",
      "file.driver": "file",
      "file.filename": "plain.img",
      "file.cache.direct": "on",
    });
    expect(other.root.file?.options["cache.direct"]).toBe("on");
    await graph.close();
    expectNothingOpen();
  });

  it("must find the protocol by the file name", async () => {
    const disk = await graph.open({ driver: "raw", file: { filename: "plain.img" } });
    expect(disk.root.file?.driverName).toBe("file");
    const short = await graph.open({ driver: "raw", filename: "plain.img", "read-only": true });
    expect(short.root.file?.filename).toBe("plain.img");
    await graph.close();
  });

  it("must name an unknown option and an unknown driver", async () => {
    await expect(graph.open(toy("top.toy", { "lazy-refcount": true }))).rejects.toThrow(
      "toy: option 'lazy-refcount' is unknown; known are: lazy-refcounts",
    );
    await expect(graph.open({ driver: "qcow3", file: "x" })).rejects.toThrow(
      "driver 'qcow3' is unknown; known are: file, toy, raw",
    );
    await expect(
      graph.open({ driver: "file", filename: "plain.img", file: { filename: "x" } }),
    ).rejects.toThrow("takes no children");
    await expect(graph.open({ driver: "toy" })).rejects.toThrow("needs the option 'file'");
    expectNothingOpen();
  });

  it.each([
    ["1disk", "must begin with a letter"],
    ["a b", "must begin with a letter"],
    ["#block9", "must begin with a letter"],
    ["x".repeat(32), "longer than 31"],
  ])("must refuse the node name '%s'", async (name, why) => {
    await expect(graph.open(toy("top.toy", { "node-name": name }))).rejects.toThrow(why);
    expectNothingOpen();
  });

  it("must refuse a name twice, also inside one tree", async () => {
    const file = { driver: "file", filename: "base.toy", "node-name": "same" };
    await expect(graph.open({ driver: "toy", "node-name": "same", file })).rejects.toMatchObject({
      code: "EEXIST",
    });
    expectNothingOpen();
  });

  it("must close what was opened when a later part fails, and throw the first error", async () => {
    world.files.delete("base.toy");
    await expect(graph.open(toy("top.toy"))).rejects.toThrow("base.toy: no such file");
    expect(world.takeLog().filter((call) => / (open|close)/.test(call))).toEqual([
      "top.toy open rw 11/5",
      "base.toy open ro 1/5",
      "top.toy close",
    ]);
    expectNothingOpen();
  });

  it("must refuse a backing file to a driver that has none", async () => {
    await expect(
      graph.open({ driver: "raw", file: { filename: "plain.img" }, backing: toy("base.toy") }),
    ).rejects.toThrow("makes no use of a backing file");
    expectNothingOpen();
  });

  it("must refuse work after close", async () => {
    await graph.close();
    await expect(graph.open(toy("top.toy"))).rejects.toMatchObject({ code: "ECLOSED" });
  });

  it("must stop when aborted, and leave nothing", async () => {
    const abort = new AbortController();
    world.hook = (call) => {
      if (call.startsWith("top.toy read")) abort.abort();
    };
    const opening = graph.open(toy("top.toy"), { signal: abort.signal });
    await expect(opening).rejects.toMatchObject({ code: "ECANCELED" });
    expectNothingOpen();
  });
});

describe("the open gate", () => {
  it("must be told what the image says, and who asks", async () => {
    await using _disk = await graph.open(toy("top.toy"));
    expect(asked).toEqual([
      { kind: "backing", filename: "base.toy", format: "toy", image: "top.toy" },
    ]);
  });

  it("must refuse everything when there is none", async () => {
    graph = newGraph();
    await expect(graph.open(toy("top.toy"))).rejects.toMatchObject({
      code: "EACCES",
      message: "'top.toy' names the backing file 'base.toy', and no open gate allows it",
    });
    expectNothingOpen();
  });

  it("must not be asked when the user names the backing file or detaches it", async () => {
    graph = newGraph();
    await using named = await graph.open(toy("top.toy", { backing: toy("base.toy") }));
    expect(named.root.backing?.file?.filename).toBe("base.toy");
    await named.close();
    await using detached = await graph.open(toy("top.toy", { backing: null }));
    expect(detached.root.backing).toBeUndefined();
    expect(asked).toEqual([]);
  });

  it("must be able to detach a backing file with null", async () => {
    graph = newGraph(() => null);
    await using disk = await graph.open(toy("top.toy"));
    expect(disk.root.backing).toBeUndefined();
  });

  it("a file without a format must never be probed, even where probing is allowed", async () => {
    world.file("top.toy", toyImage({ lengthBytes: KIB, backing: { filename: "base.toy" } }));
    await expect(graph.open(toy("top.toy"), { allowProbing: true })).rejects.toThrow(
      "guessing the format is not allowed",
    );
    expect(asked).toEqual([{ kind: "backing", filename: "base.toy", image: "top.toy" }]);
    expect(world.log.join()).not.toContain("base.toy read");
    expectNothingOpen();
  });
});

describe("probing", () => {
  it("must find the format when it is allowed, through a node that is closed again", async () => {
    const disk = await graph.open({ filename: "base.toy" }, { allowProbing: true });
    expect(disk.root.driverName).toBe("toy");
    expect(world.takeLog().slice(0, 4)).toEqual([
      "base.toy open ro 0/15",
      "base.toy read 0+2048",
      "base.toy close",
      "base.toy open rw 11/5",
    ]);
    await disk.close();
  });

  it("must mark a raw disk as guessed, so that its guest cannot make it another format", async () => {
    const disk = await graph.open({ file: { filename: "plain.img" } }, { allowProbing: true });
    expect(disk.root.driverName).toBe("raw");
    const header = new Uint8Array(512);
    header.set([0x51, 0x46, 0x49, 0xfb]);
    await expect(disk.write(0, header)).rejects.toMatchObject({ code: "EPERM" });
    await disk.close();
  });

  it("must be refused when it is not allowed", async () => {
    await expect(graph.open({ file: { filename: "base.toy" } })).rejects.toThrow(
      "guessing the format is not allowed",
    );
    expectNothingOpen();
  });

  it("must probe a node that stands by its name", async () => {
    await graph.add({ driver: "file", filename: "base.toy", "node-name": "store" });
    const disk = await graph.open({ file: "store", "read-only": "on" }, { allowProbing: true });
    expect(disk.root.driverName).toBe("toy");
    await graph.close();
    expectNothingOpen();
  });
});

describe("chains that come back", () => {
  it("must refuse an image that is its own backing file", async () => {
    const backing = { filename: "top.toy", format: "toy" };
    world.file("top.toy", toyImage({ lengthBytes: KIB, backing }));
    await expect(graph.open(toy("top.toy"))).rejects.toMatchObject({ code: "ELOOP" });
    expect(world.log.filter((call) => call.includes("open")).length).toBe(1);
    expectNothingOpen();
  });

  it("must refuse a longer loop, under names that mean the same file", async () => {
    graph = newGraph(friendlyGate, (name) => name.replace(/^\.\//, ""));
    world.file("./top.toy", toyImage({ lengthBytes: KIB }));
    world.file(
      "base.toy",
      toyImage({ lengthBytes: KIB, backing: { filename: "./top.toy", format: "toy" } }),
    );
    await expect(graph.open(toy("top.toy"))).rejects.toMatchObject({ code: "ELOOP" });
    expectNothingOpen();
  });

  it("must refuse a chain that never ends, in bounded time", async () => {
    let count = 0;
    const backing = { filename: "next", format: "toy" };
    graph = newGraph(() => {
      count++;
      const filename = `link${count}`;
      world.file(filename, toyImage({ lengthBytes: KIB, backing }));
      return toy(filename);
    });
    await expect(graph.open(toy("top.toy"))).rejects.toMatchObject({ code: "ELOOP" });
    expect(count).toBeLessThan(210);
    expectNothingOpen();
  });

  it("must refuse a node that is still being opened as its own child", async () => {
    await expect(
      graph.open(toy("top.toy", { "node-name": "self", backing: "self" })),
    ).rejects.toThrow("'self'");
    expectNothingOpen();
  });
});

describe("permissions of an open graph", () => {
  it("must reach the byte store as QEMU's locks have them", async () => {
    const disk = await graph.open(toy("top.toy"));
    expect(world.takeLog().filter((call) => call.includes("open"))).toEqual([
      "top.toy open rw 11/5",
      "base.toy open ro 1/5",
    ]);
    await disk.close();
    const info = await graph.open(toy("top.toy", { backing: null }), {
      readOnly: true,
      permissions: { held: 0, shared: 15 },
    });
    expect(world.takeLog().filter((call) => call.includes("open"))).toEqual([
      "top.toy open ro 0/5",
    ]);
    await info.close();
  });

  it("must refuse a second user who disturbs the first, and name both", async () => {
    await graph.add({ driver: "file", filename: "plain.img", "node-name": "store" });
    const toyStore = { driver: "file", filename: "base.toy", "node-name": "toy-store" };
    const first = await graph.open({ driver: "toy", "node-name": "one", file: toyStore });
    await expect(graph.open("toy-store")).rejects.toMatchObject({
      code: "EPERM",
      message: expect.stringMatching(/'write', which node 'one' as 'file' does not share/),
    });
    await expect(graph.open({ driver: "toy", file: "toy-store" })).rejects.toMatchObject({
      code: "EPERM",
    });
    const reader = await graph.open("toy-store", { readOnly: true });
    await reader.close();
    await first.close();
    await graph.close();
    expectNothingOpen();
  });

  it("must change a store's locks with its users", async () => {
    await graph.add({ driver: "file", filename: "plain.img", "node-name": "store" });
    world.takeLog();
    const disk = await graph.open({ driver: "raw", file: "store" });
    expect(world.takeLog()).toEqual(["plain.img reopen rw 3/15"]);
    await disk.close();
    expect(world.takeLog().at(-1)).toBe("plain.img reopen rw 0/15");
    await graph.close();
  });

  it("must undo an attach that the store refuses", async () => {
    await graph.add({ driver: "file", filename: "plain.img", "node-name": "store" });
    world.hook = (call) => {
      if (call.includes("reopen rw 3")) throw new Error("locked by another process");
    };
    await expect(graph.open({ driver: "raw", file: "store" })).rejects.toThrow("locked by another");
    expect(graph.node("store")?.permissions).toEqual({ held: 0, shared: 15 });
    expect(graph.nodes().map((node) => node.name)).toEqual(["store"]);
    await graph.close();
  });

  it("must keep what another attach got while it is undone", async () => {
    await graph.add({ driver: "file", filename: "plain.img", "node-name": "store" });
    await graph.add({ driver: "raw", file: "store", "node-name": "disk" });
    const refused = gate();
    let refusals = 0;
    world.hook = (call) => {
      if (!call.includes("reopen rw 3")) return undefined;
      return refusals++ === 0 ? refused.opened : undefined;
    };
    const writer = graph.open("disk").catch((error: unknown) => error);
    await new Promise(setImmediate);
    const reader = await graph.open("disk", { readOnly: true });
    refused.fail(new Error("locked by another process"));
    expect(await writer).toMatchObject({ message: "locked by another process" });
    expect(graph.node("store")?.permissions.held).toBe(1);
    await reader.close();
    await graph.close();
  });

  it("must pad a write in the last sector of a store with whole sectors, without resizing", async () => {
    world.limits = { requestAlignment: 512 };
    world.file("odd.img", 1000);
    const disk = await graph.open({ driver: "raw", file: { filename: "odd.img" } });
    await disk.write(990, new Uint8Array(10).fill(7));
    expect(world.files.get("odd.img")?.subarray(990, 1000)).toEqual(new Uint8Array(10).fill(7));
    const behind = async (): Promise<void> => disk.asChild().writev(1024, IoVector.allocate(512));
    await expect(behind()).rejects.toMatchObject({ code: "EPERM" });
    await graph.close();
  });

  it("must refuse a write whose padding would make the disk longer than its last sector", async () => {
    world.limits = { requestAlignment: 4096 };
    world.file("odd.img", 5120);
    for (const root of [{ driver: "raw", file: { filename: "odd.img" } }, ODD_FILE]) {
      const disk = await graph.open(root);
      await disk.write(10, new Uint8Array(10).fill(7));
      await expect(disk.write(4096, new Uint8Array(512))).rejects.toMatchObject({ code: "EPERM" });
      await expect(disk.writeZeroes(4000, 1000)).rejects.toMatchObject({ code: "EPERM" });
      expect(disk.lengthBytes).toBe(5120);
      await disk.close();
    }
    await graph.close();
  });

  it("must refuse to write to a read-only node", async () => {
    await graph.add(toy("base.toy", { "node-name": "disk", "read-only": true }));
    await expect(graph.open("disk", { readOnly: false })).rejects.toThrow("'disk' is read-only");
    const reader = await graph.open("disk");
    expect(reader.readOnly).toBe(true);
    await expect(reader.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "EPERM",
      message: "node 'disk' is read-only: write is refused",
    });
    await graph.close();
  });

  it("truncate() must take the permission to resize only while it lasts", async () => {
    const disk = await graph.open({ driver: "raw", file: { filename: "plain.img" } });
    world.takeLog();
    await disk.truncate(128 * KIB);
    expect(world.takeLog()).toEqual([
      "plain.img reopen rw 11/15",
      "plain.img truncate 131072",
      "plain.img reopen rw 3/15",
    ]);
    expect(disk.lengthBytes).toBe(128 * KIB);
    await graph.close();
  });
});

describe("read-only", () => {
  it.each([true, "on", "yes", "true", "y"])("must ask nothing to write below %s", async (word) => {
    const file = { driver: "file", filename: "plain.img" };
    const disk = await graph.open({ driver: "raw", "read-only": word, file });
    expect(world.takeLog()).toEqual(["plain.img open ro 1/15"]);
    expect(disk.readOnly).toBe(true);
    await graph.close();
  });
});

describe("reopen", () => {
  it("must make a node writable after its store, and read-only before it", async () => {
    const disk = await graph.open(toy("base.toy", { "node-name": "disk" }), { readOnly: true });
    world.takeLog();
    await graph.reopen(disk, { readOnly: false });
    expect(world.takeLog()).toEqual(["base.toy reopen rw 11/5"]);
    expect(disk.readOnly).toBe(false);
    await disk.write(0, new Uint8Array([1]));
    world.takeLog();
    await graph.reopen(disk, { readOnly: true });
    const log = world.takeLog();
    expect(log.indexOf("base.toy flush to disk")).toBeLessThan(
      log.indexOf("base.toy reopen ro 1/5"),
    );
    expect(log.at(-1)).toBe("base.toy reopen ro 1/5");
    await expect(disk.write(0, new Uint8Array([1]))).rejects.toMatchObject({ code: "EPERM" });
    await graph.close();
  });

  it("must leave everything as it was when a driver refuses", async () => {
    const refusing = { ...toyDriver };
    graph = new BlockGraph({
      drivers: [
        world.driver,
        {
          ...refusing,
          open: async (context) => {
            const driver = await toyDriver.open(context);
            driver.reopen = () => Promise.reject(new Error("not now"));
            return driver;
          },
        },
      ],
    });
    const disk = await graph.open(toy("base.toy"), { readOnly: true });
    world.takeLog();
    await expect(graph.reopen(disk, { readOnly: false })).rejects.toThrow("not now");
    expect(world.takeLog()).toEqual(["base.toy reopen rw 11/5", "base.toy reopen ro 1/5"]);
    expect(disk.readOnly).toBe(true);
    expect(disk.root.file?.readOnly).toBe(true);
    expect(await disk.read(0, 1)).toEqual(new Uint8Array(1));
    await graph.close();
  });

  it("must undo a change of limits that the arena cannot serve", async () => {
    const arena = new AlignedArena({ maxBytes: 65536, backing: "heap" });
    const picky: DriverDefinition = {
      ...world.driver,
      open: async (context) => {
        const driver = await world.driver.open(context);
        let direct = false;
        driver.reopen = ({ options }) => {
          direct = options["cache.direct"] === true;
        };
        const strict = { ...UNLIMITED, requestAlignment: 512, memoryAlignment: 512 };
        return Object.defineProperty(driver, "limits", {
          get: () => (direct ? strict : UNLIMITED),
        });
      },
    };
    graph = new BlockGraph({ drivers: [picky], arena });
    const disk = await graph.open({ driver: "file", filename: "plain.img" });
    const change = graph.reopen(disk, { options: { "cache.direct": true } });
    await expect(change).rejects.toMatchObject({ code: "ENOTSUP" });
    expect(disk.limits.requestAlignment).toBe(1);
    await disk.write(3, new Uint8Array(5));
    await graph.close();
  });

  it("must change the locks of a store that stays writable", async () => {
    const file = { driver: "file", filename: "plain.img", "read-only": false };
    const disk = await graph.open({ driver: "raw", "read-only": true, file });
    world.takeLog();
    await graph.reopen(disk, { readOnly: false });
    expect(world.takeLog()).toEqual(["plain.img reopen rw 3/15"]);
    await graph.reopen(disk, { readOnly: true });
    expect(world.takeLog().at(-1)).toBe("plain.img reopen rw 1/15");
    world.hook = (call) => {
      if (call.includes("reopen rw 3")) throw new Error("locked by another process");
    };
    await expect(graph.reopen(disk, { readOnly: false })).rejects.toThrow("locked by another");
    expect([disk.readOnly, graph.nodes()[0]?.permissions.held]).toEqual([true, 1]);
    await graph.close();
  });

  it("must refuse a node that closed while it waited, and so must truncate()", async () => {
    for (const change of [
      (disk: BlockBackend) => graph.reopen(disk, { readOnly: true }),
      (disk: BlockBackend) => disk.truncate(4096),
    ]) {
      const disk = await graph.open({ driver: "raw", file: { filename: "plain.img" } });
      const outcomes = await Promise.allSettled([disk.close(), change(disk)]);
      expect(outcomes[0].status).toBe("fulfilled");
      expect(outcomes[1]).toMatchObject({ reason: { code: "ECLOSED" } });
      const second = await graph.open({ driver: "raw", file: { filename: "plain.img" } });
      const reversed = await Promise.allSettled([change(second), second.close()]);
      expect(reversed[1].status).toBe("fulfilled");
      const failure = reversed[0].status === "rejected" ? reversed[0].reason : { code: "ECLOSED" };
      expect(failure).toMatchObject({ code: "ECLOSED" });
      expect(world.files.get("plain.img")?.length).toBe(64 * KIB);
    }
    expectNothingOpen();
  });

  it("must refuse an option that cannot change", async () => {
    const disk = await graph.open(toy("base.toy"));
    await graph.reopen(disk, { options: { "lazy-refcounts": "on" } });
    await expect(graph.reopen(disk, { options: { file: "x" } })).rejects.toThrow("cannot change");
    await graph.close();
  });

  it("must refuse to take write from a user who is not asked", async () => {
    const disk = await graph.open(toy("base.toy", { "node-name": "disk" }));
    await expect(graph.reopen("disk", { readOnly: true })).rejects.toMatchObject({ code: "EPERM" });
    await disk.write(0, new Uint8Array([1]));
    await graph.close();
  });
});

describe("a backing file that the user gives", () => {
  it("must be shown by an image that names none, or be refused", async () => {
    world.file("over.toy", toyImage({ lengthBytes: 64 * KIB }));
    world.file("plain.img", new Uint8Array(64 * KIB).fill(7));
    const backing = { driver: "raw", file: { filename: "plain.img" } };
    const disk = await graph.open(toy("over.toy", { backing }));
    expect(await disk.read(100, 2)).toEqual(Uint8Array.of(7, 7));
    await disk.close();
    const deaf = {
      ...toyDriver,
      open: (context: OpenContext) => toyDriver.open({ ...context, children: fileOnly(context) }),
    };
    graph = new BlockGraph({ drivers: [world.driver, deaf, rawDriver] });
    await expect(graph.open(toy("over.toy", { backing }))).rejects.toThrow(
      "makes no use of a backing file",
    );
    expectNothingOpen();
  });
});

function fileOnly({ children: { file } }: OpenContext): OpenContext["children"] {
  return file === undefined ? {} : { file };
}
