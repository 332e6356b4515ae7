import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { IoVector } from "@blocklayer/bytes";
import { type BlockBackend, BlockGraph } from "../src/index.js";
import { gate, settle, TestWorld } from "./test-store.js";

const KIB = 1024;

let world: TestWorld;

beforeEach(() => {
  world = new TestWorld();
});

async function openStore(lengthBytes: number): Promise<BlockBackend> {
  world.file("disk", lengthBytes);
  const graph = new BlockGraph({ drivers: [world.driver] });
  const disk = await graph.open({ driver: "file", filename: "disk" });
  world.takeLog();
  return disk;
}

describe("a node without alignment", () => {
  it("must pass requests on as they are", async () => {
    const disk = await openStore(64 * KIB);
    await disk.write(3, new Uint8Array(5));
    await disk.read(1, 7);
    expect(world.takeLog()).toEqual(["disk write 3+5", "disk read 1+7"]);
  });

  it("must split at maxTransfer", async () => {
    world.limits = { maxTransfer: 4 * KIB };
    const disk = await openStore(64 * KIB);
    const bytes = Uint8Array.from({ length: 10 * KIB }, (_, at) => at % 251);
    await disk.write(100, bytes);
    expect(world.takeLog()).toEqual([
      "disk write 100+4096",
      "disk write 4196+4096",
      "disk write 8292+2048",
    ]);
    expect(await disk.read(100, 10 * KIB)).toEqual(bytes);
    expect(world.takeLog()).toHaveLength(3);
  });

  it("must return the very promise of the driver", async () => {
    const disk = await openStore(64 * KIB);
    const { driver } = disk.root;
    const promise = Promise.resolve();
    driver.readv = () => promise;
    expect(disk.readv(0, IoVector.allocate(512))).toBe(promise);
    driver.readv = () => undefined;
    expect(disk.readv(0, IoVector.allocate(512))).toBeUndefined();
    expect(disk.root.inFlight).toBe(1);
    await promise;
    expect(disk.root.inFlight).toBe(0);
  });

  it("must count a driver's plain throw as a failure, and let it through", async () => {
    const disk = await openStore(64 * KIB);
    disk.root.driver.readv = () => {
      throw new Error("plain");
    };
    expect(() => disk.readv(0, IoVector.allocate(1))).toThrow("plain");
    expect(disk.root.statistics()).toMatchObject({ failed: 1, inFlight: 0 });
  });
});

describe("writeZeroes", () => {
  it("must break at the driver's alignment and keep to its maximum", async () => {
    world.limits = { writeZeroesAlignment: 4 * KIB, maxWriteZeroes: 10 * KIB };
    const disk = await openStore(64 * KIB);
    await disk.writeZeroes(1000, 30 * KIB, { mayUnmap: true });
    expect(world.takeLog()).toEqual([
      "disk zero 1000+3096 unmap",
      "disk zero 4096+8192 unmap",
      "disk zero 12288+8192 unmap",
      "disk zero 20480+8192 unmap",
      "disk zero 28672+3048 unmap",
    ]);
  });

  it("must write zero bytes in bounded pieces where the driver cannot", async () => {
    world.capabilities = { writeZeroes: false };
    const disk = await openStore(4 * 1024 * KIB);
    await disk.write(0, new Uint8Array(4 * 1024 * KIB).fill(1));
    world.takeLog();
    await disk.writeZeroes(5, 2500 * KIB);
    expect(world.takeLog()).toEqual([
      "disk write 5+1048576",
      "disk write 1048581+1048576",
      "disk write 2097157+462848",
    ]);
    const bytes = await disk.read(0, 2501 * KIB);
    expect(bytes.subarray(0, 5)).toEqual(new Uint8Array(5).fill(1));
    expect(bytes.subarray(5, 5 + 2500 * KIB).every((byte) => byte === 0)).toBe(true);
    expect(bytes[5 + 2500 * KIB]).toBe(1);
  });

  it("must fall back on ENOTSUP, and not when the caller forbids it", async () => {
    const disk = await openStore(64 * KIB);
    const { BlockError } = await import("@blocklayer/bytes");
    disk.root.driver.writeZeroes = () => Promise.reject(new BlockError("ENOTSUP", "not here"));
    await disk.writeZeroes(0, 4 * KIB);
    expect(world.takeLog()).toEqual(["disk write 0+4096"]);
    await expect(disk.writeZeroes(0, 4 * KIB, { noFallback: true })).rejects.toMatchObject({
      code: "ENOTSUP",
    });
    expect(world.takeLog()).toEqual([]);
  });

  it("must zero the aligned middle by the driver and the edges as bytes", async () => {
    world.limits = { requestAlignment: 512 };
    const disk = await openStore(64 * KIB);
    await disk.write(0, new Uint8Array(4096).fill(7));
    world.takeLog();
    await disk.writeZeroes(100, 2000);
    expect(world.takeLog().filter((call) => call.startsWith("disk zero"))).toEqual([
      "disk zero 512+1536",
    ]);
    const bytes = await disk.read(0, 4096);
    expect([...bytes].findIndex((byte) => byte === 0)).toBe(100);
    expect(bytes.subarray(100, 2100).some(Boolean)).toBe(false);
    expect(bytes.subarray(2100).every((byte) => byte === 7)).toBe(true);
  });

  it("must not be undone by a read-modify-write that runs beside it", async () => {
    world.limits = { requestAlignment: 512 };
    const disk = await openStore(4096);
    await disk.write(0, new Uint8Array(4096).fill(7));
    const hold = gate();
    world.hook = (call) => (call === "disk write 0+512" ? hold.opened : undefined);
    const writing = disk.write(10, new Uint8Array(10).fill(1));
    await settle();
    const zeroing = disk.writeZeroes(0, 1024);
    await settle();
    hold.open();
    await Promise.all([writing, zeroing]);
    expect((await disk.read(20, 1004)).some(Boolean)).toBe(false);
  });

  it("must stop between pieces when aborted", async () => {
    world.capabilities = { writeZeroes: false };
    const disk = await openStore(8 * 1024 * KIB);
    const abort = new AbortController();
    world.hook = (call) => {
      if (call.startsWith("disk write")) abort.abort();
    };
    const zeroing = disk.writeZeroes(0, 8 * 1024 * KIB, { signal: abort.signal });
    await expect(zeroing).rejects.toMatchObject({ code: "ECANCELED" });
    expect(world.takeLog()).toEqual(["disk write 0+1048576"]);
  });
});

