import { createHash } from "node:crypto";
import { directChild, parseOptions, type SnapshotSelector } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import {
  checkQcow2,
  createOptions,
  createQcow2,
  openQcow2,
  type Qcow2Driver,
  readHeader,
} from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { contentOf, DATE, filled, findingsIn, snapshotContent } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const SIZE = 256 * 1024;

async function open(
  memory: MemoryDriver,
  options: Readonly<Record<string, unknown>> = {},
): Promise<Qcow2Driver> {
  return openQcow2({ file: directChild(memory), options });
}

function make(given: Readonly<Record<string, unknown>> = {}): Promise<MemoryDriver> {
  return createInMemory({ size: SIZE, cluster_size: 4096, ...given });
}

/** Runs work on an image, closes it, and expects a check to find nothing. */
async function work(
  memory: MemoryDriver,
  what: (disk: Qcow2Driver) => Promise<void>,
  options: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const disk = await open(memory, options);
  try {
    await what(disk);
  } finally {
    await disk.close();
  }
  expect(await findingsIn(memory.bytes.slice())).toEqual([]);
}

async function names(disk: Qcow2Driver): Promise<readonly string[]> {
  return (await disk.snapshots.list()).map(({ id, name }) => `${id}:${name}`);
}

describe("snapshots.create()", () => {
  test("must keep the disk as it is, whatever is written later", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(20_000, 1));
      await disk.writev(65_536, filled(8192, 7), { compressed: true });
      const before = await contentOf(disk);
      await disk.snapshots.create({ name: "one", ...DATE });
      await disk.writev(4096, filled(SIZE - 4096, 2));
      await disk.discard(0, 4096);
      const after = await contentOf(disk);
      expect(after[5000]).toBe(2);
      expect(Buffer.compare(await contentOf(disk), after)).toBe(0);
      await disk.flushToOs();
      const view = await snapshotContent(directChild(memory), { snapshot: "one" });
      expect(Buffer.compare(view, before)).toBe(0);
    });
  });

  test("must record what it is told, to the bit, and the length of the disk", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      const told = {
        ...DATE,
        name: "é ü",
        vmClockNanoseconds: 2n ** 63n + 12_345n,
        icount: 2n ** 60n + 1n,
      };
      const made = await disk.snapshots.create(told);
      expect(made).toEqual({ ...told, id: "1", diskBytes: SIZE, vmStateBytes: 0n });
      expect(await disk.snapshots.list()).toEqual([made]);
      await disk.snapshots.create({ name: "none", ...DATE, icount: -1n });
      expect((await disk.snapshots.list())[1]).not.toHaveProperty("icount");
    });
  });

  test("must number on from the greatest id, not fill gaps", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      for (const name of ["a", "b", "c"]) await disk.snapshots.create({ name, ...DATE });
      await disk.snapshots.delete("2");
      await disk.snapshots.create({ name: "d", ...DATE });
      expect(await names(disk)).toEqual(["1:a", "3:c", "4:d"]);
    });
  });

  test.each([
    ["a long name", { name: "x".repeat(256) }, /256 bytes, and 255/],
    ["a name with a zero", { name: "a\0b" }, /zero byte/],
    ["a late date", { dateSeconds: 2 ** 32 }, /32 bits/],
    ["a second of nanoseconds", { dateNanoseconds: 1e9 }, /not below a second/],
    ["a clock before 0", { vmClockNanoseconds: -1n }, /VM clock -1/],
    ["a wide icount", { icount: 2n ** 63n }, /icount/],
    ["half a byte of VM state", { vmStateBytes: 0.5 }, /no length/],
  ])("must refuse %s, and leave the file alone", async (_, wrong, message) => {
    const options = { name: "a", ...DATE, ...wrong };
    const memory = await make();
    const before = memory.bytes.slice();
    const disk = await open(memory);
    await expect(disk.snapshots.create(options)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(disk.snapshots.create(options)).rejects.toThrow(message);
    await disk.close();
    expect(Buffer.compare(memory.bytes.slice(), before)).toBe(0);
  });

  test.each([
    [1, 0],
    [2, 2],
    [4, 14],
  ])("must refuse what %i-bit refcounts cannot count, after %i snapshots", async (bits, most) => {
    const memory = await make({ refcount_bits: bits });
    await work(memory, async (disk) => {
      await disk.writev(0, filled(8192, 3));
      for (let i = 0; i < most; i++) await disk.snapshots.create({ name: `${i}`, ...DATE });
      await disk.flushToOs();
      const before = memory.bytes.slice();
      const refused = disk.snapshots.create({ name: "one too many", ...DATE });
      await expect(refused).rejects.toMatchObject({ code: "EINVAL" });
      await expect(refused).rejects.toThrow(`refcount_bits=${bits} holds`);
      await disk.flushToOs();
      // Nothing was changed before it was refused.
      expect(Buffer.compare(memory.bytes.slice(), before)).toBe(0);
      expect(await names(disk)).toHaveLength(most);
      if (most > 0) {
        await disk.snapshots.delete("1");
        await disk.snapshots.create({ name: "again", ...DATE });
      }
    });
  });

  test("must refuse when compressed clusters share one host cluster too often", async () => {
    const memory = await make({ refcount_bits: 2 });
    await work(memory, async (disk) => {
      // Two streams in one host cluster: a refcount of 2, which a snapshot doubles.
      await disk.writev(0, filled(8192, 3), { compressed: true });
      await disk.flushToOs();
      const before = memory.bytes.slice();
      const refused = disk.snapshots.create({ name: "a", ...DATE });
      await expect(refused).rejects.toMatchObject({ code: "EINVAL" });
      expect(Buffer.compare(memory.bytes.slice(), before)).toBe(0);
    });
  });

  test("must go on compressing behind shared compressed data [D4]", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(4096, 1), { compressed: true });
      await disk.snapshots.create({ name: "a", ...DATE });
      await disk.writev(4096, filled(4096, 2), { compressed: true });
      await disk.writev(0, filled(4096, 3), { compressed: true });
      await disk.snapshots.apply("a");
      const bytes = await contentOf(disk);
      expect([bytes[0], bytes[4096]]).toEqual([1, 0]);
      await disk.snapshots.delete("a");
      await disk.writev(8192, filled(4096, 4), { compressed: true });
    });
  });

  test("must work on a disk without a length", async () => {
    const memory = await make({ size: 0 });
    await work(memory, async (disk) => {
      await disk.snapshots.create({ name: "nothing", ...DATE });
      await disk.truncate(8192);
      await disk.writev(0, filled(8192, 1));
      await disk.snapshots.apply("nothing");
      expect(disk.lengthBytes).toBe(0);
      await disk.snapshots.delete("nothing");
    });
  });
});

