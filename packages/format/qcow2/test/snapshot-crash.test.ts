/**
 * Every crash of a change of snapshots: the image is as before or as after, and its snapshots too; what is written
 * then touches none of them. What a check finds is leaks, and COPIED flags that it corrects.
 */
import { createHash } from "node:crypto";
import { directChild } from "@blocklayer/block-api";
import { type CrashState, crashStates, SimDisk, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { contentOf, DATE, filled, snapshotContent } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const SUBSETS = Number(process.env["BLOCKLAYER_CRASH_SUBSETS"] ?? 12);
const RUNS = Number(process.env["BLOCKLAYER_CRASH_RUNS"] ?? 1);

/** Small caches: tables go to the file between the steps of a change. */
const CACHES = { "l2-cache-size": "4k", "l2-cache-entry-size": 512 } as const;

interface Shape {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** L1 tables of more than a sector, refcount blocks to be added. */
  readonly sizeBytes: number;
}

const SHAPES: readonly Shape[] = [
  { name: "512 B, 64 bits", options: { cluster_size: 512, refcount_bits: 64 }, sizeBytes: 2 ** 21 },
  { name: "512 B, 4 bits", options: { cluster_size: 512, refcount_bits: 4 }, sizeBytes: 65_536 },
  { name: "1 KiB, version 2", options: { cluster_size: 1024, compat: "v2" }, sizeBytes: 2 ** 18 },
];

const CHANGES: Readonly<Record<string, (disk: Qcow2Driver) => Promise<unknown>>> = {
  "create()": (disk) => disk.snapshots.create({ name: "new", ...DATE }),
  "create() with VM state": (disk) =>
    disk.snapshots.create({ name: "new", ...DATE, vmStateBytes: 3000 }),
  "apply()": (disk) => disk.snapshots.apply("b"),
  "apply() of another length": (disk) => disk.snapshots.apply("a"),
  "delete()": (disk) => disk.snapshots.delete("b"),
  "delete() of the first": (disk) => disk.snapshots.delete("a"),
};

/** An image with two snapshots, compressed data, VM state, and a disk that shares some of all. */
async function prepare({ options, sizeBytes }: Shape): Promise<Uint8Array> {
  const memory = await createInMemory({ ...options, size: sizeBytes });
  const disk = await openQcow2({ file: directChild(memory) });
  const clusterSize = options["cluster_size"] as number;
  await disk.writev(0, filled(24 * clusterSize, 1));
  await disk.writev(32 * clusterSize, filled(3 * clusterSize, 2), { compressed: true });
  await disk.snapshots.create({ name: "a", ...DATE });
  if (options["compat"] !== "v2") await disk.truncate(sizeBytes + 100 * clusterSize);
  await disk.writev(10 * clusterSize, filled(8 * clusterSize, 3));
  await disk.snapshots.writeVmState(0, filled(3000, 4));
  await disk.snapshots.create({ name: "b", ...DATE });
  await disk.writev(14 * clusterSize, filled(6 * clusterSize, 5));
  await disk.writev(33 * clusterSize, filled(clusterSize, 6));
  await disk.close();
  return memory.bytes.slice();
}

/** All that a user can see: the disk, its VM state, and the same of each snapshot. */
async function seen(file: SimDisk): Promise<string> {
  const disk = await openQcow2({ file: directChild(file), readOnly: true });
  const hash = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
  const parts = [`disk ${disk.lengthBytes} ${hash(await contentOf(disk))}`];
  for (const { id, name } of await disk.snapshots.list()) {
    const bytes = await snapshotContent(directChild(file), { "snapshot.id": id });
    parts.push(`${id} ${name} ${bytes.length} ${hash(bytes)}`);
  }
  await disk.close();
  return parts.join("; ");
}

/** Overwrites the whole disk, as a guest would go on after the crash: no snapshot may change. */
async function overwrite(file: SimDisk): Promise<void> {
  const disk = await openQcow2({ file: directChild(file) });
  const { lengthBytes } = disk;
  for (let at = 0; at < lengthBytes; at += 2 ** 16) {
    await disk.writev(at, filled(Math.min(2 ** 16, lengthBytes - at), 0xee));
  }
  await disk.close();
}

async function inspect(
  state: CrashState,
  before: string,
  after: string,
  mayHaveFlags: boolean,
): Promise<string> {
  const file = directChild(state.open());
  const { findings } = await checkQcow2(file, await readHeader(file));
  const wrong = findings.filter(
    ({ severity, message }) =>
      severity !== "leak" && !(mayHaveFlags && message.startsWith("ERROR OFLAG_COPIED")),
  );
  if (wrong.length > 0) throw new Error(`${state.describe()}\n${JSON.stringify(wrong)}`);
  const found = await seen(state.open());
  if (found !== before && found !== after) {
    throw new Error(`${state.describe()}\n${found}\nis neither\n${before}\nnor\n${after}`);
  }
  return found;
}

describe("a crash while snapshots change", () => {
  const cases = SHAPES.flatMap((shape) =>
    Object.entries(CHANGES).map(
      ([name, change]) => [`${name}, ${shape.name}`, shape, change] as const,
    ),
  );
  test.each(cases)(
    "must leave the image before or after, and repairable: %s [C13]",
    { timeout: 120_000 * (1 + RUNS) },
    async (name, shape, change) => {
      const image = await prepare(shape);
      const before = await seen(new SimDisk({ content: image.slice() }));
      const trace = new Trace();
      const file = new SimDisk({ content: image, trace });
      const disk = await openQcow2({ file: directChild(file), options: CACHES });
      await change(disk);
      const done = trace.position;
      await disk.close();
      const after = await seen(new SimDisk({ content: file.bytes }));
      expect(await inspectEnd(file.bytes)).toEqual([]);
      let states = 0;
      const found = new Set<string>();
      for (let run = 0; run < RUNS; run++) {
        for (const state of crashStates(trace, { seed: run, maxSubsets: SUBSETS, tear: true })) {
          const one = await inspect(state, before, after, !name.startsWith("apply"));
          // Resolved means durable.
          if (state.position >= done) expect(one).toBe(after);
          found.add(one);
          if (states++ % 8 === 0) await goOn(state);
        }
      }
      // Each state was really met, so neither "always before" nor "always after" passes.
      expect(found).toEqual(new Set([before, after]));
      console.log(`crash states: ${states} (snapshots, ${name})`);
    },
  );
});

describe("a crash while a snapshot is made of what was not flushed", () => {
  test.each(SHAPES)(
    "must keep in it what was written, and show old or new on the disk: $name",
    { timeout: 60_000 },
    async (shape) => {
      const clusterSize = shape.options["cluster_size"] as number;
      const image = await prepare(shape);
      const old = await diskOf(new SimDisk({ content: image.slice() }));
      const trace = new Trace();
      const file = new SimDisk({ content: image, trace });
      const disk = await openQcow2({ file: directChild(file), options: CACHES });
      // Over shared clusters, over own ones, and where nothing was.
      await disk.writev(5 * clusterSize, filled(4 * clusterSize, 9));
      await disk.writev(15 * clusterSize, filled(2 * clusterSize, 9));
      await disk.writev(40 * clusterSize, filled(512, 9));
      await disk.discard(20 * clusterSize, 2 * clusterSize);
      const written = await contentOf(disk);
      await disk.snapshots.create({ name: "new", ...DATE });
      await disk.close();
      let withSnapshot = 0;
      let states = 0;
      for (const state of crashStates(trace, { seed: 7, maxSubsets: SUBSETS, tear: true })) {
        states++;
        const found = await diskOf(state.open());
        for (let at = 0; at < found.length; at += 512) {
          const sector = Buffer.from(found.subarray(at, at + 512));
          const isOld = sector.equals(old.subarray(at, at + 512));
          if (!isOld && !sector.equals(written.subarray(at, at + 512))) {
            throw new Error(`${state.describe()}: a third value at ${at}`);
          }
        }
        const options = { "snapshot.name": "new" };
        const shown = await snapshotContent(directChild(state.open()), options).catch(() => null);
        if (shown === null) continue;
        withSnapshot++;
        expect(Buffer.compare(shown, written)).toBe(0);
      }
      expect(withSnapshot).toBeGreaterThan(2);
      expect(states - withSnapshot).toBeGreaterThan(10);
    },
  );
});

async function diskOf(file: SimDisk): Promise<Uint8Array> {
  const disk = await openQcow2({ file: directChild(file), readOnly: true });
  const bytes = await contentOf(disk);
  await disk.close();
  return bytes;
}

/** What a check finds at the end: nothing. */
async function inspectEnd(bytes: Uint8Array): Promise<readonly string[]> {
  const file = directChild(new SimDisk({ content: bytes }));
  return (await checkQcow2(file, await readHeader(file))).findings.map(({ message }) => message);
}

async function goOn(state: CrashState): Promise<void> {
  const file = state.open();
  const old = await seen(file);
  await overwrite(file);
  const now = await seen(file);
  const snapshots = (text: string): string => text.slice(text.indexOf(";"));
  if (snapshots(old) !== snapshots(now)) {
    throw new Error(`${state.describe()}: writing on changed a snapshot\n${old}\n${now}`);
  }
}
