import { AssertionError } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { SeqCache, type SeqFlush } from "../src/index.js";
import { bytesOf, PoisonPool } from "./support/pool.js";

const SIZE = 16;

function cacheOf(pool = new PoisonPool(), maxClusters?: number): SeqCache {
  const options = { clusterSize: SIZE, allocator: pool };
  return new SeqCache(maxClusters === undefined ? options : { ...options, maxClusters });
}

function next(cache: SeqCache, unfinished = true): SeqFlush {
  const flush = cache.nextFlush({ unfinished });
  if (flush === undefined) throw new Error("nothing was handed out");
  return flush;
}

/** What is handed out, as `[offset, length, finished]`, settled at once. */
function drain(cache: SeqCache): (number | boolean)[][] {
  const seen: (number | boolean)[][] = [];
  while (cache.flushableCount > 0) {
    const { token, offset, length, finished } = next(cache);
    seen.push([offset, length, finished]);
    cache.discard(token);
  }
  return seen;
}

function readAll(cache: SeqCache, offset: number, length: number): Uint8Array {
  const target = new Uint8Array(length);
  expect(cache.read(offset, target)).toBe("hit");
  return target;
}

describe("write()", () => {
  test("[S1] must append a piece that starts at the end of the unfinished entry", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 5));
    cache.write(5, bytesOf(5, 6));
    expect([cache.clusterCount, cache.stats.entries]).toEqual([1, 1]);
    expect(readAll(cache, 0, 11)).toEqual(bytesOf(0, 11));
  });

  test("[S1] must split at cluster bounds, whatever the write covers", () => {
    const cache = cacheOf();
    cache.write(SIZE + 10, bytesOf(0, 6 + SIZE + 3));
    expect([cache.clusterCount, cache.finishedCount, cache.flushableCount]).toEqual([3, 2, 3]);
    expect(readAll(cache, SIZE + 10, 25)).toEqual(bytesOf(0, 25));
    expect(drain(cache)).toEqual([
      [26, 6, true],
      [32, 16, true],
      [48, 3, false],
    ]);
  });

  test("[S1] must finish a partial entry when the next piece starts elsewhere", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 5));
    expect(cache.finishedCount).toBe(0);
    cache.write(4 * SIZE, bytesOf(5, 2));
    expect(cache.finishedCount).toBe(1);
    expect(drain(cache)).toEqual([
      [0, 5, true],
      [4 * SIZE, 2, false],
    ]);
  });

  test("[S1] must refuse a cluster that has an entry, and change nothing", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 5));
    for (const offset of [0, 4, 6, 15])
      expect(() => cache.write(offset, bytesOf(0, 1)), `${offset}`).toThrow(AssertionError);
    cache.write(5 * SIZE, bytesOf(9, SIZE));
    expect(() => cache.write(5, bytesOf(0, 1))).toThrow(AssertionError);
    expect(() => cache.write(5 * SIZE, bytesOf(0, 1))).toThrow(AssertionError);
    expect(drain(cache)).toEqual([
      [0, 5, true],
      [5 * SIZE, SIZE, true],
    ]);
  });

  test("[S1] must go on appending after a refused write, and take no buffer for it", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, 5));
    expect(() => cache.write(9, bytesOf(0, 1))).toThrow(AssertionError);
    cache.write(5, bytesOf(5, 1));
    expect([pool.lent.size, cache.finishedCount]).toEqual([1, 0]);
    expect(readAll(cache, 0, 6)).toEqual(bytesOf(0, 6));
  });

  test("[S1] must never refuse for want of room, and say that it is full", () => {
    const cache = cacheOf(new PoisonPool(), 2);
    cache.write(0, bytesOf(0, SIZE));
    expect(cache.full).toBe(false);
    cache.write(SIZE, bytesOf(0, 1));
    expect(cache.full).toBe(true);
    cache.write(3 * SIZE, bytesOf(0, 9 * SIZE));
    expect(cache.clusterCount).toBe(11);
    drain(cache);
    expect(cache.full).toBe(false);
  });

  test("[S2] must finish an entry that appending fills", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 10));
    cache.write(10, bytesOf(10, 6));
    expect(cache.finishedCount).toBe(1);
    expect(next(cache, false)).toMatchObject({ offset: 0, length: SIZE, finished: true });
  });

  test("[S2] must finish a new entry that its first piece fills, and append after it safely", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 3));
    for (const [offset, length] of [
      [2 * SIZE + 9, 7],
      [6 * SIZE, SIZE],
    ] as const) {
      cache.write(offset, bytesOf(offset, length));
      cache.write(offset + length, bytesOf(offset + length, 4));
      expect(readAll(cache, offset, length + 4)).toEqual(bytesOf(offset, length + 4));
    }
    expect(drain(cache)).toEqual([
      [0, 3, true],
      [2 * SIZE + 9, 7, true],
      [3 * SIZE, 4, true],
      [6 * SIZE, SIZE, true],
      [7 * SIZE, 4, false],
    ]);
  });

  test("must copy: the caller's buffer is his own again", () => {
    const cache = cacheOf();
    const bytes = bytesOf(0, SIZE + 4);
    cache.write(0, bytes);
    bytes.fill(0);
    expect(readAll(cache, 0, SIZE + 4)).toEqual(bytesOf(0, SIZE + 4));
  });

  test("of nothing must do nothing, also to an unfinished entry", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    cache.write(100, new Uint8Array(0));
    expect([cache.clusterCount, cache.finishedCount]).toEqual([1, 0]);
  });

  test("must work at offsets past 2^40, and refuse what is no offset", () => {
    const cache = cacheOf();
    const at = 2 ** 50 + 3;
    cache.write(at, bytesOf(0, SIZE));
    expect(readAll(cache, at, SIZE)).toEqual(bytesOf(0, SIZE));
    for (const bad of [-1, 0.5, 2 ** 53 - 1, Number.NaN])
      expect(() => cache.write(bad, bytesOf(0, 1))).toThrow(AssertionError);
  });

  test("whose allocator throws must leave the unfinished entry as it was", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, 4));
    pool.refuse = true;
    expect(() => cache.write(SIZE, bytesOf(0, 4))).toThrow("out of memory");
    cache.write(4, bytesOf(4, 4));
    expect(drain(cache)).toEqual([[0, 8, false]]);
    cache.free();
  });
});

