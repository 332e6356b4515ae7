/** A qcow2 disk over blkdebug over memory, in a graph: what the tests of parked and failed requests work on. */
import { type DebugControl, parseOptions, PERMISSION } from "@blocklayer/block-api";
import { type BlockBackend, BlockGraph, type NodeOptions } from "@blocklayer/block-graph";
import { memoryDriver } from "@blocklayer/memory";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { blkdebugDriver } from "../../src/index.js";

export interface DebugDisk extends AsyncDisposable {
  readonly graph: BlockGraph;
  readonly disk: BlockBackend;
  readonly debug: DebugControl;
  /** Reads a range, which must hold one byte again and again; returns it, or `undefined`. */
  patternAt(offset: number, lengthBytes: number): Promise<number | undefined>;
  /** Corruptions and leaks. */
  faults(): Promise<readonly [number, number]>;
}

export interface DebugDiskOptions {
  readonly create?: Readonly<Record<string, unknown>>;
  readonly open?: Readonly<Record<string, unknown>>;
  readonly debug?: Readonly<Record<string, unknown>>;
}

/** @param lengthBytes - of the disk */
export async function qcow2Disk(
  lengthBytes: number,
  options: DebugDiskOptions = {},
): Promise<DebugDisk> {
  const graph = new BlockGraph({ drivers: [memoryDriver, rawDriver, qcow2Driver, blkdebugDriver] });
  await graph.add({ driver: "memory", "node-name": "store" });
  const { consistentRead, write, resize } = PERMISSION;
  const permissions = { held: consistentRead | write | resize, shared: consistentRead };
  const store = await graph.open("store", { permissions });
  const given = { size: lengthBytes, ...options.create };
  await qcow2Driver.create?.({
    file: store.asChild(),
    options: parseOptions(qcow2Driver.createOptions ?? {}, given, "qcow2"),
  });
  await store.close();
  const file = { driver: "blkdebug", "node-name": "debug", file: "store", ...options.debug };
  const node: NodeOptions = { driver: "qcow2", file, ...options.open };
  const disk = await graph.open(node);
  const debug = graph.node("debug")?.driver.debug;
  if (debug === undefined) throw new Error("blkdebug parks requests");
  return {
    graph,
    disk,
    debug,
    async patternAt(offset, length) {
      const bytes = await disk.read(offset, length);
      return bytes.every((byte) => byte === bytes[0]) ? bytes[0] : undefined;
    },
    async faults() {
      await disk.flush();
      const found = await disk.root.driver.check?.();
      return [found?.corruptions ?? -1, found?.leaks ?? -1];
    },
    async [Symbol.asyncDispose]() {
      debug.resumeAll();
      await graph.close();
    },
  };
}

/** One byte again and again. */
export function filled(lengthBytes: number, byte: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(byte);
}