describe("snapshots.apply()", () => {
  test("must bring back the disk, its length too, and keep the snapshot", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(SIZE, 1));
      const small = await contentOf(disk);
      await disk.snapshots.create({ name: "small", ...DATE });
      await disk.truncate(20 * 2 ** 20);
      await disk.writev(19 * 2 ** 20, filled(65_536, 2));
      const large = await contentOf(disk);
      await disk.snapshots.create({ name: "large", ...DATE });
      await disk.writev(0, filled(65_536, 3));
      for (const [name, bytes] of [
        ["small", small],
        ["large", large],
        ["small", small],
      ] as const) {
        const applied = await disk.snapshots.apply(name);
        expect(applied).toMatchObject({ name, diskBytes: bytes.length });
        expect(disk.lengthBytes).toBe(bytes.length);
        expect(Buffer.compare(await contentOf(disk), bytes)).toBe(0);
        await disk.writev(0, filled(8192, 9));
        await disk.flushToOs();
        expect(await findingsIn(memory.bytes.slice())).toEqual([]);
      }
    });
    expect((await readHeader(directChild(memory))).virtualSize).toBe(SIZE);
  });

  test("must take an id before a name, and a name only when asked for one", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      const cases: readonly (readonly [SnapshotSelector, number])[] = [
        ["1", 1],
        ["2", 2],
        [{ name: "2" }, 1],
        [{ id: "2" }, 2],
        [{ id: "1", name: "2" }, 1],
      ];
      await disk.writev(0, filled(512, 1));
      await disk.snapshots.create({ name: "2", ...DATE });
      await disk.writev(0, filled(512, 2));
      await disk.snapshots.create({ name: "1", ...DATE });
      for (const [which, value] of cases) {
        await disk.snapshots.apply(which);
        expect((await contentOf(disk))[0]).toBe(value);
      }
      for (const which of ["3", { id: "1", name: "1" }, {}]) {
        await expect(disk.snapshots.apply(which)).rejects.toMatchObject({ code: "ENOENT" });
      }
    });
  });

  test("must write the L1 table where it lies when one sector changes, else beside", async () => {
    for (const [size, moves] of [
      [SIZE, false],
      [2 ** 28, true],
    ] as const) {
      const memory = await createInMemory({ size, cluster_size: 4096 });
      const before = (await readHeader(directChild(memory))).l1TableOffset;
      await work(memory, async (disk) => {
        await disk.snapshots.create({ name: "a", ...DATE });
        await disk.writev(0, filled(512, 1));
        await disk.snapshots.apply("a");
      });
      const after = (await readHeader(directChild(memory))).l1TableOffset;
      expect(after !== before).toBe(moves);
    }
  });

  test("must not change the length of a version 2 disk", async () => {
    const memory = await make({ compat: "v2" });
    await work(memory, async (disk) => {
      await disk.writev(0, filled(SIZE, 1));
      await disk.snapshots.create({ name: "a", ...DATE });
    });
    const bytes = memory.bytes.slice();
    const { snapshotsOffset } = await readHeader(directChild(memory));
    viewOf(bytes).setUint32(snapshotsOffset + 40 + 12, SIZE - 4096);
    const disk = await open(openMemory({ bytes }));
    await expect(disk.snapshots.apply("a")).rejects.toMatchObject({ code: "ENOTSUP" });
    await disk.close();
  });
});