describe("read()", () => {
  test("[S3] must neither evict nor change anything", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, SIZE + 4));
    for (let i = 0; i < 100; i++) {
      readAll(cache, 0, SIZE + 4);
      cache.read(i * SIZE, new Uint8Array(3 * SIZE));
    }
    expect(drain(cache)).toEqual([
      [0, SIZE, true],
      [SIZE, 4, false],
    ]);
  });

  test("[S4] must not leave the second part of a span to the file when only that is cached", () => {
    const cache = cacheOf();
    cache.write(SIZE, bytesOf(0, 8));
    const target = new Uint8Array(12);
    expect(cache.read(SIZE - 4, target)).toEqual([{ position: 0, length: 4 }]);
    expect(target.subarray(4)).toEqual(bytesOf(0, 8));
  });

  test("[S4] must name every gap: before, between and behind what is cached", () => {
    const cache = cacheOf();
    cache.write(SIZE + 4, bytesOf(1, 4));
    cache.write(3 * SIZE, bytesOf(50, SIZE));
    cache.write(4 * SIZE, bytesOf(50 + SIZE, 2));
    const target = new Uint8Array(5 * SIZE).fill(0xdd);
    expect(cache.read(0, target)).toEqual([
      { position: 0, length: SIZE + 4 },
      { position: SIZE + 8, length: 2 * SIZE - 8 },
      { position: 4 * SIZE + 2, length: SIZE - 2 },
    ]);
    const expected = new Uint8Array(5 * SIZE).fill(0xdd);
    expected.set(bytesOf(1, 4), SIZE + 4);
    expected.set(bytesOf(50, SIZE + 2), 3 * SIZE);
    expect(target).toEqual(expected);
  });

  test("[S4] must tell a miss beside cached bytes of the same cluster", () => {
    const cache = cacheOf();
    cache.write(4, bytesOf(0, 4));
    const target = new Uint8Array(4).fill(0xdd);
    for (const offset of [0, 8, 12, SIZE]) expect(cache.read(offset, target)).toBe("miss");
    expect(target).toEqual(new Uint8Array(4).fill(0xdd));
    expect(cache.read(4, new Uint8Array(0))).toBe("hit");
  });

  test("must count hits, part hits and misses", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    cache.read(0, new Uint8Array(4));
    cache.read(0, new Uint8Array(5));
    cache.read(9, new Uint8Array(5));
    cache.read(99, new Uint8Array(5));
    expect(cache.stats).toMatchObject({ hits: 1, partialHits: 1, misses: 2 });
  });
});

