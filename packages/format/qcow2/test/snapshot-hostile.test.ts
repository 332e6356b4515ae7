/** Snapshots that lie: changes refuse them before anything is written, or end with a BlockError, soon. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, IoVector, viewOf, writeU64 } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { mutate } from "./support/mutate.js";
import { Rng } from "./support/rng.js";
import { contentOf, DATE, filled, findingsIn, snapshotContent } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const RUNS = 50 * Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 1);
/** A change that takes this long does not end. */
const MAX_STEP_MS = 20_000;

/** Two snapshots, compressed data and VM state. */
async function victim(given: Readonly<Record<string, unknown>> = {}): Promise<Uint8Array> {
  const memory = await createInMemory({ size: 2 ** 18, cluster_size: 512, ...given });
  const disk = await openQcow2({ file: directChild(memory) });
  await disk.writev(0, filled(40_000, 1));
  await disk.writev(65_536, filled(4096, 2), { compressed: true });
  await disk.snapshots.create({ name: "a", ...DATE });
  await disk.writev(10_000, filled(30_000, 3));
  await disk.snapshots.writeVmState(0, filled(2000, 4));
  await disk.snapshots.create({ name: "b", ...DATE });
  await disk.writev(0, filled(20_000, 5));
  await disk.close();
  return memory.bytes.slice();
}

/** Where the entry of snapshot `b` lies: behind 40 + 24 + 2 bytes of `a`, padded. */
const SECOND_ENTRY = 72;

interface Lie {
  readonly name: string;
  readonly clusterSize?: number;
  readonly lie: (bytes: Uint8Array, entry: number) => void;
  readonly rule: RegExp;
  /** Operations that meet it. */
  readonly meets: readonly (keyof typeof USES)[];
}

const USES = {
  apply: (disk: Qcow2Driver) => disk.snapshots.apply("b"),
  delete: (disk: Qcow2Driver) => disk.snapshots.delete("b"),
  create: (disk: Qcow2Driver) => disk.snapshots.create({ name: "c", ...DATE }),
  list: (disk: Qcow2Driver) => disk.snapshots.list(),
} as const;

const ALL = ["apply", "delete", "create", "list"] as const;

const LIES: readonly Lie[] = [
  {
    name: "an L1 table that starts in a cluster",
    lie: (bytes, entry) => viewOf(bytes).setUint32(entry + 4, 0x1234),
    rule: /not that of a cluster/,
    meets: ["apply", "delete"],
  },
  {
    name: "an L1 table beyond 2^53",
    lie: (bytes, entry) => viewOf(bytes).setUint32(entry, 0xffff_0000),
    rule: /not that of a cluster/,
    meets: ["apply", "delete"],
  },
  {
    name: "an L1 table that is too long",
    lie: (bytes, entry) => viewOf(bytes).setUint32(entry + 8, 0xffff_ffff),
    rule: /longer than 32 MiB/,
    meets: ["apply", "delete"],
  },
  {
    name: "an L1 table behind the end of the file",
    lie: (bytes, entry) => writeU64(viewOf(bytes), entry, 2 ** 40),
    rule: /behind the end of the file/,
    meets: ["apply", "delete"],
  },
  {
    name: "a disk beyond 2^53",
    lie: (bytes, entry) => viewOf(bytes).setUint32(entry + 48, 0xffff_ffff),
    rule: /longer than 2\^53/,
    meets: ["apply", "delete"],
  },
  {
    name: "a disk that needs a huge L1 table",
    lie: (bytes, entry) => writeU64(viewOf(bytes), entry + 48, 2 ** 50),
    rule: /longer than 32 MiB/,
    meets: ["apply", "delete"],
  },
  {
    name: "a disk with half a sector",
    lie: (bytes, entry) => writeU64(viewOf(bytes), entry + 48, 1000),
    rule: /end with a sector/,
    meets: ["apply", "delete"],
  },
  {
    name: "an L2 table that starts in a cluster",
    clusterSize: 1024,
    lie: (bytes, entry) => setL1Entry(bytes, entry, 1536),
    rule: /0x600 as an L2 table, which is not that of a cluster/,
    meets: ["apply", "delete"],
  },
  {
    name: "an L2 table behind the end of the file",
    lie: (bytes, entry) => setL1Entry(bytes, entry, 2 ** 48),
    rule: /behind the end/,
    meets: ["apply", "delete"],
  },
  {
    name: "the refcount table as an L2 table",
    lie: (bytes, entry) => setL1Entry(bytes, entry, 512),
    rule: /names it as a table or data of the guest/,
    meets: ["delete"],
  },
  {
    name: "data that starts in a cluster",
    clusterSize: 1024,
    lie: (bytes, entry) => setL2Entry(bytes, entry, 1536),
    rule: /0x600: no cluster/,
    meets: ["apply", "delete"],
  },
  {
    name: "the refcount table as data",
    lie: (bytes, entry) => setL2Entry(bytes, entry, 512),
    rule: /names it as a table or data of the guest/,
    meets: ["delete"],
  },
  {
    name: "data behind the end of the file",
    lie: (bytes, entry) => setL2Entry(bytes, entry, 2 ** 52),
    rule: /behind the end of the file/,
    meets: ["apply", "delete"],
  },
  {
    name: "data whose refcount is 0",
    lie: (bytes, entry) => setL2Entry(bytes, entry, bytes.length - 512),
    rule: /more often than its refcount of 0/,
    meets: ["apply", "delete"],
  },
  {
    name: "an entry with too much extra data",
    lie: (bytes, entry) => viewOf(bytes).setUint32(entry + 36, 1025),
    rule: /entry 1 has too much extra data/,
    meets: ALL,
  },
];