describe("snapshots.delete()", () => {
  test("must give back what only the snapshot held, and let the disk write in place again", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(65_536, 1));
      await disk.snapshots.create({ name: "a", ...DATE });
      await disk.writev(0, filled(32_768, 2));
      await disk.snapshots.delete("a");
      await disk.flushToOs();
      const taken = disk.statistics()["allocatedClusters"];
      await disk.writev(0, filled(65_536, 3));
      expect(disk.statistics()["allocatedClusters"]).toBe(taken);
      await disk.snapshots.create({ name: "b", ...DATE });
      await expect(disk.snapshots.delete("a")).rejects.toMatchObject({ code: "ENOENT" });
    });
  });

  test("must let COPIED wait for the last of several snapshots [C13]", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(16_384, 1));
      for (const name of ["a", "b", "c"]) await disk.snapshots.create({ name, ...DATE });
      for (const name of ["b", "c", "a"]) {
        await disk.snapshots.delete(name);
        await disk.flushToOs();
        expect(await findingsIn(memory.bytes.slice())).toEqual([]);
      }
      const { snapshotCount, snapshotsOffset } = await readHeader(directChild(memory));
      expect([snapshotCount, snapshotsOffset]).toEqual([0, 0]);
    });
  });

  test("must keep every byte of the other entries, known or not", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(8192, 1));
      for (const name of ["a", "b", "c"]) await disk.snapshots.create({ name, ...DATE });
    });
    // The third entry gets 40 bytes of extra data, and a name that is no UTF-8.
    const bytes = new Uint8Array(memory.bytes.length + 4096);
    bytes.set(memory.bytes);
    const { snapshotsOffset } = await readHeader(directChild(memory));
    const third = snapshotsOffset + 2 * 72;
    const entry = bytes.slice(third, third + 66);
    const long = new Uint8Array(40 + 40 + 2);
    long.set(entry.subarray(0, 64));
    long.set(
      [...Array(16).keys()].map((i) => 200 + i),
      64,
    );
    long.set([0x33, 0xff], 80);
    viewOf(long).setUint32(36, 40);
    bytes.set(long, third);
    const changed = openMemory({ bytes });
    await work(changed, async (disk) => {
      expect(await names(disk)).toEqual(["1:a", "2:b", "3:\udcff"]);
      await disk.snapshots.delete("a");
      await disk.snapshots.create({ name: "d", ...DATE });
      expect(await names(disk)).toEqual(["2:b", "3:\udcff", "4:d"]);
    });
    const { snapshotsOffset: at } = await readHeader(directChild(changed));
    const kept = changed.bytes.slice(at + 72, at + 72 + long.length);
    expect(Buffer.compare(kept, long)).toBe(0);
  });

  test("must discard in the file what it freed, as the option says", async () => {
    for (const passes of [true, false]) {
      const image = await make();
      const file = new SimDisk({ content: image.bytes.slice() });
      const disk = await openQcow2({
        file: directChild(file),
        options: { "pass-discard-snapshot": passes },
      });
      await disk.writev(0, filled(65_536, 1));
      await disk.snapshots.create({ name: "a", ...DATE });
      await disk.writev(0, filled(65_536, 2));
      const before = file.counts.discard;
      await disk.snapshots.delete("a");
      expect(file.counts.discard > before).toBe(passes);
      await disk.close();
    }
  });
});

