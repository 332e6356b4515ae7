/** Random requests and changes of snapshots, against several byte arrays: the disk, and one for each snapshot. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { openQcow2, type Qcow2Driver } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { contentOf, DATE, findingsIn, snapshotContent } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const RUNS = Number(process.env["BLOCKLAYER_MODEL_RUNS"] ?? 1);

interface Shape {
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly compat: "v2" | "v3";
  readonly hasBacking: boolean;
  readonly extendedL2?: boolean;
}

const SHAPES: readonly Shape[] = [
  { clusterSize: 512, refcountBits: 64, compat: "v3", hasBacking: false },
  { clusterSize: 512, refcountBits: 1, compat: "v3", hasBacking: true },
  { clusterSize: 512, refcountBits: 16, compat: "v2", hasBacking: false },
  { clusterSize: 1024, refcountBits: 2, compat: "v3", hasBacking: false },
  { clusterSize: 1024, refcountBits: 4, compat: "v3", hasBacking: true },
  { clusterSize: 4096, refcountBits: 8, compat: "v3", hasBacking: true },
  { clusterSize: 4096, refcountBits: 16, compat: "v2", hasBacking: true },
  { clusterSize: 65_536, refcountBits: 16, compat: "v3", hasBacking: true },
  { clusterSize: 65_536, refcountBits: 32, compat: "v3", hasBacking: false },
  { clusterSize: 2 ** 21, refcountBits: 16, compat: "v3", hasBacking: false },
  { clusterSize: 16_384, refcountBits: 8, compat: "v3", hasBacking: true, extendedL2: true },
  { clusterSize: 65_536, refcountBits: 16, compat: "v3", hasBacking: false, extendedL2: true },
];

/** What a disk or a snapshot holds. */
interface Held {
  bytes: Uint8Array;
  vmState: Uint8Array;
}

interface Kept extends Held {
  readonly id: string;
}

/** One image and what it should hold. */
class World {
  readonly shape: Shape;
  readonly random: Random;
  readonly image: MemoryDriver;
  readonly base: MemoryDriver | undefined;
  disk!: Qcow2Driver;
  now: Held;
  kept: Kept[] = [];
  /** Snapshots that were made. */
  made = 0;

  constructor(shape: Shape, random: Random, image: MemoryDriver, base: MemoryDriver | undefined) {
    this.shape = shape;
    this.random = random;
    this.image = image;
    this.base = base;
    const bytes = new Uint8Array(shape.clusterSize * 40);
    if (base !== undefined) bytes.set(base.bytes.slice(0, bytes.length));
    this.now = { bytes, vmState: new Uint8Array(shape.clusterSize * 3) };
  }

  async open(): Promise<void> {
    const { base } = this;
    this.disk = await openQcow2({
      file: directChild(this.image),
      options: { "l2-cache-size": "4k", "l2-cache-entry-size": 512, "overlap-check": "all" },
      ...(base === undefined ? {} : { backing: directChild(base) }),
    });
  }

  /** The disk and every snapshot are what they should be, and a check finds nothing. */
  async compare(): Promise<void> {
    await this.disk.flushToOs();
    expectEqual(await findingsIn(this.image.bytes.slice()), []);
    expectSame(await contentOf(this.disk), this.now.bytes);
    const state = new Uint8Array(this.now.vmState.length);
    await this.disk.snapshots.readVmState(0, IoVector.of(state));
    expectSame(state, this.now.vmState);
    const listed = await this.disk.snapshots.list();
    expectEqual(
      listed.map(({ id }) => id),
      this.kept.map(({ id }) => id),
    );
    const backing = this.base === undefined ? undefined : directChild(this.base);
    for (const { id, bytes } of this.kept) {
      const options = { "snapshot.id": id };
      expectSame(await snapshotContent(directChild(this.image), options, backing), bytes);
    }
  }