describe("discard", () => {
  it("must pass whole units only, split, and forgive ENOTSUP", async () => {
    world.limits = { discardAlignment: 4 * KIB, maxDiscard: 9 * KIB };
    const disk = await openStore(64 * KIB);
    await disk.discard(1, 20 * KIB);
    expect(world.takeLog()).toEqual(["disk discard 4096+8192", "disk discard 12288+8192"]);
    await disk.discard(1, 100);
    expect(world.takeLog()).toEqual([]);
    const { BlockError } = await import("@blocklayer/bytes");
    disk.root.driver.discard = () => {
      throw new BlockError("ENOTSUP", "no");
    };
    await disk.discard(0, 8 * KIB);
  });

  it("must pass the last unit of a disk that ends inside it", async () => {
    world.limits = { discardAlignment: 4 * KIB };
    const disk = await openStore(10_000);
    await disk.discard(8192, 10_000 - 8192);
    expect(world.takeLog()).toEqual(["disk discard 8192+1808"]);
  });

  it("must be skipped where the driver cannot", async () => {
    world.capabilities = { discard: false };
    const disk = await openStore(64 * KIB);
    await disk.discard(0, 64 * KIB);
    expect(world.takeLog()).toEqual([]);
  });
});

describe("fua", () => {
  it("must be a flush after the write where the driver has none", async () => {
    const disk = await openStore(64 * KIB);
    await disk.write(0, new Uint8Array(512), { fua: true });
    expect(world.takeLog()).toEqual(["disk write 0+512", "disk flush to os", "disk flush to disk"]);
    await disk.writeZeroes(0, 512, { fua: true });
    expect(world.takeLog()).toEqual(["disk zero 0+512", "disk flush to os", "disk flush to disk"]);
  });

  it("must go to a driver that knows it", async () => {
    world.capabilities = { fua: true };
    const disk = await openStore(64 * KIB);
    await disk.write(0, new Uint8Array(512), { fua: true });
    expect(world.takeLog()).toEqual(["disk write 0+512 fua"]);
  });

  it("must be stable before a close that came meanwhile goes on, and not be refused by it", async () => {
    const disk = await openStore(4 * KIB);
    const held = gate();
    world.hook = (call) => (/ (write|zero) /.test(call) ? held.opened : undefined);
    const changes = [
      disk.write(0, new Uint8Array(512), { fua: true }),
      disk.writeZeroes(512, 512, { fua: true }),
    ];
    const closed = disk.close();
    await settle();
    held.open();
    await Promise.all([...changes, closed]);
    const log = world.takeLog();
    expect(log.slice(0, 4)).toEqual([
      "disk write 0+512",
      "disk zero 512+512",
      "disk flush to os",
      "disk flush to disk",
    ]);
    expect(log.at(-1)).toBe("disk close");
  });

  it("must go with every write of a writethrough backend", async () => {
    world.file("disk", 4096);
    world.capabilities = { fua: true };
    const graph = new BlockGraph({ drivers: [world.driver] });
    const disk = await graph.open({ driver: "file", filename: "disk" }, { writethrough: true });
    world.takeLog();
    await disk.write(0, new Uint8Array(512));
    expect(world.takeLog()).toEqual(["disk write 0+512 fua"]);
    await graph.close();
  });
});