describe("snapshots, the disk's VM state", () => {
  test("must move into the snapshot, come back with it, and show on no disk", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      const state = new Uint8Array(300_000).map((_, i) => (i * 31) % 251);
      await disk.writev(0, filled(SIZE, 1));
      await disk.snapshots.writeVmState(0, IoVector.of(state));
      // In pieces, and over clusters that hold some already.
      await disk.snapshots.writeVmState(1000, IoVector.of(state.slice(1000, 1100)));
      const read = async (): Promise<Uint8Array> => {
        const bytes = new Uint8Array(state.length + 5000);
        await disk.snapshots.readVmState(0, IoVector.of(bytes));
        return bytes;
      };
      const expected = new Uint8Array(state.length + 5000);
      expected.set(state);
      expect(Buffer.compare(await read(), expected)).toBe(0);
      await disk.snapshots.create({ name: "vm", ...DATE, vmStateBytes: state.length });
      expect((await read()).every((byte) => byte === 0)).toBe(true);
      await disk.snapshots.create({ name: "plain", ...DATE });
      await disk.snapshots.apply("vm");
      expect(Buffer.compare(await read(), expected)).toBe(0);
      const view = await openQcow2({
        file: directChild(memory),
        readOnly: true,
        options: { "snapshot.name": "vm" },
      });
      const seen = new Uint8Array(expected.length);
      await view.snapshots.readVmState(0, IoVector.of(seen));
      expect(Buffer.compare(seen, expected)).toBe(0);
      await view.close();
      await disk.snapshots.apply("plain");
      expect((await read()).every((byte) => byte === 0)).toBe(true);
      await disk.snapshots.delete("vm");
    });
  });

  test("must be copied, not changed, where a snapshot shares it", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.snapshots.writeVmState(0, filled(8192, 7));
      await disk.snapshots.create({ name: "shared", ...DATE });
      await disk.snapshots.writeVmState(1000, filled(10, 8));
      const state = new Uint8Array(8192);
      const expected = new Uint8Array(8192).fill(7).fill(8, 1000, 1010);
      await disk.snapshots.readVmState(0, IoVector.of(state));
      expect(Buffer.compare(state, expected)).toBe(0);
      await disk.snapshots.apply("shared");
      await disk.snapshots.readVmState(0, IoVector.of(state));
      expect(Buffer.compare(state, new Uint8Array(8192).fill(7))).toBe(0);
    });
  });

  test("must be dropped before the disk grows over it", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.snapshots.writeVmState(0, filled(100_000, 7));
      await disk.snapshots.create({ name: "vm", ...DATE });
      await disk.truncate(2 ** 23);
      const bytes = await contentOf(disk);
      expect(bytes.every((byte) => byte === 0)).toBe(true);
      const state = new Uint8Array(1000);
      await disk.snapshots.readVmState(0, IoVector.of(state));
      expect(state.every((byte) => byte === 0)).toBe(true);
      await disk.snapshots.apply("vm");
      await disk.snapshots.readVmState(0, IoVector.of(state));
      expect(state.every((byte) => byte === 7)).toBe(true);
    });
  });

  test("must hide a backing file that is longer than the disk", async () => {
    const memory = await make({ backing_file: "base", backing_fmt: "raw" });
    const backing = openMemory({ bytes: new Uint8Array(8 * 2 ** 20).fill(5) });
    const disk = await openQcow2({ file: directChild(memory), backing: directChild(backing) });
    await disk.snapshots.writeVmState(10, filled(100, 7));
    const state = new Uint8Array(200);
    await disk.snapshots.readVmState(0, IoVector.of(state));
    expect([...new Set(state)]).toEqual([0, 7]);
    // Also where nothing was written, in what the L1 table maps.
    await disk.snapshots.readVmState(65_536, IoVector.of(state));
    expect([...new Set(state)]).toEqual([0]);
    await disk.close();
  });

  test("must end where an L1 table must", async () => {
    const memory = await make();
    const disk = await open(memory);
    const far = disk.snapshots.writeVmState(2 ** 44, filled(512, 1));
    await expect(far).rejects.toMatchObject({ code: "EFBIG" });
    for (const offset of [-1, 0.5, 2 ** 53]) {
      const none = disk.snapshots.writeVmState(offset, filled(512, 1));
      await expect(none).rejects.toMatchObject({ code: "EINVAL" });
    }
    await disk.close();
  });
});

