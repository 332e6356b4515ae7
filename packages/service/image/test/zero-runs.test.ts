import { Random } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { forEachRun } from "../src/copy/zero-runs.js";

type Run = [isZero: boolean, from: number, to: number];

function runsOf(bytes: Uint8Array, start: number, granule: number, min: number): Run[] {
  const runs: Run[] = [];
  forEachRun(bytes, start, granule, min, (...run) => runs.push(run));
  return runs;
}

test("forEachRun() must keep whole units of zeroes apart from data", () => {
  const bytes = new Uint8Array(4 * 4096);
  bytes[4096 + 100] = 1;
  expect(runsOf(bytes, 0, 4096, 4096)).toEqual([
    [true, 0, 4096],
    [false, 4096, 8192],
    [true, 8192, 16384],
  ]);
});

test("forEachRun() must count units from the start of the disk", () => {
  const bytes = new Uint8Array(8192);
  bytes[0] = 1;
  expect(runsOf(bytes, 1024, 4096, 1024)).toEqual([
    [false, 0, 3072],
    [true, 3072, 8192],
  ]);
});

test("forEachRun() must take zero runs that are too short for data", () => {
  const bytes = new Uint8Array(5 * 512);
  bytes[0] = 1;
  bytes[4 * 512] = 1;
  expect(runsOf(bytes, 0, 512, 2048)).toEqual([[false, 0, 2560]]);
  expect(runsOf(bytes, 0, 512, 1536)).toHaveLength(3);
});

test("forEachRun() must cover the buffer without gaps, and never call a byte that is not zero a zero", () => {
  const random = new Random(1);
  for (let run = 0; run < 500; run++) {
    const pieces = Array.from({ length: random.below(12) }, () =>
      Array<number>(random.below(3000)).fill(random.below(3)),
    );
    const bytes = Uint8Array.from(pieces.flat());
    const granule = random.pick([512, 4096, 65536]);
    const min = random.pick([512, 4096, 8192]);
    let at = 0;
    let before: boolean | undefined;
    for (const [isZero, from, to] of runsOf(bytes, random.below(20) * 512, granule, min)) {
      expect(from).toBe(at);
      expect(to).toBeGreaterThan(from);
      expect(isZero).not.toBe(before);
      if (isZero) expect(bytes.subarray(from, to).every((byte) => byte === 0)).toBe(true);
      at = to;
      before = isZero;
    }
    expect(at).toBe(bytes.length);
  }
});
