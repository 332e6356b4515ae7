/** Zeroing at the grain of subclusters. What flags do is compared with QEMU in extended-l2.test.ts. */
import { directChild } from "@blocklayer/block-api";
import { CorruptImageError, IoVector, UnsupportedError, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2 } from "../src/index.js";
import {
  CLUSTER,
  entryAt,
  entryOf,
  findingsOf,
  fullBacking,
  openExtended,
  SUBCLUSTER,
} from "./support/extended.js";
import { createInMemory } from "./support/images.js";

const HOST = "8000000000014000";
const NOWHERE = "0000000000000000";

describe("writeZeroes() with subclusters", () => {
  test("must flag whole subclusters, keep their host cluster, and write nothing", async () => {
    const one = await openExtended({ backing: fullBacking(64 * CLUSTER) });
    await one.write(0, CLUSTER, 1);
    const length = one.memory.lengthBytes;
    await one.disk.writeZeroes(SUBCLUSTER, 3 * SUBCLUSTER, { mayUnmap: true, noFallback: true });
    expect(await entryOf(one, 0)).toEqual([HOST, "0000000efffffff1"]);
    expect([...new Set(await one.read(SUBCLUSTER, 3 * SUBCLUSTER))]).toEqual([0]);
    // All of them one by one: the host cluster stays.
    await one.disk.writeZeroes(0, CLUSTER / 2, { mayUnmap: true });
    await one.disk.writeZeroes(CLUSTER / 2, CLUSTER / 2, { mayUnmap: true });
    expect(await entryOf(one, 0)).toEqual([HOST, "ffffffff00000000"]);
    await one.disk.writeZeroes(0, CLUSTER, { mayUnmap: true });
    expect(await entryOf(one, 0)).toEqual([NOWHERE, "ffffffff00000000"]);
    expect(one.memory.lengthBytes).toBe(length);
    await one.disk.close();
    expect(await findingsOf(one.memory)).toEqual([]);
  });

  test("must take no cluster for the rest of a subcluster that reads as zeroes, and write the rest else", async () => {
    const bare = await openExtended();
    await bare.disk.writeZeroes(700, 100, { noFallback: true });
    expect(await entryOf(bare, 0)).toEqual([NOWHERE, "0000000200000000"]);
    await bare.disk.close();
    const one = await openExtended({ backing: fullBacking(64 * CLUSTER) });
    const refused = one.disk.writeZeroes(700, 100, { noFallback: true });
    await expect(refused).rejects.toBeInstanceOf(UnsupportedError);
    await one.disk.writeZeroes(700, 100);
    expect(await entryOf(one, 0)).toEqual([HOST, "0000000000000002"]);
    const bytes = await one.read(SUBCLUSTER, SUBCLUSTER);
    expect([bytes[187], bytes[188], bytes[287], bytes[288]]).toEqual([9, 0, 0, 9]);
    await one.disk.close();
  });

  test("must ask the backing file whether the rest of a part reads as zeroes", async () => {
    const lower = await createInMemory({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    const backing = await openQcow2({ file: directChild(openMemory({ bytes: lower.bytes })) });
    await backing.writev(CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(5)));
    const one = await openExtended({ backing: directChild(backing) });
    await one.disk.writeZeroes(100, 100, { noFallback: true });
    expect(await entryOf(one, 0)).toEqual([NOWHERE, "0000000100000000"]);
    const refused = one.disk.writeZeroes(CLUSTER + 100, 100, { noFallback: true });
    await expect(refused).rejects.toBeInstanceOf(UnsupportedError);
    await one.disk.close();
  });

  test("must write the subclusters of a compressed cluster, and only those", async () => {
    const one = await openExtended();
    const content = IoVector.of(new Uint8Array(CLUSTER).fill(3));
    await one.disk.writev(CLUSTER, content, { compressed: true });
    const part = [CLUSTER + 2 * SUBCLUSTER, SUBCLUSTER] as const;
    await expect(one.disk.writeZeroes(...part, { noFallback: true })).rejects.toThrow("by byte");
    await one.disk.writeZeroes(CLUSTER / 2, CLUSTER / 2 + 2 * SUBCLUSTER);
    expect(await entryOf(one, 0)).toEqual([NOWHERE, "ffff000000000000"]);
    expect((await entryOf(one, 1))[1]).toBe("00000000ffffffff");
    const bytes = await one.read(CLUSTER, CLUSTER);
    expect(bytes.indexOf(3)).toBe(2 * SUBCLUSTER);
    expect(bytes.lastIndexOf(0)).toBe(2 * SUBCLUSTER - 1);
    await one.disk.close();
    expect(await findingsOf(one.memory)).toEqual([]);
  });

  test("must heal an impossible bitmap as a whole, and refuse to touch a part of it", async () => {
    const one = await openExtended();
    await one.write(0, CLUSTER, 1);
    await one.disk.close();
    const { bytes } = one.memory;
    viewOf(bytes).setUint32((await entryAt(one.memory, 0)) + 8, 1);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    const part = Promise.resolve(disk.writeZeroes(8 * SUBCLUSTER, SUBCLUSTER));
    await expect(part).rejects.toBeInstanceOf(CorruptImageError);
    await disk.writeZeroes(0, CLUSTER);
    expect(await entryOf({ memory, disk }, 0)).toEqual([HOST, "ffffffff00000000"]);
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
  });
});

describe("writeZeroes() without subclusters", () => {
  test("must flag a cluster for a part of it when nothing in it has data, as QEMU does", async () => {
    const image = await createInMemory({ size: 2 ** 20, cluster_size: CLUSTER });
    const memory = openMemory({ bytes: image.bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writeZeroes(700, 100, { noFallback: true });
    expect(await disk.blockStatus(0, 2 ** 20)).toMatchObject({
      lengthBytes: CLUSTER,
      allocated: true,
      zero: true,
    });
    await disk.writev(CLUSTER, IoVector.of(new Uint8Array(512).fill(1)));
    await disk.writeZeroes(CLUSTER, 100);
    const bytes = new Uint8Array(512);
    await disk.readv(CLUSTER, IoVector.of(bytes));
    expect(bytes.indexOf(1)).toBe(100);
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
  });
});

describe("writeZeroes() in version 2", () => {
  const CLUSTER_BYTES = 4096;
  const given = { size: 8 * CLUSTER_BYTES, cluster_size: CLUSTER_BYTES, compat: "v2" };

  test("must take whole clusters out of the image, as QEMU does, also when they need not go", async () => {
    const memory = await createInMemory(given);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, IoVector.of(new Uint8Array(3 * CLUSTER_BYTES).fill(7)));
    await disk.writeZeroes(CLUSTER_BYTES, CLUSTER_BYTES + 512);
    expect((await disk.blockStatus(CLUSTER_BYTES, CLUSTER_BYTES)).allocated).toBe(false);
    expect((await disk.blockStatus(2 * CLUSTER_BYTES, CLUSTER_BYTES)).allocated).toBe(true);
    await disk.close();
    expect(await findingsOf(memory)).toEqual([]);
  });

  test("must not let a backing file show that the image names, and is open without", async () => {
    const memory = await createInMemory({ ...given, backing_file: "b.raw", backing_fmt: "raw" });
    const alone = await openQcow2({ file: directChild(memory) });
    await alone.writev(0, IoVector.of(new Uint8Array(CLUSTER_BYTES).fill(7)));
    await alone.writeZeroes(0, CLUSTER_BYTES, { mayUnmap: true });
    await alone.close();
    const backing = directChild(openMemory({ bytes: new Uint8Array(CLUSTER_BYTES).fill(9) }));
    const disk = await openQcow2({ file: directChild(memory), backing });
    const bytes = new Uint8Array(CLUSTER_BYTES);
    await disk.readv(0, IoVector.of(bytes));
    expect([...new Set(bytes)]).toEqual([0]);
    await disk.close();
  });
});