function l1Of(bytes: Uint8Array, entry: number): number {
  return u32At(bytes, entry + 4);
}

/** 0 where there is nothing. */
function u32At(bytes: Uint8Array, at: number): number {
  return at + 4 > bytes.length ? 0 : viewOf(bytes).getUint32(at);
}

function setL1Entry(bytes: Uint8Array, entry: number, value: number): void {
  writeU64(viewOf(bytes), l1Of(bytes, entry), value);
}

/** Of the first L2 table. */
function setL2Entry(bytes: Uint8Array, entry: number, value: number): void {
  const l2 = viewOf(bytes).getUint32(l1Of(bytes, entry) + 4);
  writeU64(viewOf(bytes), l2, value);
}

async function entryAt(bytes: Uint8Array): Promise<number> {
  const header = await readHeader(directChild(openMemory({ bytes })));
  return header.snapshotsOffset + SECOND_ENTRY;
}

describe("a snapshot that lies", () => {
  test.each(LIES)("must be refused before anything is written: $name", async (one) => {
    const { clusterSize = 512 } = one;
    const sound = await victim({ cluster_size: clusterSize });
    // One more cluster, which nothing counts.
    const bytes = new Uint8Array(clusterSize * (Math.ceil(sound.length / clusterSize) + 1));
    bytes.set(sound);
    one.lie(bytes, await entryAt(bytes));
    for (const name of one.meets) {
      const memory = openMemory({ bytes: bytes.slice() });
      const disk = await openQcow2({ file: directChild(memory) });
      const error = await USES[name](disk).then(
        () => new Error(`${name} did not meet it`),
        (failure: unknown) => failure,
      );
      if (!(error instanceof CorruptImageError)) throw error;
      expect(error.message).toMatch(one.rule);
      expect(error.hostOffset).toBeTypeOf("number");
      expect(disk.statistics()["failed"]).toBe(false);
      await disk.close();
      expect(Buffer.compare(memory.bytes.slice(), bytes)).toBe(0);
    }
  });

  test("must not take longer when one L2 table is named by every L1 entry", async () => {
    const bytes = await victim({ refcount_bits: 64 });
    const header = await readHeader(directChild(openMemory({ bytes })));
    // A million entries, all the same table: a number for each, and one walk.
    const count = 2 ** 20;
    const at = Math.ceil(bytes.length / 512) * 512;
    const big = new Uint8Array(at + count * 8);
    big.set(bytes);
    const view = viewOf(big);
    const l2 = view.getUint32(header.l1TableOffset + 4);
    for (let i = 0; i < count; i++) view.setUint32(at + i * 8 + 4, l2);
    const entry = header.snapshotsOffset + SECOND_ENTRY;
    writeU64(view, entry, at);
    view.setUint32(entry + 8, count);
    const disk = await openQcow2({ file: directChild(openMemory({ bytes: big })) });
    const start = performance.now();
    await expect(disk.snapshots.delete("b")).rejects.toThrow(/more often than its refcount/);
    await expect(disk.snapshots.apply("b")).rejects.toThrow(/more often than its refcount/);
    expect(performance.now() - start).toBeLessThan(MAX_STEP_MS);
    await disk.close();
  });

  test("must name an L2 table that names itself, without end", async () => {
    const bytes = await victim();
    const entry = await entryAt(bytes);
    const l2 = viewOf(bytes).getUint32(l1Of(bytes, entry) + 4);
    for (let i = 0; i < 64; i++) writeU64(viewOf(bytes), l2 + i * 8, l2);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    await expect(disk.snapshots.delete("b")).rejects.toBeInstanceOf(CorruptImageError);
    await disk.close();
  });

  test("must be one of 65536 at most", async () => {
    const sound = await victim();
    // Entries of 40 bytes without extra data, as version 2 allows them.
    const at = Math.ceil(sound.length / 512) * 512;
    const bytes = new Uint8Array(at + 65_536 * 40);
    bytes.set(sound);
    viewOf(bytes).setUint32(60, 65_536);
    writeU64(viewOf(bytes), 64, at);
    const memory = openMemory({ bytes: bytes.slice() });
    const disk = await openQcow2({ file: directChild(memory) });
    expect(await disk.snapshots.list()).toHaveLength(65_536);
    const made = disk.snapshots.create({ name: "c", ...DATE });
    await expect(made).rejects.toMatchObject({ code: "EFBIG" });
    await disk.close();
    expect(Buffer.compare(memory.bytes.slice(), bytes)).toBe(0);
  });
});

