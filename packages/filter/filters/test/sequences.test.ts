/**
 * Requests parked in the file while the disk goes on: no cluster that is in use by one may serve another
 * ([D1], [D3]), and what a compressed cluster gave up is not appended to ([D4], [D5]).
 */
import { describe, expect, test } from "vitest";
import { type DebugDisk, filled, qcow2Disk } from "./support/qcow2-disk.js";

const KiB = 1024;
const A = 0;
const B = 512 * KiB;
const LENGTH = 128 * KiB;
const HALF = 64 * KiB;

const SHAPES = [4 * KiB, 64 * KiB].flatMap((clusterSize) =>
  [1, 16].flatMap((refcountBits) =>
    ["off", "on"].map((cache) => ({ clusterSize, refcountBits, cache })),
  ),
);

/** Lets all that can go on go on. */
async function settled(): Promise<void> {
  for (let turns = 0; turns < 20; turns++) await new Promise((resolve) => setImmediate(resolve));
}

describe.each(SHAPES)("$clusterSize bytes, $refcountBits bits, cache $cache", (shape) => {
  const opened = async (): Promise<DebugDisk> =>
    await qcow2Disk(1024 * KiB, {
      create: { cluster_size: shape.clusterSize, refcount_bits: shape.refcountBits },
      open: { "compressed-write-cache": shape.cache },
    });

  // With a flush behind the discard the clusters are free on disk, too, before the next owner comes.
  test.each([
    ["discarded", false],
    ["discarded and flushed", true],
  ])(
    "a parked rewrite of what is %s must not reach its clusters' next owner",
    async (_, flushes) => {
      await using work = await opened();
      const { disk, debug } = work;
      await disk.write(A, filled(LENGTH, 3));
      debug.breakpoint("write_aio", "rewrite");
      const rewrite = disk.write(A, filled(HALF, 5));
      await debug.whenSuspended("rewrite");
      await disk.discard(A, LENGTH);
      if (flushes) await disk.flush();
      await disk.write(B, filled(LENGTH, 4));
      debug.resume("rewrite");
      await rewrite;
      await disk.flush();
      expect(await work.patternAt(B, LENGTH)).toBe(4);
      expect([0, 5]).toContain(await work.patternAt(A, HALF));
      expect(await work.patternAt(A + HALF, HALF)).toBe(0);
      expect(await work.faults()).toEqual([0, 0]);
      // Nothing stays set aside once the request has ended: the same space serves again.
      await disk.write(A, filled(LENGTH, 6));
      expect(await work.patternAt(A, LENGTH)).toBe(6);
      expect(await work.patternAt(B, LENGTH)).toBe(4);
      expect(await work.faults()).toEqual([0, 0]);
    },
  );

  test.each([
    ["discarded", false],
    ["discarded and flushed", true],
  ])("a parked read of what is %s must not return the next owner's bytes", async (_, flushes) => {
    await using work = await opened();
    const { disk, debug } = work;
    await disk.write(A, filled(LENGTH, 3));
    debug.breakpoint("read_aio", "read");
    const read = work.patternAt(A, HALF);
    await debug.whenSuspended("read");
    await disk.discard(A, LENGTH);
    if (flushes) await disk.flush();
    await disk.write(B, filled(LENGTH, 4));
    debug.resume("read");
    expect([0, 3]).toContain(await read);
    expect(await work.patternAt(B, LENGTH)).toBe(4);
    expect(await work.patternAt(A, LENGTH)).toBe(0);
    expect(await work.faults()).toEqual([0, 0]);
  });

  test("a parked compressed write of what is discarded meanwhile must not reach the next owner", async () => {
    await using work = await opened();
    const { disk, debug } = work;
    debug.breakpoint("write_compressed", "packed");
    const packed = (async () => {
      await disk.write(A, filled(HALF, 5), { compressed: true });
      // With the cache the bytes go to the file only now.
      await disk.flush();
    })();
    await debug.whenSuspended("packed");
    // They may wait: for the clusters that are being allocated [C11], or for the flush of the cache.
    const discarded = disk.discard(A, HALF);
    const written = disk.write(B, filled(LENGTH, 4));
    await settled();
    debug.resume("packed");
    await Promise.all([packed, discarded, written]);
    expect(await work.patternAt(B, LENGTH)).toBe(4);
    // Clusters of the request that had not begun when the discard came may stand.
    const left = await disk.read(A, HALF);
    expect(left.every((byte) => byte === 0 || byte === 5)).toBe(true);
    await disk.discard(A, HALF);
    expect(await work.patternAt(A, HALF)).toBe(0);
    expect(await work.faults()).toEqual([0, 0]);
  });

  test.each([
    ["replaced", false],
    ["replaced and flushed", true],
  ])("a compressed write after one that was %s must not be appended there", async (_, flushes) => {
    const unit = shape.clusterSize;
    await using work = await opened();
    const { disk } = work;
    const step = async (index: number, byte: number, compressed: boolean): Promise<void> => {
      await disk.write(index * unit, filled(unit, byte), { compressed });
      if (flushes) await disk.flush();
    };
    await step(0, 1, true);
    await step(0, 2, false);
    await step(1, 3, false);
    await step(2, 4, true);
    const found = await Promise.all([0, 1, 2].map((index) => work.patternAt(index * unit, unit)));
    expect(found).toEqual([2, 3, 4]);
    expect(await work.faults()).toEqual([0, 0]);
  });
});
