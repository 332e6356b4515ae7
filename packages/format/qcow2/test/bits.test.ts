import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Bits } from "../src/bitmap/bits.js";

const CHUNK = 4;

/** The dirty ranges of a plain list of granules. */
function rangesOf(dirty: readonly boolean[], granularity: number, length: number): unknown[] {
  const ranges: { start: number; end: number }[] = [];
  for (const [i, one] of dirty.entries()) {
    if (!one) continue;
    const last = ranges.at(-1);
    const end = Math.min(length, (i + 1) * granularity);
    if (last?.end === i * granularity) last.end = end;
    else ranges.push({ start: i * granularity, end });
  }
  return ranges;
}

function allRanges(bits: Bits): unknown[] {
  const ranges: unknown[] = [];
  for (let at = 0; ; ) {
    const range = bits.nextRange(at);
    if (range === undefined) return ranges;
    ranges.push(range);
    at = range.end;
  }
}

describe("Bits", () => {
  test("must hold what a list of granules holds, through marks, resizes, and stored chunks", () => {
    const step = fc.oneof(
      fc.record({ mark: fc.tuple(fc.nat(100_000), fc.nat(20_000)) }),
      fc.record({ resize: fc.integer({ min: 1, max: 100_000 }) }),
      fc.constant({ clear: true }),
      fc.constant({ store: true }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), fc.array(step), (firstLength, steps) => {
        let length = firstLength;
        let bits = new Bits(length, 9, CHUNK);
        let model: boolean[] = Array.from({ length: Math.ceil(length / 512) }, () => false);
        for (const one of steps) {
          if ("mark" in one) {
            const offset = one.mark[0] % length;
            const bytes = Math.min(one.mark[1], length - offset);
            bits.mark(offset, bytes);
            if (bytes === 0) continue;
            const last = Math.floor((offset + bytes - 1) / 512);
            for (let i = Math.floor(offset / 512); i <= last; i++) model[i] = true;
          } else if ("resize" in one) {
            length = one.resize;
            bits.resize(length);
            const granules = Math.ceil(length / 512);
            model = Array.from({ length: granules }, (_, i) => model[i] === true);
          } else if ("clear" in one) {
            bits.clear();
            model.fill(false);
          } else {
            const copy = new Bits(length, 9, CHUNK);
            for (const [index, bytes] of bits.chunks) {
              const cluster = new Uint8Array(CHUNK);
              cluster.set(bytes);
              copy.load(index, cluster);
            }
            bits = copy;
          }
          expect(allRanges(bits)).toEqual(rangesOf(model, 512, length));
          for (const index of bits.chunks.keys()) expect(index).toBeLessThan(bits.chunkCount);
        }
      }),
    );
  });

  test("load() must take away bits behind the end of the disk, and keep no empty chunk", () => {
    const bits = new Bits(512 * 3, 9, CHUNK);
    bits.load(0, new Uint8Array(CHUNK).fill(0xff));
    expect([...(bits.chunks.get(0) ?? [])]).toEqual([7]);
    const empty = new Bits(512 * 3, 9, CHUNK);
    empty.load(0, new Uint8Array(CHUNK));
    expect(empty.chunks.size).toBe(0);
  });
});
