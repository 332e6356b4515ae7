import { assert, IoVector } from "@blocklayer/bytes";
import {
  type BlockDriver,
  type DriverDefinition,
  type InternalSnapshot,
  PERMISSION,
  type SnapshotControl,
  stringOption,
} from "@blocklayer/block-api";
import { describe, expect, it } from "vitest";
import { BlockGraph, snapshotKeeper } from "../src/index.js";
import { PassDriver } from "./pass-driver.js";
import { TestStore, TestWorld } from "./test-store.js";

const NEW = { name: "a", dateSeconds: 0, dateNanoseconds: 0 };

function entry(id: string, diskBytes: number): InternalSnapshot {
  return { ...NEW, id, diskBytes, vmStateBytes: 0n, vmClockNanoseconds: 0n };
}

/** A byte store that keeps snapshots, so to speak: every use of them is in the log. */
class KeepingStore extends TestStore {
  readonly snapshots: SnapshotControl;

  constructor(world: TestWorld, filename: string, readOnly: boolean) {
    super(world, filename, readOnly, { held: 3, shared: 15 });
    const says = async <T>(what: string, answer: T): Promise<T> => {
      await world.call(what);
      return answer;
    };
    this.snapshots = {
      list: () => says("list", [entry("1", 1000), entry("2", 512)]),
      create: () => says("create", entry("3", 1000)),
      apply: () => says("apply", entry("1", 1000)),
      delete: () => says("delete", entry("1", 1000)),
      readVmState: () => says("read VM state", undefined),
      writeVmState: () => says("write VM state", undefined),
    };
  }
}

function setUp(): { world: TestWorld; graph: BlockGraph } {
  const world = new TestWorld();
  world.file("disk", 1000);
  const keeping: DriverDefinition = {
    ...world.driver,
    name: "keeping",
    open: ({ options, readOnly }): BlockDriver =>
      new KeepingStore(world, stringOption(options, "filename") ?? "", readOnly),
  };
  const pass: DriverDefinition = {
    name: "pass",
    kind: "filter",
    openOptions: {},
    open({ children }) {
      assert(children.filtered !== undefined, "a filter has a child");
      return new PassDriver(children.filtered);
    },
  };
  return { world, graph: new BlockGraph({ drivers: [world.driver, keeping, pass] }) };
}

const DISK = { driver: "keeping", filename: "disk" } as const;
/** The same below two filters. */
const FILTERED = { driver: "pass", file: { driver: "pass", file: DISK } } as const;
const DISKS = [
  ["of the root", DISK],
  ["below filters", FILTERED],
] as const;

describe("BlockBackend.snapshots", () => {
  it.each(DISKS)("must be there exactly where a driver keeps some: %s", async (_, options) => {
    const { graph } = setUp();
    for (const plain of [{ driver: "file", filename: "disk" }] as const) {
      expect((await graph.open(plain)).snapshots).toBeUndefined();
      expect((await graph.open({ driver: "pass", file: plain })).snapshots).toBeUndefined();
    }
    const disk = await graph.open(options);
    expect(await disk.snapshots?.list()).toHaveLength(2);
    await graph.close();
  });

  it.each(DISKS)("must change nothing while a request is in flight: %s", async (_, options) => {
    for (const change of ["create", "apply", "delete", "write VM state"] as const) {
      const { world, graph } = setUp();
      const disk = await graph.open(options);
      const control = disk.snapshots as SnapshotControl;
      let open = (): void => undefined;
      const held = new Promise<void>((resolve) => (open = resolve));
      world.hook = (call) => (call === "disk read 0+512" ? held : undefined);
      world.takeLog();
      const reading = disk.read(0, 512);
      const changing = {
        create: () => control.create(NEW),
        apply: () => control.apply("1"),
        delete: () => control.delete("1"),
        "write VM state": () => control.writeVmState(0, IoVector.allocate(1)),
      }[change]();
      await new Promise((resolve) => setTimeout(resolve, 5));
      const late = disk.read(512, 100);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(world.takeLog().filter((call) => call !== "list")).toEqual(["disk read 0+512"]);
      open();
      await Promise.all([reading, changing, late]);
      expect(world.takeLog()).toEqual([change, "disk read 512+100"]);
      await graph.close();
    }
  });

  it.each(DISKS)(
    "apply() must hold the permission to resize for another length: %s",
    async (_, options) => {
      const { world, graph } = setUp();
      const disk = await graph.open(options);
      const keeper = snapshotKeeper(disk.root);
      expect(keeper?.driverName).toBe("keeping");
      const held: (number | undefined)[] = [];
      world.hook = (call) => {
        if (call === "apply") held.push((keeper?.permissions.held ?? 0) & PERMISSION.resize);
      };
      await disk.snapshots?.apply("1");
      await disk.snapshots?.apply("2");
      expect(held).toEqual([0, PERMISSION.resize]);
      expect((keeper?.permissions.held ?? 0) & PERMISSION.resize).toBe(0);
      await graph.close();
    },
  );

  it("must be refused on a backend that is read-only, closed, or asked for no range", async () => {
    const { world, graph } = setUp();
    const disk = await graph.open(DISK, { readOnly: true });
    const control = disk.snapshots as SnapshotControl;
    world.takeLog();
    const readOnly = { code: "EPERM" };
    await expect(control.create(NEW)).rejects.toMatchObject(readOnly);
    await expect(control.apply("1")).rejects.toMatchObject(readOnly);
    await expect(control.delete("1")).rejects.toMatchObject(readOnly);
    await expect(control.writeVmState(0, IoVector.allocate(1))).rejects.toMatchObject(readOnly);
    expect(world.takeLog()).toEqual([]);
    const none = control.readVmState(-1, IoVector.allocate(1));
    await expect(none).rejects.toMatchObject({ code: "EINVAL" });
    await control.readVmState(0, IoVector.allocate(0));
    await control.readVmState(0, IoVector.allocate(1));
    expect(world.takeLog()).toEqual(["read VM state"]);
    await disk.close();
    await expect(control.list()).rejects.toMatchObject({ code: "ECLOSED" });
    await graph.close();
  });

  it.each(DISKS)("a flush must cover VM state that was written: %s", async (_, options) => {
    const { world, graph } = setUp();
    const disk = await graph.open(options);
    await disk.flush();
    world.takeLog();
    await disk.snapshots?.writeVmState(0, IoVector.allocate(1));
    await disk.flush();
    expect(world.takeLog().length).toBeGreaterThan(1);
    await graph.close();
  });
});
