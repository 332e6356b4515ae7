import { directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type CrashOptions,
  crashStates,
  plainly,
  Random,
  ReferenceDisk,
  ReferenceMismatchError,
  SimDisk,
  SimScheduler,
  stampedBytes,
  Trace,
  TrackedGuest,
} from "../src/index.js";
import { SECTOR, type ToyDefects, TOY_SECTORS, ToyDisk } from "./toy-disk.js";

const write = (disk: SimDisk, offset: number, value: number, length = SECTOR): unknown =>
  disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value)));

/** The first byte of each sector: enough to tell the states of these tests apart. */
const heads = (bytes: Uint8Array): string =>
  Array.from({ length: bytes.length / SECTOR }, (_, i) => bytes[i * SECTOR]).join("");

const contents = (trace: Trace, options?: CrashOptions): string[] =>
  [...crashStates(trace, options)].map((state) => `${state.position}:${heads(state.bytes)}`);

function recorded(lengthBytes: number): { disk: SimDisk; trace: Trace } {
  const trace = new Trace();
  return { disk: new SimDisk({ lengthBytes, trace }), trace };
}

test("crashStates() must give every subset of the pending writes, each content once", () => {
  const { disk, trace } = recorded(3 * SECTOR);
  write(disk, 0, 1);
  write(disk, SECTOR, 2);
  write(disk, 2 * SECTOR, 3);
  expect(contents(trace)).toEqual([
    "0:000",
    "1:100",
    "2:020",
    "2:120",
    "3:003",
    "3:023",
    "3:103",
    "3:123",
  ]);
});

test("crashStates() must never lose what a flush made durable", () => {
  const { disk, trace } = recorded(2 * SECTOR);
  write(disk, 0, 1);
  plainly(disk.flushToDisk());
  write(disk, SECTOR, 2);
  expect(contents(trace)).toEqual(["0:00", "1:10", "2:10", "3:12"]);
});

test("crashStates() must look at every state again behind a mark that tightens, and only there", () => {
  const { disk, trace } = recorded(SECTOR);
  write(disk, 0, 1);
  trace.mark("loose", undefined, { tightens: false });
  trace.mark("tight");
  expect(contents(trace)).toEqual(["0:0", "1:1", "3:0", "3:1"]);
});

test("crashStates() must keep a write with fua once it is complete, in its order", () => {
  const { disk, trace } = recorded(SECTOR);
  write(disk, 0, 1);
  plainly(disk.writev(0, IoVector.of(new Uint8Array(SECTOR).fill(2)), { fua: true }));
  write(disk, 0, 3);
  expect(contents(trace, { from: 2 })).toEqual(["2:2", "2:2", "3:3", "3:3"]);
});

test("crashStates() must apply overlapping writes in order: new, or old, never the other way", () => {
  const { disk, trace } = recorded(2 * SECTOR);
  write(disk, 0, 1, 2 * SECTOR);
  write(disk, SECTOR, 2);
  expect(new Set(contents(trace, { from: 2 }))).toEqual(new Set(["2:02", "2:12"]));
});

test("crashStates() must tear writes at sectors: heads, tails and scattered ones", () => {
  const { disk, trace } = recorded(4 * SECTOR);
  write(disk, 0, 1, 4 * SECTOR);
  const states = new Set<string>();
  for (let seed = 0; seed < 60; seed++) {
    for (const state of contents(trace, { seed, tear: true })) states.add(state.slice(2));
  }
  expect(states).toContain("1000");
  expect(states).toContain("0111");
  expect(states.size).toBe(16);
});

test("crashStates() must not tear inside a sector", () => {
  const { disk, trace } = recorded(4 * SECTOR);
  write(disk, 100, 1, 3 * SECTOR);
  for (const state of crashStates(trace, { tear: { variants: 20 } })) {
    for (let sector = 0; sector < 3; sector++) {
      const from = Math.max(100, sector * SECTOR);
      const to = Math.min(100 + 3 * SECTOR, (sector + 1) * SECTOR);
      expect(new Set(state.bytes.subarray(from, to)).size).toBe(1);
    }
  }
});

test("crashStates() must undo growth and truncation like any change", () => {
  const { disk, trace } = recorded(2 * SECTOR);
  plainly(disk.truncate(SECTOR));
  write(disk, 3 * SECTOR, 4);
  const lengths = [...crashStates(trace)].map((state) => state.lengthBytes / SECTOR);
  expect(lengths).toEqual([2, 1, 4, 4]);
});