/** Lets nothing but a BlockError escape, and nothing take for ever. */
async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("the change hangs")), MAX_STEP_MS);
  });
  try {
    return await Promise.race([work(), late]);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** Breaks a table of a snapshot: its entry, its L1 table, or an L2 table. */
function mutateSnapshot(bytes: Uint8Array, entry: number, rng: Rng): void {
  const l1 = l1Of(bytes, entry);
  const l2 = u32At(bytes, l1 + 4);
  const [start, length] = rng.pick([
    [entry, 66],
    [l1, 64],
    [l2, 512],
  ] as const);
  const at = start + rng.below(length);
  if (at < bytes.length) bytes[at] = rng.below(2) === 0 ? rng.below(256) : 1 << rng.below(8);
}

async function abuse(disk: Qcow2Driver, rng: Rng): Promise<void> {
  for (let i = 0; i < 8; i++) {
    const which = rng.pick(["a", "b", "1", "2", "c"]);
    switch (rng.below(6)) {
      case 0:
        await attempt(() =>
          disk.snapshots.create({ name: "c", ...DATE, vmStateBytes: rng.below(2) }),
        );
        break;
      case 1:
        await attempt(() => disk.snapshots.apply(which));
        break;
      case 2:
        await attempt(() => disk.snapshots.delete(which));
        break;
      case 3:
        await attempt(() => disk.snapshots.writeVmState(rng.below(4096), filled(700, 7)));
        break;
      case 4:
        await attempt(() => disk.snapshots.readVmState(0, IoVector.allocate(2000)));
        break;
      default: {
        const length = Math.min(disk.lengthBytes, 8192);
        if (length > 0) await attempt(async () => disk.writev(0, filled(length, 8)));
      }
    }
  }
  await attempt(() => disk.snapshots.list());
  await attempt(() => disk.check());
}

describe("broken images with snapshots", () => {
  test.each([
    ["512 B", {}],
    ["64 bits", { refcount_bits: 64 }],
    ["2 bits", { refcount_bits: 4, cluster_size: 1024 }],
    ["version 2", { compat: "v2", cluster_size: 4096 }],
  ])("must let only a BlockError escape: %s", { timeout: 600_000 }, async (_, options) => {
    const sound = await victim(options);
    const entry = await entryAt(sound);
    let opened = 0;
    let refused = 0;
    for (let seed = 0; seed < RUNS; seed++) {
      const rng = new Rng(seed * 31 + 7);
      const bytes = rng.below(3) === 0 ? mutate(sound, rng) : sound.slice();
      for (let i = rng.below(3); i >= 0; i--) mutateSnapshot(bytes, entry, rng);
      try {
        const memory = openMemory({ bytes });
        const file = directChild(memory);
        for (const id of ["1", "2"]) {
          const options = { "snapshot.id": id };
          const shown = await attempt(async () => {
            const view = await openQcow2({ file, readOnly: true, options });
            if (view.lengthBytes < 2 ** 22) await contentOf(view);
            await view.close();
            return true;
          });
          if (shown === undefined) refused++;
        }
        const disk = await attempt(() => openQcow2({ file }));
        if (disk === undefined) continue;
        opened++;
        await abuse(disk, rng);
        await attempt(() => disk.close());
        await attempt(async () => void (await findingsIn(memory.bytes.slice())));
      } catch (cause) {
        throw new Error(`seed ${seed}`, { cause });
      }
    }
    expect(opened).toBeGreaterThan(RUNS / 2);
    expect(refused).toBeGreaterThan(RUNS / 10);
  });

  test("must be told from sound ones: the victim itself is sound", async () => {
    const bytes = await victim();
    expect(await findingsIn(bytes)).toEqual([]);
    const file = directChild(openMemory({ bytes }));
    expect((await snapshotContent(file, { snapshot: "a" }))[0]).toBe(1);
  });
});