describe("compressed writes", () => {
  it("must be refused where the driver has none", async () => {
    const disk = await openStore(64 * KIB);
    await expect(disk.write(0, new Uint8Array(512), { compressed: true })).rejects.toMatchObject({
      code: "ENOTSUP",
    });
    expect(world.takeLog()).toEqual([]);
  });
});

interface Op {
  readonly kind: "read" | "write" | "zero" | "discard";
  readonly offset: number;
  readonly length: number;
}

const DISK_BYTES = 24 * KIB;
const MAX_OP_BYTES = 3 * KIB;
const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 30);

const anyOp: fc.Arbitrary<Op> = fc
  .record({
    kind: fc.constantFrom<Op["kind"]>("read", "write", "write", "zero", "discard"),
    offset: fc.nat({ max: DISK_BYTES - 1 }),
    size: fc.integer({ min: 1, max: MAX_OP_BYTES }),
  })
  .map(({ kind, offset, size }) => ({ kind, offset, length: Math.min(size, DISK_BYTES - offset) }));

/** Run side by side; they may overlap. */
const batches = fc.array(fc.array(anyOp, { minLength: 1, maxLength: 10 }), {
  minLength: 1,
  maxLength: 6,
});

describe("requests side by side", () => {
  it.each([
    [1, 1, 3000],
    [512, 1, 2048],
    [512, 512, 4096],
    [4096, 4096, 8192],
  ])(
    "alignment %i, memory %i, transfer %i: every byte must be one that a request put there",
    async (requestAlignment, memoryAlignment, maxTransfer) => {
      await fc.assert(
        fc.asyncProperty(batches, fc.integer(), async (list, seed) => {
          world = new TestWorld();
          world.limits = { requestAlignment, memoryAlignment, maxTransfer };
          const disk = await openStore(DISK_BYTES);
          let random = seed >>> 0;
          // Every call waits for a number of turns that the seed decides: they end in any order.
          world.hook = async () => {
            random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
            for (let turns = random >>> 28; turns > 0; turns--) await Promise.resolve();
          };
          let model: Uint8Array = new Uint8Array(DISK_BYTES);
          for (const batch of list) model = await runBatch(disk, model, batch);
          expect(disk.root.inFlight).toBe(0);
          await disk.close();
        }),
        { numRuns: RUNS },
      );
    },
  );
});

/** The byte that an op of a batch writes. */
function fillOf(op: Op, index: number): number {
  return op.kind === "write" ? index + 1 : 0;
}

/** @returns what the disk holds afterwards, which is the model of the next batch */
async function runBatch(
  disk: BlockBackend,
  before: Uint8Array,
  batch: readonly Op[],
): Promise<Uint8Array> {
  const read = await Promise.all(batch.map((op, index) => runOp(disk, op, index)));
  for (const [index, op] of batch.entries()) {
    const bytes = read[index];
    if (bytes !== undefined) expectPossible(bytes, op.offset, before, batch, true);
  }
  const after = await disk.read(0, DISK_BYTES);
  expectPossible(after, 0, before, batch, false);
  return after;
}

async function runOp(disk: BlockBackend, op: Op, index: number): Promise<Uint8Array | undefined> {
  const { kind, offset, length } = op;
  switch (kind) {
    case "read":
      return await disk.read(offset, length);
    case "write":
      await disk.write(offset, new Uint8Array(length).fill(fillOf(op, index)));
      return undefined;
    case "zero":
      await disk.writeZeroes(offset, length);
      return undefined;
    case "discard":
      // What a discard leaves is known only when zeroes follow it.
      await disk.discard(offset, length);
      await disk.writeZeroes(offset, length);
      return undefined;
  }
}

/** A byte that requests cover is one of theirs; while they run it may be the old one, too. */
function expectPossible(
  bytes: Uint8Array,
  start: number,
  before: Uint8Array,
  batch: readonly Op[],
  isRunning: boolean,
): void {
  const changes = [...batch.entries()].filter(([, op]) => op.kind !== "read");
  for (const [index, byte] of bytes.entries()) {
    const at = start + index;
    const covering = changes.filter(([, op]) => at >= op.offset && at < op.offset + op.length);
    const possible = covering.map(([n, op]) => fillOf(op, n));
    if (isRunning || covering.length === 0) possible.push(before[at] ?? 0);
    if (!possible.includes(byte)) expect({ at, byte, possible }).toBe("a byte that is possible");
  }
}