describe("the view of a snapshot", () => {
  test("must have the snapshot's length, be read-only, and be checked as the image", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.writev(0, filled(SIZE, 1));
      await disk.snapshots.create({ name: "a", ...DATE });
      await disk.truncate(2 * SIZE);
    });
    const before = memory.bytes.slice();
    const file = directChild(memory);
    await expect(openQcow2({ file, options: { snapshot: "a" } })).rejects.toThrow(/read-only/);
    const missing = openQcow2({ file, readOnly: true, options: { "snapshot.id": "7" } });
    await expect(missing).rejects.toMatchObject({ code: "ENOENT" });
    const both = { snapshot: "a", "snapshot.id": "1" };
    await expect(openQcow2({ file, readOnly: true, options: both })).rejects.toThrow(/exclude/);
    const view = await openQcow2({
      file,
      readOnly: true,
      options: { "snapshot.id": "1", "snapshot.name": "a" },
    });
    expect(view.lengthBytes).toBe(SIZE);
    expect((await contentOf(view)).every((byte) => byte === 1)).toBe(true);
    expect(await view.check()).toMatchObject({ corruptions: 0, leaks: 0, totalClusters: 128 });
    await expect(view.reopen({ readOnly: false, options: {} })).rejects.toMatchObject({
      code: "EACCES",
    });
    await expect(view.snapshots.delete("a")).rejects.toMatchObject({ code: "EACCES" });
    // Handed over and taken back, it is the view that it was.
    await view.inactivate();
    await expect(view.snapshots.list()).rejects.toMatchObject({ code: "EBUSY" });
    await view.activate();
    expect(view.lengthBytes).toBe(SIZE);
    expect((await contentOf(view)).every((byte) => byte === 1)).toBe(true);
    await view.close();
    expect(Buffer.compare(memory.bytes.slice(), before)).toBe(0);
  });
});