describe("nextFlush()", () => {
  test("[S5] must hand out the oldest finished entry first, each once", () => {
    const cache = cacheOf();
    for (const cluster of [7, 2, 9, 1]) cache.write(cluster * SIZE, bytesOf(cluster, 3));
    expect([next(cache), next(cache), next(cache)].map((flush) => flush.offset / SIZE)).toEqual([
      7, 2, 9,
    ]);
    expect(cache.nextFlush()).toBeUndefined();
    expect(cache.handedOutCount).toBe(3);
    expect(cache.clusterCount).toBe(4);
  });

  test("must say where the next finished entry goes, and of the unfinished one nothing", () => {
    const cache = cacheOf();
    expect(cache.nextOffset).toBeUndefined();
    cache.write(5, bytesOf(0, SIZE - 5));
    cache.write(SIZE, bytesOf(0, SIZE));
    cache.write(2 * SIZE, bytesOf(0, 3));
    for (const expected of [5, SIZE]) {
      expect(cache.nextOffset).toBe(expected);
      expect(cache.nextFlush()?.offset).toBe(expected);
    }
    expect(cache.nextOffset).toBeUndefined();
  });

  test("[S5] must hand out the unfinished entry only if wanted, and leave it unfinished", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    expect(cache.nextFlush()).toBeUndefined();
    expect(cache.nextFlush({ unfinished: false })).toBeUndefined();
    const first = next(cache);
    expect(first).toMatchObject({ offset: 0, length: 4, finished: false });
    cache.write(4, bytesOf(4, 4));
    expect(cache.stats.entries).toBe(1);
    expect(next(cache)).toMatchObject({ offset: 0, length: 8, finished: false });
  });

  test("[S5] must not hand out what is handed out already, so that a flush loop ends", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const flush = next(cache);
    expect(cache.flushableCount).toBe(0);
    expect(cache.nextFlush({ unfinished: true })).toBeUndefined();
    cache.write(2 * SIZE, bytesOf(0, 1));
    expect(cache.nextFlush()).toBeUndefined();
    cache.discard(flush.token);
    expect(cache.clusterCount).toBe(1);
  });

  test("[S5] must keep the buffer as it is until the token is settled, though others are freed", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 4));
    const second = next(cache);
    cache.discard(second.token);
    expect(cache.clusterCount).toBe(0);
    cache.write(8, bytesOf(8, 4));
    expect(first.buffer.subarray(0, 4)).toEqual(bytesOf(0, 4));
    expect(pool.lent.size).toBe(2);
    cache.discard(first.token);
    expect(pool.lent.size).toBe(1);
    expect(readAll(cache, 8, 4)).toEqual(bytesOf(8, 4));
  });

  test("[S5] must show zeroes behind the data, up to the cluster's end", () => {
    const cache = cacheOf();
    cache.write(5, bytesOf(0, 4));
    const { buffer } = next(cache);
    expect(buffer).toEqual(Uint8Array.from([...bytesOf(0, 4), ...new Uint8Array(7)]));
    cache.write(9, bytesOf(4, 1));
    expect(next(cache).buffer).toEqual(Uint8Array.from([...bytesOf(0, 5), ...new Uint8Array(6)]));
  });

  test("must hand out memory that is as aligned as the file's bytes are", () => {
    const cache = cacheOf();
    cache.write(SIZE + 5, bytesOf(0, 4));
    const { buffer } = next(cache);
    expect(buffer.byteOffset % SIZE).toBe(5);
    expect(buffer.length).toBe(SIZE - 5);
  });
});