test("crashStates() must sample the same states for the same seed, within its maximum", () => {
  const { disk, trace } = recorded(20 * SECTOR);
  for (let i = 0; i < 20; i++) write(disk, i * SECTOR, 1 + (i % 9));
  const options = { maxSubsets: 64, from: 20 };
  const first = contents(trace, { ...options, seed: 5 });
  expect(first).toHaveLength(64);
  expect(new Set(first).size).toBe(64);
  expect(contents(trace, { ...options, seed: 5 })).toEqual(first);
  expect(contents(trace, { ...options, seed: 6 })).not.toEqual(first);
  // The telling ones are always among them: all kept, and only the newest kept.
  expect(first).toContain("20:12345678912345678912");
  expect(first).toContain("20:00000000000000000002");
});

test("a write in flight may be there or not, and one that failed is not", async () => {
  const trace = new Trace();
  const scheduler = new SimScheduler({ seed: 1 });
  const disk = new SimDisk({ lengthBytes: 2 * SECTOR, trace, scheduler });
  disk.inject({ kind: "write", range: { offset: 0, lengthBytes: SECTOR } });
  const failing = write(disk, 0, 1);
  const good = write(disk, SECTOR, 2);
  scheduler.step(0);
  await expect(failing).rejects.toThrow("injected");
  scheduler.step(0);
  await good;
  trace.mark("end");
  expect(contents(trace)).toEqual(["0:00", "1:10", "2:02", "2:12", "5:00", "5:02"]);
});

test("open() must give a disk of its own: writing to it changes no state", () => {
  const { disk, trace } = recorded(2 * SECTOR);
  write(disk, 0, 1);
  const states = [...crashStates(trace)];
  for (const state of states) {
    const opened = state.open();
    write(opened, SECTOR, 9);
    expect(heads(opened.bytes)).toBe(`${heads(state.bytes)[0]}9`);
  }
  plainly(disk.flushToDisk());
  write(disk, SECTOR, 5);
  plainly(disk.flushToDisk());
  expect(states.map((state) => heads(state.bytes))).toEqual(["00", "10"]);
});

test("states must stay as they are while the enumeration goes on", () => {
  const { disk, trace } = recorded(SECTOR);
  write(disk, 0, 1);
  plainly(disk.flushToDisk());
  write(disk, 0, 2);
  plainly(disk.flushToDisk());
  const kept = [...crashStates(trace)];
  expect(kept.map((state) => heads(state.bytes))).toEqual(["0", "1", "1", "2", "2"]);
});

test("describe() must name the seed, the position, the marks and what was lost", () => {
  const { disk, trace } = recorded(2 * SECTOR);
  trace.mark("guest write 1");
  write(disk, 0, 1);
  write(disk, SECTOR, 2);
  const last = [...crashStates(trace, { seed: 12 })].find((state) => state.position === 3);
  expect(last?.describe()).toBe(
    [
      "crash state 3 (seed 12) at position 3 of the trace",
      "  last marks: guest write 1",
      "  lost write #1 of 0x200 bytes at 0x0",
      "  kept write #2 of 0x200 bytes at 0x200",
    ].join("\n"),
  );
});

/** A guest run on the toy disk; returns how many states were checked. Throws at the first bad one. */
function crashTest(defects: ToyDefects, seed: number): number {
  const trace = new Trace();
  const disk = new SimDisk({ lengthBytes: SECTOR, trace });
  const reference = new ReferenceDisk({ lengthBytes: TOY_SECTORS * SECTOR, trace });
  const toy = new ToyDisk(disk, defects);
  const guest = new TrackedGuest(toy, reference);
  const random = new Random(seed);
  for (let tag = 1; tag <= 30; tag++) {
    const offset = random.below(TOY_SECTORS - 2) * SECTOR;
    const lengthBytes = random.between(1, 2) * SECTOR;
    const die = random.below(10);
    if (die < 6) plainly(guest.write(offset, stampedBytes(tag, offset, lengthBytes)));
    else if (die < 7) plainly(guest.writeZeroes(offset, lengthBytes));
    else if (die < 8) plainly(guest.discard(offset, lengthBytes));
    else plainly(guest.flush());
  }
  plainly(guest.flush());
  reference.check(toy.content());
  let count = 0;
  for (const state of crashStates(trace, { seed, maxSubsets: 64, tear: true })) {
    count++;
    const found = new ToyDisk(state.open()).content();
    reference.checkCrash(found, state.position, state.describe());
  }
  return count;
}

test("a copy-on-write disk that syncs in the right order must pass at every crash", () => {
  let count = 0;
  for (let seed = 1; seed <= 10; seed++) count += crashTest({}, seed);
  expect(count).toBeGreaterThan(1000);
});