describe("snapshots and the rest of the driver", () => {
  test("must refuse to apply one where dirty bitmaps would not tell, and keep both otherwise", async () => {
    const memory = await make();
    await work(memory, async (disk) => {
      await disk.snapshots.create({ name: "a", ...DATE });
      await disk.bitmaps.add("b");
      await disk.writev(0, filled(4096, 1));
      await expect(disk.snapshots.apply("a")).rejects.toMatchObject({ code: "EBUSY" });
      await disk.snapshots.create({ name: "c", ...DATE });
      await disk.snapshots.delete("a");
    });
    await work(memory, async (disk) => {
      expect(await names(disk)).toEqual(["2:c"]);
      expect((await disk.bitmaps.list()).map(({ name }) => name)).toEqual(["b"]);
      const view = await openQcow2({
        file: directChild(memory),
        readOnly: true,
        options: { snapshot: "c" },
      });
      expect((await view.formatInfo()).data).not.toHaveProperty("bitmaps");
      await view.close();
      await disk.bitmaps.remove("b");
      await disk.snapshots.apply("c");
    });
  });

  test("must be refused where guest data lies in a data file, which counts nothing", async () => {
    const file = directChild(openMemory());
    const dataFile = directChild(openMemory());
    const options = parseOptions(createOptions, { size: SIZE, data_file: "x" }, "qcow2");
    await createQcow2({ file, dataFile, options });
    const disk = await openQcow2({ file, dataFile });
    await disk.writev(0, filled(4096, 1));
    for (const change of [
      () => disk.snapshots.create({ name: "a", ...DATE }),
      () => disk.snapshots.apply("a"),
      () => disk.snapshots.delete("a"),
      () => disk.snapshots.writeVmState(0, filled(512, 1)),
    ]) {
      await expect(change()).rejects.toMatchObject({ code: "ENOTSUP" });
    }
    expect(await disk.snapshots.list()).toEqual([]);
    await disk.close();
  });

  test("must keep what a file of 2^44 clusters holds, most of them holes", async () => {
    const memory = await make({ cluster_size: 512 });
    memory.truncate(2 ** 53 - 512);
    const file = directChild(memory);
    const disk = await openQcow2({ file });
    await disk.writev(0, filled(512, 1));
    await disk.snapshots.create({ name: "a", ...DATE });
    await disk.writev(0, filled(512, 2));
    await disk.close();
    const { findings } = await checkQcow2(file, await readHeader(file));
    expect(findings).toEqual([]);
    expect((await snapshotContent(file, { snapshot: "a" }))[0]).toBe(1);
  });

  test("must pass the overlap check in full, whatever the tables become", async () => {
    const memory = await make({ cluster_size: 512 });
    await work(
      memory,
      async (disk) => {
        await disk.writev(0, filled(SIZE, 1));
        await disk.snapshots.create({ name: "a", ...DATE });
        await disk.writev(0, filled(SIZE / 2, 2));
        await disk.snapshots.create({ name: "b", ...DATE });
        await disk.snapshots.apply("a");
        await disk.writev(4096, filled(SIZE / 2, 3));
        await disk.snapshots.delete("a");
        await disk.writev(0, filled(SIZE, 4));
        await disk.snapshots.delete("b");
        await disk.writev(0, filled(SIZE, 5));
        expect((await contentOf(disk)).every((byte) => byte === 5)).toBe(true);
      },
      { "overlap-check": "all", "l2-cache-size": "4k", "l2-cache-entry-size": 512 },
    );
  });

  test("must change nothing on an image that is read-only", async () => {
    const memory = await make();
    const disk = await openQcow2({ file: directChild(memory), readOnly: true });
    const made = disk.snapshots.create({ name: "a", ...DATE });
    await expect(made).rejects.toMatchObject({ code: "EACCES" });
    expect(await disk.snapshots.list()).toEqual([]);
    await disk.close();
    await expect(disk.snapshots.list()).rejects.toMatchObject({ code: "ECLOSED" });
  });
});

