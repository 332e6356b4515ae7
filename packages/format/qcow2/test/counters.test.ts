import { describe, expect, test } from "vitest";
import { CHUNK_LENGTH, Counters } from "../src/check/counters.js";

/** Where 31, 32 and 44 bits end, and both sides of it. */
const CLUSTERS = [0, 4095, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 4095, 2 ** 44 - 1];

describe("Counters", () => {
  test("must count each cluster by itself, wherever it lies", () => {
    const counters = new Counters({ refcountBits: 16, maxRefcount: 65535 });
    for (const [i, cluster] of CLUSTERS.entries()) counters.set(cluster, i + 1);
    for (const cluster of CLUSTERS) expect(counters.add(cluster, 10)).toBe(0);
    for (const cluster of CLUSTERS) expect(counters.tryAdd(cluster, 65535)).toBe(false);
    expect(CLUSTERS.map((cluster) => counters.get(cluster))).toEqual(
      CLUSTERS.map((_, i) => i + 11),
    );
    expect(counters.get(2 ** 32 + 1)).toBe(0);
    expect(counters.get(2 ** 43)).toBe(0);
  });

  test("chunkIndices() must name what was counted, ascending, each once", () => {
    const counters = new Counters({ refcountBits: 1, maxRefcount: 1 });
    for (const cluster of [...CLUSTERS].reverse()) counters.add(cluster, 1);
    counters.set(2 ** 40, 0);
    const expected = new Set(CLUSTERS.map((cluster) => Math.floor(cluster / CHUNK_LENGTH)));
    expect(counters.chunkIndices()).toEqual([...expected]);
    for (const index of expected) expect(counters.chunk(index)?.some((one) => one > 0)).toBe(true);
    expect(counters.chunk(2 ** 28)).toBeUndefined();
  });
});
