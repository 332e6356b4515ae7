import { BlockError } from "@blocklayer/bytes";
import { ALL_PERMISSIONS, type BlockDriver } from "@blocklayer/block-api";
import { beforeEach, describe, expect, it } from "vitest";
import { type BlockBackend, BlockGraph } from "../src/index.js";
import { TestWorld } from "./test-store.js";
import { toyDriver, toyImage } from "./toy-format.js";

const KIB = 1024;
const NOTHING = { held: 0, shared: ALL_PERMISSIONS };
const BYTE = new Uint8Array([7]);

let world: TestWorld;
let graph: BlockGraph;
/** `inactivate` and `activate` of the toy driver, in order. */
let told: string[];
let failing: string | undefined;

beforeEach(() => {
  world = new TestWorld();
  told = [];
  failing = undefined;
  const tell = (what: string): void => {
    if (what === failing) throw new BlockError("EIO", `${what} failed`);
    told.push(what);
  };
  graph = new BlockGraph({
    drivers: [
      world.driver,
      {
        ...toyDriver,
        open: async (context): Promise<BlockDriver> =>
          Object.assign(await toyDriver.open(context), {
            inactivate: () => tell(`inactivate ${context.nodeName}`),
            activate: () => tell(`activate ${context.nodeName}`),
          }),
      },
    ],
  });
  world.file("base", toyImage({ lengthBytes: 64 * KIB }));
  world.file("top", toyImage({ lengthBytes: 64 * KIB }));
});

async function openPair(): Promise<BlockBackend> {
  const disk = await graph.open({
    driver: "toy",
    "node-name": "top",
    file: { driver: "file", filename: "top" },
    backing: {
      driver: "toy",
      "node-name": "base",
      "read-only": true,
      file: { driver: "file", filename: "base" },
    },
  });
  await disk.write(0, BYTE);
  world.takeLog();
  return disk;
}

const permissionsOf = (name: string): unknown => world.open.get(name)?.permissions;

describe("BlockGraph.inactivateAll()", () => {
  it("must flush, tell parents before children, and let go of every lock", async () => {
    const disk = await openPair();
    await graph.inactivateAll();
    expect(told).toEqual(["inactivate top", "inactivate base"]);
    const log = world.takeLog();
    const flushed = log.indexOf("top flush to disk");
    expect(flushed).toBeGreaterThan(log.findIndex((call) => call.startsWith("top write")));
    expect(permissionsOf("top")).toEqual(NOTHING);
    expect(permissionsOf("base")).toEqual(NOTHING);
    await graph.inactivateAll();
    expect(told).toHaveLength(2);
    await expect(disk.write(0, BYTE)).rejects.toMatchObject({
      code: "EBUSY",
      message: expect.stringContaining("handed over"),
    });
    await expect(disk.truncate(KIB)).rejects.toMatchObject({ code: "EBUSY" });
    await expect(graph.open("top")).rejects.toMatchObject({ code: "EBUSY" });
    await expect(graph.reopen(disk, { readOnly: true })).rejects.toMatchObject({ code: "EBUSY" });
    await disk.flush();
    await graph.close();
    expect(world.takeLog().filter((call) => /write|flush to disk/.test(call))).toEqual([]);
  });

  it.each(["inactivate top", "inactivate base", "top flush to disk"])(
    "must leave everything active when this fails: %s",
    async (what) => {
      const disk = await openPair();
      const before = permissionsOf("top");
      failing = what;
      world.hook = (call): void => {
        if (call === what) throw new BlockError("EIO", "injected");
      };
      await expect(graph.inactivateAll()).rejects.toMatchObject({ code: "EIO" });
      failing = undefined;
      world.hook = (): void => undefined;
      if (what === "inactivate base") expect(told).toEqual(["inactivate top", "activate top"]);
      expect(permissionsOf("top")).toEqual(before);
      await disk.write(KIB, BYTE);
      await disk.flush();
      await graph.inactivateAll();
      expect(permissionsOf("top")).toEqual(NOTHING);
      await graph.close();
    },
  );
});

describe("BlockGraph.activateAll()", () => {
  it("must take the locks back, then tell children before parents", async () => {
    const disk = await openPair();
    const before = [permissionsOf("top"), permissionsOf("base")];
    await graph.inactivateAll();
    told.length = 0;
    await graph.activateAll();
    expect(told).toEqual(["activate base", "activate top"]);
    expect([permissionsOf("top"), permissionsOf("base")]).toEqual(before);
    await graph.activateAll();
    expect(told).toHaveLength(2);
    await disk.write(0, BYTE);
    expect(await disk.read(0, 1)).toEqual(BYTE);
    await graph.close();
  });

  it.each(["activate top", "activate base", "lock"])(
    "must leave everything inactive and unlocked when this fails: %s",
    async (what) => {
      const disk = await openPair();
      await graph.inactivateAll();
      failing = what;
      world.hook = (call): void => {
        if (what === "lock" && call.startsWith("top reopen") && !call.includes(` 0/`)) {
          throw new BlockError("EAGAIN", "another process has the lock");
        }
      };
      const code = what === "lock" ? "EAGAIN" : "EIO";
      await expect(graph.activateAll()).rejects.toMatchObject({ code });
      expect([permissionsOf("top"), permissionsOf("base")]).toEqual([NOTHING, NOTHING]);
      await expect(disk.write(0, BYTE)).rejects.toMatchObject({ code: "EBUSY" });
      failing = undefined;
      world.hook = (): void => undefined;
      await graph.activateAll();
      await disk.write(0, BYTE);
      await graph.close();
    },
  );

  it("must close while inactive, and forget a backend that was closed meanwhile", async () => {
    const disk = await openPair();
    const other = await graph.open("base", { readOnly: true });
    await graph.inactivateAll();
    await other.close();
    await graph.activateAll();
    await disk.write(0, BYTE);
    await graph.close();
    await expect(graph.activateAll()).rejects.toMatchObject({ code: "ECLOSED" });
  });
});