/** Changes of snapshots, each to fail at every request of its own. */
const CHANGES: Readonly<Record<string, (disk: Qcow2Driver) => Promise<unknown>>> = {
  create: (disk) => disk.snapshots.create({ name: "new", ...DATE, vmStateBytes: 1000 }),
  "apply in place": (disk) => disk.snapshots.apply("kept"),
  "apply another length": (disk) => disk.snapshots.apply("short"),
  delete: (disk) => disk.snapshots.delete("kept"),
};

describe("snapshots when the file fails", () => {
  test.each(Object.entries(CHANGES))(
    "%s must leave the image before or after, and go on when it can",
    { timeout: 60_000 },
    async (_, change) => {
      const bytes = await preparedImage();
      let states = 0;
      for (const kind of ["write", "flush", "read"] as const) {
        for (let nth = 1; ; nth++) {
          const file = new SimDisk({ content: bytes.slice() });
          const disk = await openQcow2({
            file: directChild(file),
            options: { "l2-cache-size": "4k", "l2-cache-entry-size": 512 },
          });
          const old = await stateOf(disk);
          file.inject({ kind, nth, code: "EIO" });
          const failure = await change(disk).catch((error: unknown) => error);
          file.clearFaults();
          const failed = failure instanceof Error;
          if (
            disk.statistics()["failed"] !== true &&
            failed &&
            !/but what follows failed/.test(failure.message)
          ) {
            // Undone, all of it: the same change again does it.
            expect(await stateOf(disk)).toEqual(old);
            await disk.flushToOs();
            expect(await findingsIn(file.bytes.slice())).toEqual([]);
            await change(disk);
          }
          await disk.close().catch(() => undefined);
          states++;
          const found = await findingsIn(file.bytes.slice());
          expect(found.filter((one) => !/^Leaked|OFLAG_COPIED/.test(one))).toEqual([]);
          const again = await openQcow2({
            file: directChild(new SimDisk({ content: file.bytes })),
          });
          const now = await stateOf(again);
          const after = await stateAfter(bytes, change);
          expect([old, after]).toContainEqual(now);
          await again.close();
          if (!failed) break;
        }
      }
      expect(states).toBeGreaterThan(10);
    },
  );
});

async function preparedImage(): Promise<Uint8Array> {
  const memory = await make({ cluster_size: 512, size: 65_536 });
  const disk = await open(memory);
  await disk.writev(0, filled(20_000, 1));
  await disk.snapshots.create({ name: "short", ...DATE });
  await disk.truncate(2 ** 18);
  await disk.writev(10_000, filled(20_000, 2));
  await disk.writev(40_960, filled(2048, 6), { compressed: true });
  await disk.snapshots.create({ name: "kept", ...DATE });
  await disk.writev(0, filled(8192, 3));
  await disk.close();
  return memory.bytes.slice();
}

/** What a user sees: the disk, and the names of its snapshots. */
async function stateOf(disk: Qcow2Driver): Promise<string> {
  const bytes = await contentOf(disk);
  const hash = createHash("sha256").update(bytes).digest("hex");
  return `${(await names(disk)).join()} ${bytes.length} ${hash}`;
}

async function stateAfter(
  bytes: Uint8Array,
  change: (disk: Qcow2Driver) => Promise<unknown>,
): Promise<string> {
  const disk = await openQcow2({ file: directChild(new SimDisk({ content: bytes.slice() })) });
  await change(disk);
  const state = await stateOf(disk);
  await disk.close();
  return state;
}
