/** One header in the place of another: whatever a crash leaves of the writes is the old one or the new one. */
import { writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { alignUp } from "@blocklayer/bytes";
import { crashStates, SimDisk, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import {
  decodeHeader,
  encodeHeader,
  openQcow2,
  type Qcow2Header,
  readHeader,
  withBackingFile,
} from "../src/index.js";
import { type HeaderExtension, EXTENSION } from "../src/header/header.js";
import { layoutOf } from "../src/header/encode.js";
import { type HeaderStep, stepsTo } from "../src/header/replace-steps.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";

const SECTOR = 512;
const MAX_SETS = 64;
const FOREIGN = 0x1234_5678;
const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 300);

/** The first cluster of a file. */
class HeadOfFile {
  bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes.slice();
  }

  get header(): Qcow2Header {
    return decodeHeader(this.bytes, 2 ** 30);
  }

  steps(next: Qcow2Header): readonly HeaderStep[] {
    const length = alignUp(layoutOf(next).lengthBytes, SECTOR);
    return stepsTo(this.header, next, this.bytes.slice(0, length));
  }

  /** The states that a crash in the middle of a step may leave: every set of its sectors, or some of many. */
  *torn({ at, bytes }: HeaderStep, rng: Rng): Generator<HeadOfFile> {
    const sectors = bytes.length / SECTOR;
    const sets = 2 ** sectors;
    for (let count = 0; count < Math.min(sets, MAX_SETS); count++) {
      const set = sets <= MAX_SETS ? count : rng.below(sets);
      const left = new HeadOfFile(this.bytes);
      for (let i = 0; i < sectors; i++) {
        if ((set & (1 << i)) === 0) continue;
        left.bytes.set(bytes.subarray(i * SECTOR, (i + 1) * SECTOR), at + i * SECTOR);
      }
      yield left;
    }
  }

  write({ at, bytes }: HeaderStep): void {
    this.bytes.set(bytes, at);
  }
}

/** All that counts in a header: not where the name lies, and not the names of features. */
function meaningOf(header: Qcow2Header): string {
  const { version, virtualSize, autoclear, l1TableOffset, backingFilenameBytes = [] } = header;
  const extensions = header.extensions
    .filter(({ type }) => type !== EXTENSION.featureNames)
    .map(({ type, data }) => [type, ...data]);
  const name = [...backingFilenameBytes];
  return JSON.stringify([version, virtualSize, String(autoclear), l1TableOffset, name, extensions]);
}

function foreignBytes({ extensions }: Qcow2Header): number {
  return extensions.reduce((sum, { type, data }) => sum + (type === FOREIGN ? data.length : 0), 0);
}

function isAtOnce(steps: readonly HeaderStep[]): boolean {
  return steps.some(({ at, bytes }) => at === 0 && bytes.length > SECTOR);
}

async function headOf(clusterSize: number, compat: "v2" | "v3"): Promise<HeadOfFile> {
  const { bytes } = await createInMemory({ size: 65536, cluster_size: clusterSize, compat });
  return new HeadOfFile(bytes.subarray(0, clusterSize));
}

/** Another header, whatever it may be. */
function changed(header: Qcow2Header, rng: Rng): Qcow2Header {
  const foreign: HeaderExtension[] = [0, 0, 20, 300, 500, 900]
    .slice(0, rng.below(2) * 6)
    .map((length) => ({ type: FOREIGN, data: new Uint8Array(length).fill(rng.below(256)) }))
    .filter(({ data }) => data.length > 0 && rng.below(3) === 0);
  const kept = header.extensions.filter(
    ({ type }) => type !== EXTENSION.bitmaps && (type !== FOREIGN || rng.below(4) > 0),
  );
  const data = new Uint8Array(24);
  data.set([1 + rng.below(9)], 3);
  data.set([64], 15);
  data.set([rng.below(256), 0, 0], 20);
  data.set([1], 19);
  const hasBitmaps = header.version === 3 && rng.below(2) === 0;
  const bitmaps = hasBitmaps ? [{ type: EXTENSION.bitmaps, data }] : [];
  const next = {
    ...header,
    extensions: [...kept, ...foreign.slice(0, 2), ...bitmaps],
    autoclear: hasBitmaps ? 1n : 0n,
    virtualSize: 65536 - 512 * rng.below(8),
  };
  if (rng.below(3) === 0) return next;
  const letter = rng.pick(["a", "b", "/"]);
  const name = letter.repeat(rng.pick([0, 5, 200, 300, 400, 600, 1023]));
  return withBackingFile(next, name === "" ? undefined : name, name === "" ? undefined : "raw");
}