  async request(): Promise<void> {
    const { random, disk, shape } = this;
    const { bytes } = this.now;
    const { clusterSize } = shape;
    const size = bytes.length;
    const unit = random.below(2) === 0 ? clusterSize : 512;
    const offset = Math.floor(random.below(size) / unit) * unit;
    const length = Math.min(size - offset, unit * (1 + random.below(6)));
    const value = 1 + random.below(255);
    switch (random.below(7)) {
      case 0:
      case 1:
        await disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value)));
        bytes.fill(value, offset, offset + length);
        break;
      case 2:
      case 3: {
        const start = offset - (offset % clusterSize);
        const end = Math.min(size, start + clusterSize * (1 + random.below(3)));
        await disk.writev(start, IoVector.of(new Uint8Array(end - start).fill(value)), {
          compressed: true,
        });
        bytes.fill(value, start, end);
        break;
      }
      case 4:
        await disk.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
        bytes.fill(0, offset, offset + length);
        break;
      case 5: {
        if (shape.compat === "v2" && shape.hasBacking) break;
        const start = Math.ceil(offset / clusterSize) * clusterSize;
        const end = offset + length;
        const stop = end === size ? end : end - (end % clusterSize);
        await disk.discard(offset, length);
        if (stop > start) bytes.fill(0, start, stop);
        break;
      }
      default: {
        const { vmState } = this.now;
        const at = random.below(vmState.length);
        const part = Math.min(vmState.length - at, 1 + random.below(2 * clusterSize));
        await disk.snapshots.writeVmState(at, IoVector.of(new Uint8Array(part).fill(value)));
        vmState.fill(value, at, at + part);
      }
    }
  }

  async change(): Promise<void> {
    const { random, kept } = this;
    const kind = random.below(8);
    const one = kept[random.below(Math.max(1, kept.length))];
    if (one === undefined || kind < 3) return await this.create();
    if (kind < 5) {
      if (await this.counted(() => this.disk.snapshots.apply({ id: one.id })))
        this.now = copyOf(one);
    } else if (kind < 7) {
      await this.disk.snapshots.delete({ id: one.id });
      this.kept = kept.filter((other) => other !== one);
    } else await this.grow();
  }

  async create(): Promise<void> {
    const { random, now } = this;
    const withState = random.below(2) === 0;
    const made = await this.counted(() =>
      this.disk.snapshots.create({
        name: `n${random.below(3)}`,
        ...DATE,
        vmStateBytes: withState ? now.vmState.length : 0,
      }),
    );
    if (made === undefined) return;
    this.kept.push({ ...copyOf(now), id: made.id });
    this.made++;
    if (withState) now.vmState.fill(0);
  }

  /** Refcounts may be too narrow for the change: then nothing is changed. */
  async counted<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      const isFull = error instanceof BlockError && /refcount_bits/.test(error.message);
      if (!isFull || this.shape.refcountBits >= 8) throw error;
      return undefined;
    }
  }

  async grow(): Promise<void> {
    const { now, shape } = this;
    if (shape.compat === "v2" || now.bytes.length > 200 * shape.clusterSize) return;
    const length = now.bytes.length + 512 * (1 + this.random.below(64 * (shape.clusterSize / 512)));
    const per = shape.clusterSize ** 2 / 8;
    const isCrossing = Math.ceil(length / per) > Math.ceil(now.bytes.length / per);
    await this.disk.truncate(length, { zeroWrite: true });
    const bytes = new Uint8Array(length);
    bytes.set(now.bytes);
    now.bytes = bytes;
    if (isCrossing) now.vmState.fill(0);
  }
}

function copyOf({ bytes, vmState }: Held): Held {
  return { bytes: bytes.slice(), vmState: vmState.slice() };
}

function expectEqual(found: readonly string[], expected: readonly string[]): void {
  expect(found).toEqual(expected);
}

function expectSame(found: Uint8Array, expected: Uint8Array): void {
  expect(found.length).toBe(expected.length);
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  expect(`byte ${at}: ${found[at]}`).toBe(`byte ${at}: ${expected[at]}`);
}

async function makeWorld(shape: Shape, seed: number): Promise<World> {
  const { clusterSize, refcountBits, compat, hasBacking } = shape;
  const random = new Random(seed);
  const image = await createInMemory({
    size: clusterSize * 40,
    cluster_size: clusterSize,
    refcount_bits: refcountBits,
    compat,
    extended_l2: shape.extendedL2 === true,
    ...(hasBacking ? { backing_file: "base", backing_fmt: "raw" } : {}),
  });
  // Longer than the disk: its end must not show as VM state, nor when the disk grows.
  const base = openMemory({ bytes: random.bytes(clusterSize * 50) });
  return new World(shape, random, image, hasBacking ? base : undefined);
}

describe("snapshots against byte arrays", () => {
  for (const shape of SHAPES) {
    const { clusterSize, refcountBits, compat, hasBacking } = shape;
    const name = `${clusterSize} B, ${refcountBits} bits, ${compat}${hasBacking ? ", backing" : ""}${shape.extendedL2 === true ? ", subclusters" : ""}`;
    test(`must each keep what they are to keep: ${name}`, { timeout: 60_000 * RUNS }, async () => {
      let made = 0;
      for (let run = 0; run < RUNS; run++) {
        const world = await makeWorld(shape, run * 7919 + clusterSize + refcountBits);
        const isLarge = clusterSize >= 65_536;
        for (let round = 0; round < (isLarge ? 1 : 2); round++) {
          await world.open();
          const changes = isLarge ? (clusterSize > 65_536 ? 3 : 8) : 12;
          for (let i = 0; i < changes; i++) {
            for (let k = 0; k < (isLarge ? 4 : 8); k++) await world.request();
            await world.change();
            await world.compare();
          }
          await world.disk.close();
        }
        made += world.made;
      }
      expect(made > 0).toBe(refcountBits > 1);
    });
  }
});