describe("discard()", () => {
  test("[S7] must forget what was written and free its buffer", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, SIZE));
    cache.discard(next(cache).token);
    expect([cache.clusterCount, cache.cachedBytes, pool.lent.size]).toEqual([0, 0, 0]);
    expect(cache.read(0, new Uint8Array(SIZE))).toBe("miss");
  });

  test("[S7] must keep what the unfinished entry grew by, and only that", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const flush = next(cache);
    cache.write(4, bytesOf(4, 3));
    cache.discard(flush.token);
    expect([cache.clusterCount, cache.cachedBytes]).toEqual([1, 3]);
    const target = new Uint8Array(7);
    expect(cache.read(0, target)).toEqual([{ position: 0, length: 4 }]);
    expect(target.subarray(4)).toEqual(bytesOf(4, 3));
    cache.write(7, bytesOf(7, 2));
    expect(drain(cache)).toEqual([[4, 5, false]]);
  });

  test("[S7] must keep what it grew by when the entry was finished meanwhile", () => {
    for (const full of [true, false]) {
      const cache = cacheOf();
      cache.write(0, bytesOf(0, 4));
      const flush = next(cache);
      cache.write(4, bytesOf(4, full ? SIZE - 4 : 3));
      if (!full) cache.write(9 * SIZE, bytesOf(0, SIZE));
      cache.discard(flush.token);
      expect(drain(cache)[0]).toEqual([4, full ? SIZE - 4 : 3, true]);
    }
  });

  test("[S7] must go by the token's own bytes when two handouts of one entry end out of order", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 4));
    const second = next(cache);
    cache.write(8, bytesOf(8, 2));
    cache.discard(second.token);
    expect(cache.cachedBytes).toBe(2);
    cache.discard(first.token);
    expect(readAll(cache, 8, 2)).toEqual(bytesOf(8, 2));
    expect(drain(cache)).toEqual([[8, 2, false]]);
    cache.free();
  });

  test("[S7] must not hand out again what a later handout carries", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 4));
    const second = next(cache);
    cache.discard(first.token);
    expect([cache.cachedBytes, cache.flushableCount]).toEqual([4, 0]);
    expect(cache.nextFlush({ unfinished: true })).toBeUndefined();
    cache.discard(second.token);
    cache.free();
  });

  test("[S7] must let a flushed cluster be continued in its middle", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    cache.discard(next(cache).token);
    cache.write(4, bytesOf(4, SIZE));
    expect(drain(cache)).toEqual([
      [4, SIZE - 4, true],
      [SIZE, 4, false],
    ]);
  });

  test("must refuse a token twice, and another cache's", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, SIZE));
    const { token } = next(cache);
    expect(() => cacheOf().discard(token)).toThrow(AssertionError);
    cache.discard(token);
    expect(() => cache.discard(token)).toThrow(AssertionError);
    expect(() => cache.putBack(token)).toThrow(AssertionError);
    expect(cache.handedOutCount).toBe(0);
  });
});

describe("putBack()", () => {
  test("[S5] must keep the bytes readable and hand them out again, in their old order", () => {
    const cache = cacheOf();
    for (const cluster of [5, 3, 8]) cache.write(cluster * SIZE, bytesOf(cluster, SIZE));
    const taken = [next(cache), next(cache)];
    for (const flush of taken) cache.putBack(flush.token);
    expect(cache.finishedCount).toBe(3);
    expect(readAll(cache, 5 * SIZE, SIZE)).toEqual(bytesOf(5, SIZE));
    expect(drain(cache).map(([offset]) => (offset as number) / SIZE)).toEqual([5, 3, 8]);
  });

  test("of an unfinished entry must hand it out again, grown or finished meanwhile", () => {
    for (const then of ["nothing", "grow", "finish"]) {
      const cache = cacheOf();
      cache.write(0, bytesOf(0, 4));
      const { token } = next(cache);
      if (then === "grow") cache.write(4, bytesOf(4, 1));
      if (then === "finish") cache.write(SIZE, bytesOf(0, SIZE));
      expect(cache.flushableCount).toBe(then === "nothing" ? 0 : 1);
      cache.putBack(token);
      expect(cache.flushableCount).toBe(then === "finish" ? 2 : 1);
      expect(drain(cache)[0]).toEqual([0, then === "grow" ? 5 : 4, then === "finish"]);
      cache.free();
    }
  });

  test("must not hand out twice what a later handout carries", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 1));
    const second = next(cache);
    cache.putBack(first.token);
    expect(cache.flushableCount).toBe(0);
    cache.putBack(second.token);
    expect(drain(cache)).toEqual([[0, 5, false]]);
  });
});