describe("stepsTo()", () => {
  test.each([
    [1024, "v2"],
    [1024, "v3"],
    [2048, "v2"],
    [4096, "v3"],
    [8192, "v2"],
    [8192, "v3"],
  ] as const)(
    "must leave the old header or the new one, whatever sectors are written: %d, %s",
    async (clusterSize, compat) => {
      const rng = new Rng(clusterSize + compat.charCodeAt(1));
      let head = await headOf(clusterSize, compat);
      let replaced = 0;
      let atOnce = 0;
      for (let run = 0; run < RUNS; run++) {
        // A header that many crashes have left full is given up.
        if (run % 5 === 0) head = await headOf(clusterSize, compat);
        const next = changed(head.header, rng);
        if (layoutOf(next).lengthBytes > clusterSize) continue;
        replaced++;
        const [before, after] = [meaningOf(head.header), meaningOf(next)];
        const steps = head.steps(next);
        if (isAtOnce(steps)) {
          atOnce++;
          const both = [next, head.header];
          const isLong = both.some((one) => foreignBytes(one) >= 300);
          const lengths = both.map((one) => layoutOf(one).lengthBytes + one.backingFileOffset);
          const isFull = Math.max(...lengths) > clusterSize / 2;
          expect([run, (isLong && compat === "v2") || isFull]).toEqual([run, true]);
          continue;
        }
        // Where the crash comes; behind the last step: it does not come.
        const crashAt = rng.below(2 * steps.length);
        let isNew = false;
        for (const [index, step] of steps.entries()) {
          const states = [...head.torn(step, rng)];
          for (const state of states) {
            expect([run, index, [before, after].includes(meaningOf(state.header))]).toEqual([
              run,
              index,
              true,
            ]);
          }
          head.write(step);
          if (isNew) expect([run, meaningOf(head.header)]).toEqual([run, after]);
          isNew = before !== after && meaningOf(head.header) === after;
          if (index !== crashAt) continue;
          head = rng.pick(states);
          break;
        }
        if (crashAt < steps.length) continue;
        const whole = encodeHeader(next);
        expect([run, Buffer.compare(head.bytes.subarray(0, whole.length), whole)]).toEqual([
          run,
          0,
        ]);
      }
      expect(replaced).toBeGreaterThan(RUNS / 4);
      expect(atOnce).toBeLessThan(clusterSize >= 4096 && compat === "v3" ? replaced / 8 : replaced);
    },
  );

  test("must write one sector where only one is another", async () => {
    const head = await headOf(8192, "v3");
    const named = withBackingFile(head.header, "name".repeat(100), "raw");
    for (const step of head.steps(named)) head.write(step);
    const { virtualSize } = head.header;
    const steps = head.steps({ ...head.header, virtualSize: virtualSize - 512 });
    expect(steps.map(({ at, bytes }) => [at, bytes.length])).toEqual([[0, SECTOR]]);
    const renamed = withBackingFile(head.header, "name".repeat(99) + "else", "raw");
    expect(head.steps(renamed).map(({ at, bytes }) => [at, bytes.length])).toEqual([
      [SECTOR, SECTOR],
    ]);
    expect(head.steps(head.header)).toEqual([]);
  });
});

describe("storing bitmaps", () => {
  test.each([
    ["a name", "name.raw"],
    ["a long name", "long/".repeat(120)],
  ])("must leave the old header or the new one after a crash: %s", async (_, name) => {
    const memory = await createInMemory({
      size: 65536,
      cluster_size: 4096,
      backing_file: name,
      backing_fmt: "raw",
    });
    const trace = new Trace();
    const file = new SimDisk({ content: memory.bytes, trace });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.bitmaps.add("one", { recording: false });
    await disk.bitmaps.store();
    await disk.bitmaps.add("two", { recording: false });
    await disk.close();
    const seen = new Set<string>();
    for (const state of crashStates(trace, { seed: 5, maxSubsets: 8, tear: true })) {
      const left = directChild(state.open());
      const header = await readHeader(left);
      expect([header.backingFilename, header.backingFormat]).toEqual([name, "raw"]);
      const found = await openQcow2({ file: left, readOnly: true });
      seen.add((await found.bitmaps.list()).map((one) => one.name).join());
      await found.close();
    }
    expect([...seen].sort()).toEqual(["", "one", "one,two"]);
  });
});

describeWithQemu("headers on the way to another", () => {
  const scratch = useScratch();

  test("must be read by qemu-img as the old one or the new one", async () => {
    const names = ["old.raw", "new.raw", "long/".repeat(120)];
    const foreign = { type: FOREIGN, data: new Uint8Array(600).fill(7) };
    for (const [oldName, newName] of [
      [0, 1],
      [0, 2],
      [2, 0],
    ] as const) {
      for (const extra of [[], [foreign]]) {
        const { bytes } = await createInMemory({ size: 65536, cluster_size: 8192 });
        const head = new HeadOfFile(bytes.subarray(0, 8192));
        const bare = { ...head.header, extensions: [...head.header.extensions, ...extra] };
        for (const step of head.steps(withBackingFile(bare, names[oldName], "raw")))
          head.write(step);
        const next = withBackingFile(head.header, names[newName], "raw");
        const steps = head.steps(next);
        expect(isAtOnce(steps)).toBe(false);
        const seen: unknown[] = [];
        for (const step of steps) {
          head.write(step);
          const path = scratch("step.qcow2");
          await writeFile(path, Buffer.concat([head.bytes, bytes.subarray(8192)]));
          const info = await qemuImg("info", "--output=json", path);
          seen.push((JSON.parse(info.stdout) as Record<string, unknown>)["backing-filename"]);
        }
        expect(
          [...new Set(seen)].every((name) =>
            [names[oldName], names[newName]].includes(name as string),
          ),
        ).toBe(true);
        expect(seen.at(-1)).toBe(names[newName]);
      }
    }
  });
});
