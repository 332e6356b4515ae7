/** Writes whose clusters are dropped under them: see refcount/inflight.ts. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { CorruptImageError, IoVector, KiB, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import {
  CLUSTER as EXTENDED_CLUSTER,
  entryAt,
  entryOf,
  findingsOf,
  fullBacking,
  openExtended,
  SUBCLUSTER,
} from "./support/extended.js";
import { createInMemory } from "./support/images.js";

const CLUSTER = 64 * KiB;

/** A full backing file whose next read waits. */
function parkedBacking(lengthBytes: number): {
  child: BlockChild;
  parked: Promise<void>;
  go: () => void;
} {
  let arrived = (): void => {};
  let go = (): void => {};
  const parked = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const content = new Uint8Array(lengthBytes).fill(9);
  const onRequest = (): Promise<void> => {
    arrived();
    return gate;
  };
  return { child: directChild(new SimDisk({ content, onRequest })), parked, go };
}

describe("writev()", () => {
  test("must keep its clusters from others while the rest of it is copied [D1]", async () => {
    const options = { size: 2 ** 21, backing_file: "base", backing_fmt: "raw" };
    const memory = openMemory({ bytes: (await createInMemory(options)).bytes });
    const { child, parked, go } = parkedBacking(2 ** 21);
    const disk = await openQcow2({ file: directChild(memory), backing: child });
    const write = (offset: number, length: number, value: number): Promise<void> =>
      Promise.resolve(disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value))));
    await write(0, CLUSTER, 1);
    await disk.flushToOs();
    // The first cluster is written in place, the second is new and copies its tail from the backing file.
    const rewrite = write(0, CLUSTER + 4 * KiB, 2);
    await parked;
    await disk.discard(0, CLUSTER);
    await disk.flushToOs();
    await write(10 * CLUSTER, CLUSTER, 5);
    go();
    await rewrite;
    const other = new Uint8Array(CLUSTER);
    await disk.readv(10 * CLUSTER, IoVector.of(other));
    expect(other.every((byte) => byte === 5)).toBe(true);
    await disk.close();
    const left = directChild(memory);
    expect((await checkQcow2(left, await readHeader(left))).findings).toEqual([]);
  });
});

describe("writev() with subclusters", () => {
  const HOST = "8000000000014000";

  test("must take data for the subclusters that it touches, and copy no others", async () => {
    const one = await openExtended({ backing: fullBacking(64 * EXTENDED_CLUSTER) });
    await one.write(700, 100, 1);
    expect(await entryOf(one, 0)).toEqual([HOST, "0000000000000002"]);
    expect(one.disk.statistics()["cowBytes"]).toBe(SUBCLUSTER - 100);
    // In place, from the middle of a subcluster with data into one without: only the tail is copied.
    await one.write(800, 300, 2);
    expect(await entryOf(one, 0)).toEqual([HOST, "0000000000000006"]);
    expect(one.disk.statistics()["cowBytes"]).toBe(2 * SUBCLUSTER - 100 - (1100 - 1024));
    const bytes = await one.read(0, EXTENDED_CLUSTER);
    const runs = [699, 700, 799, 800, 1099, 1100, 16383].map((at) => bytes[at]);
    expect(runs).toEqual([9, 1, 1, 2, 2, 9, 9]);
    await one.disk.close();
    expect(await findingsOf(one.memory)).toEqual([]);
  });

  test("must go straight to the file where every subcluster has data, and only there", async () => {
    const one = await openExtended();
    await one.write(0, 2 * SUBCLUSTER, 1);
    const vector = IoVector.of(new Uint8Array(600));
    expect(one.disk.writev(100, vector)).toBeUndefined();
    expect(one.disk.readv(100, vector)).toBeUndefined();
    expect(one.disk.writev(600, vector)).toBeInstanceOf(Promise);
    await one.disk.close();
  });

  test("must let two writers fill different subclusters of one new cluster", async () => {
    const one = await openExtended({
      file: ({ bytes }) => directChild(new SimDisk({ content: bytes })),
      backing: fullBacking(64 * EXTENDED_CLUSTER),
    });
    await Promise.all(
      [5, 1, 30, 2].map((subcluster) => one.write(subcluster * SUBCLUSTER + 10, 600, subcluster)),
    );
    // The L2 table is the other one.
    expect(one.disk.statistics()["allocatedClusters"]).toBe(2);
    const bytes = await one.read(0, EXTENDED_CLUSTER);
    for (const [at, value] of [
      [5 * SUBCLUSTER, 9],
      [5 * SUBCLUSTER + 10, 5],
      [5 * SUBCLUSTER + 609, 5],
      [5 * SUBCLUSTER + 610, 9],
      [SUBCLUSTER + 10, 1],
      [30 * SUBCLUSTER + 10, 30],
      [31 * SUBCLUSTER + 98, 9],
    ] as const) {
      expect({ at, value: bytes[at] }).toEqual({ at, value });
    }
    await one.disk.close();
  });

  test("must link nothing, and drop nothing, when its data cannot be written [C10]", async () => {
    const one = await openExtended({ backing: fullBacking(64 * EXTENDED_CLUSTER) });
    await one.write(0, SUBCLUSTER, 1);
    await one.disk.close();
    const file = new SimDisk({ content: one.memory.bytes });
    const backing = fullBacking(64 * EXTENDED_CLUSTER);
    const disk = await openQcow2({ file: directChild(file), backing });
    file.inject({ kind: "write", nth: 1, code: "EIO" });
    const write = Promise.resolve(disk.writev(600, IoVector.allocate(100)));
    await expect(write).rejects.toMatchObject({ code: "EIO" });
    const target = IoVector.allocate(2 * SUBCLUSTER);
    await disk.readv(0, target);
    const bytes = target.toBytes();
    expect([bytes[511], bytes[512], bytes[600]]).toEqual([1, 9, 9]);
    await disk.close();
    const left = directChild(openMemory({ bytes: file.bytes }));
    expect((await checkQcow2(left, await readHeader(left))).findings).toEqual([]);
  });

  test("must refuse an entry whose bitmap is impossible, and change nothing [C14]", async () => {
    const one = await openExtended();
    await one.write(0, EXTENDED_CLUSTER, 1);
    await one.disk.close();
    const at = await entryAt(one.memory, 0);
    for (const [descriptor, bitmap] of [
      [0x8000_0000_0001_4000n, 0x0000_0100_ffff_ffffn],
      [0n, 4n],
    ] as const) {
      const { bytes } = one.memory;
      viewOf(bytes).setBigUint64(at, descriptor);
      viewOf(bytes).setBigUint64(at + 8, bitmap);
      const memory = openMemory({ bytes });
      const disk = await openQcow2({ file: directChild(memory) });
      const vector = IoVector.allocate(SUBCLUSTER);
      const write = async (): Promise<void> => disk.writev(0, vector);
      const read = async (): Promise<void> => disk.readv(EXTENDED_CLUSTER - SUBCLUSTER, vector);
      await expect(write()).rejects.toBeInstanceOf(CorruptImageError);
      await expect(read()).rejects.toBeInstanceOf(CorruptImageError);
      expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
      await disk.close();
    }
  });
});