test.each<ToyDefects>([{ tableBeforeData: true }, { lazyFlush: true }, { reuseAtOnce: true }])(
  "a disk with the defect %j must be caught",
  (defects) => {
    const failures: unknown[] = [];
    for (let seed = 1; seed <= 10; seed++) {
      try {
        crashTest(defects, seed);
      } catch (error) {
        failures.push(error);
      }
    }
    expect(failures.length).toBeGreaterThan(0);
    for (const failure of failures) {
      expect(failure).toBeInstanceOf(ReferenceMismatchError);
      expect((failure as Error).message).toMatch(/^crash state \d+ \(seed \d+\) at position \d+/);
    }
  },
);

const model = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ at: fc.nat(3), sectors: fc.integer({ min: 1, max: 2 }) }) },
    { weight: 1, arbitrary: fc.constant("flush" as const) },
  ),
  { minLength: 1, maxLength: 9 },
);

test("crashStates() must give what brute force gives, and nothing else", () => {
  fc.assert(
    fc.property(model, (steps) => {
      const { disk, trace } = recorded(5 * SECTOR);
      let bases = ["00000"];
      let pending: { at: number; text: string }[] = [];
      const expected = new Set(bases);
      for (const [index, step] of steps.entries()) {
        if (step === "flush") {
          plainly(disk.flushToDisk());
          bases = [subset(bases[0] ?? "", pending, -1)];
          pending = [];
        } else {
          write(disk, step.at * SECTOR, index + 1, step.sectors * SECTOR);
          pending.push({ at: step.at, text: String(index + 1).repeat(step.sectors) });
        }
        for (let mask = 0; mask < 2 ** pending.length; mask++) {
          expected.add(subset(bases[0] ?? "", pending, mask));
        }
      }
      const found = new Set([...crashStates(trace)].map((state) => heads(state.bytes).slice(0, 5)));
      expect(found).toEqual(expected);
    }),
    { numRuns: 100, seed: 3 },
  );
});

/** A disk of five sectors, a digit each, after the writes that the mask has. */
function subset(base: string, writes: { at: number; text: string }[], mask: number): string {
  return writes.reduce(
    (disk, { at, text }, i) =>
      (mask & (1 << i)) === 0 ? disk : disk.slice(0, at) + text + disk.slice(at + text.length),
    base,
  );
}

test("the example of the README must pass", async () => {
  const trace = new Trace();
  const disk = new SimDisk({ lengthBytes: 4096, trace });
  const reference = new ReferenceDisk({ lengthBytes: 4096, trace });
  const guest = new TrackedGuest(directChild(disk), reference);
  plainly(guest.write(0, stampedBytes(1, 0, 1024)));
  await guest.flush();
  plainly(guest.write(512, stampedBytes(2, 512, 1024)));
  let count = 0;
  for (const state of crashStates(trace, { seed: 1, tear: true })) {
    count++;
    const found = new Uint8Array(4096);
    plainly(state.open().readv(0, IoVector.of(found)));
    reference.checkCrash(found, state.position, state.describe());
  }
  expect(count).toBeGreaterThan(8);
});

describe("crashStates() of several disks", () => {
  test("must give every combination of what each of them may have lost, at one time", () => {
    const trace = new Trace();
    const first = new SimDisk({ lengthBytes: SECTOR, trace });
    const second = new SimDisk({ lengthBytes: SECTOR, trace });
    write(first, 0, 1);
    write(second, 0, 2);
    plainly(second.flushToDisk());
    plainly(first.flushToDisk());
    const both = [...crashStates(trace)].map(
      (state) => `${state.position}:${heads(state.bytesOf(0))}${heads(state.bytesOf(1))}`,
    );
    // A flush of the second one promises nothing of the first.
    expect(both).toEqual(["0:00", "1:10", "2:02", "2:12", "3:02", "3:12", "4:12"]);
  });

  test("must open the disk that is asked for, and carry out its discards in its own way", async () => {
    const trace = new Trace();
    const content = new Uint8Array(SECTOR).fill(7);
    const disks = (["zero", "keep"] as const).map(
      (discards) => new SimDisk({ content, discards, trace }),
    );
    for (const disk of disks) plainly(disk.discard(0, SECTOR));
    const last = [...crashStates(trace)].at(-1);
    const bytes = new Uint8Array(SECTOR);
    await last?.open({}, 1).readv(0, IoVector.of(bytes));
    expect([heads(last?.bytesOf(0) ?? bytes), heads(bytes)]).toEqual(["0", "7"]);
    expect(last?.describe()).toContain("kept discard #2 of 0x200 bytes at 0x0 on disk 1");
  });

  test("must not let a disk begin to record in the middle", () => {
    const { disk, trace } = recorded(SECTOR);
    write(disk, 0, 1);
    expect(() => new SimDisk({ lengthBytes: SECTOR, trace })).toThrow("before anything happens");
  });
});