describe("drop()", () => {
  test("[S14] must forget an entry, queued or unfinished, and free its buffer", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, 2 * SIZE + 4));
    expect([cache.drop(SIZE), cache.drop(SIZE), cache.drop(2 * SIZE)]).toEqual([true, false, true]);
    expect(pool.lent.size).toBe(1);
    expect(cache.read(SIZE, new Uint8Array(2 * SIZE))).toBe("miss");
    cache.write(2 * SIZE, bytesOf(0, 3));
    expect(drain(cache)).toEqual([
      [0, SIZE, true],
      [2 * SIZE, 3, false],
    ]);
    expect(() => cache.drop(1)).toThrow(AssertionError);
  });

  test("[S14] must forget one that is handed out, but keep its buffer until it is settled", () => {
    for (const settle of ["discard", "putBack"] as const) {
      const pool = new PoisonPool();
      const cache = cacheOf(pool);
      cache.write(0, bytesOf(0, 4));
      const flush = next(cache);
      expect(cache.drop(0)).toBe(true);
      expect(cache.read(0, new Uint8Array(4))).toBe("miss");
      expect(flush.buffer.subarray(0, 4)).toEqual(bytesOf(0, 4));
      expect([cache.clusterCount, cache.bufferCount, cache.handedOutCount]).toEqual([0, 1, 1]);
      cache[settle](flush.token);
      expect([cache.bufferCount, pool.lent.size, cache.flushableCount]).toEqual([0, 0, 0]);
      cache.free();
    }
  });

  test("[S14] must not let a failed write bring back what was dropped", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, SIZE));
    const flush = next(cache);
    cache.drop(0);
    cache.putBack(flush.token);
    expect([cache.flushableCount, cache.bufferCount]).toEqual([0, 0]);
  });

  test("[S14, D1] must stay closed until the last of two writes is settled", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 1));
    const second = next(cache);
    cache.drop(0);
    cache.discard(first.token);
    expect(() => cache.write(0, bytesOf(9, 1))).toThrow(AssertionError);
    cache.discard(second.token);
    cache.write(0, bytesOf(9, 1));
    expect(cache.clusterCount).toBe(1);
  });

  test("[S14, D1] must keep the cluster closed while a write of its old bytes is under way", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    const first = next(cache);
    cache.write(4, bytesOf(4, 1));
    const second = next(cache);
    cache.discard(second.token);
    expect(cache.drop(0)).toBe(false);
    expect(cache.isHandedOut(0)).toBe(true);
    expect(() => cache.write(0, bytesOf(9, 1))).toThrow(AssertionError);
    cache.discard(first.token);
    expect(cache.isHandedOut(0)).toBe(false);
    cache.write(0, bytesOf(9, 1));
    expect(drain(cache)).toEqual([[0, 1, false]]);
  });
});

describe("free()", () => {
  test("[S15] must refuse while anything is cached or handed out", () => {
    const cache = cacheOf();
    cache.write(0, bytesOf(0, 4));
    expect(() => cache.free()).toThrow("a cache is empty");
    const flush = next(cache);
    cache.drop(0);
    expect(() => cache.free()).toThrow("every handout is settled");
    cache.discard(flush.token);
    cache[Symbol.dispose]();
    expect(() => cache.write(0, bytesOf(0, 4))).toThrow(AssertionError);
  });

  test("must be possible after dropAll(), which says what is lost", () => {
    const pool = new PoisonPool();
    const cache = cacheOf(pool);
    cache.write(0, bytesOf(0, 3 * SIZE + 5));
    cache.putBack(next(cache).token);
    expect(cache.dropAll()).toBe(3 * SIZE + 5);
    expect([cache.cachedBytes, pool.lent.size, cache.stats.droppedBytes]).toEqual([0, 0, 53]);
    cache.free();
  });
});
