import { type BlockChild, directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { BlockGraph } from "@blocklayer/block-graph";
import { fileDriver } from "@blocklayer/file";
import { Random, SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { runQemuIo } from "./support/replay.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const CLUSTER = 4096;
const compressed = { compressed: true };

/** Half of it random: compression leaves about half. */
function cluster(seed: number): Uint8Array {
  const content = new Uint8Array(CLUSTER).fill(seed);
  content.set(new Random(seed).bytes(CLUSTER / 2));
  return content;
}

interface Shared {
  readonly file: SimDisk;
  readonly disk: Qcow2Driver;
}

/** An image whose file others may open too. */
async function shared(create: Readonly<Record<string, unknown>> = {}): Promise<Shared> {
  const image = await createInMemory({ size: 64 * CLUSTER, cluster_size: CLUSTER, ...create });
  const file = new SimDisk({ content: image.bytes });
  const options = { "compressed-write-cache": "on" };
  return { file, disk: await openQcow2({ file: directChild(file), options, nodeName: "disk" }) };
}

async function put(disk: Qcow2Driver, index: number, seed: number, packed = false): Promise<void> {
  await disk.writev(index * CLUSTER, IoVector.of(cluster(seed)), packed ? compressed : {});
}

async function get(disk: Qcow2Driver, index: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(CLUSTER);
  await disk.readv(index * CLUSTER, IoVector.of(bytes));
  return bytes;
}

async function findings(file: BlockChild): Promise<string[]> {
  return (await checkQcow2(file, await readHeader(file))).findings.map(({ message }) => message);
}

describe("Qcow2Driver.inactivate()", () => {
  test("must leave all that was written in the file, durable, and be refused everything [S15]", async () => {
    const { file, disk } = await shared();
    await put(disk, 0, 1);
    await put(disk, 1, 2, true);
    await put(disk, 2, 3, true);
    await disk.discard(0, CLUSTER);
    await disk.inactivate();
    expect(file.pending).toEqual([]);
    expect(disk.statistics()).toMatchObject({ compressedCacheBuffers: 0, imageLocked: false });
    const heir = directChild(new SimDisk({ content: file.durable }));
    expect(await findings(heir)).toEqual([]);
    const reader = await openQcow2({ file: heir, readOnly: true });
    expect(await get(reader, 1)).toEqual(cluster(2));
    expect(await get(reader, 2)).toEqual(cluster(3));
    await reader.close();
    const refused = { code: "EBUSY", message: expect.stringContaining("is inactive") };
    await expect((async () => put(disk, 3, 4))()).rejects.toMatchObject(refused);
    await expect((async () => put(disk, 3, 4, true))()).rejects.toMatchObject(refused);
    await expect((async () => get(disk, 1))()).rejects.toMatchObject(refused);
    await expect((async () => disk.discard(0, CLUSTER))()).rejects.toMatchObject(refused);
    await expect((async () => disk.writeZeroes(0, CLUSTER))()).rejects.toMatchObject(refused);
    await expect((async () => disk.truncate(65 * CLUSTER))()).rejects.toMatchObject(refused);
    await expect((async () => disk.blockStatus(0, CLUSTER))()).rejects.toMatchObject(refused);
    await expect(disk.reopen({ readOnly: true, options: {} })).rejects.toMatchObject(refused);
    await expect(disk.check()).rejects.toMatchObject(refused);
    // There is nothing to flush, and close has nothing to write.
    await disk.flushToOs();
    const before = file.counts;
    const { write, flush } = before;
    await disk.close();
    expect([file.counts.write, file.counts.flush]).toEqual([write, flush]);
  });

  test("must try every cache, name each failure, and stay active when one fails [C7, S15]", async () => {
    const { file, disk } = await shared();
    await put(disk, 0, 1);
    await disk.flushToOs();
    await put(disk, 1, 2);
    file.inject({ kind: "write", times: Number.POSITIVE_INFINITY });
    const error: unknown = await disk.inactivate().catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "EIO" });
    expect(((error as BlockError).cause as AggregateError).message).toMatch(
      /flush: .*; L2 cache: .*; refcount cache: /,
    );
    file.clearFaults();
    // Still active: it reads, writes, and is handed over at the next try.
    expect(await get(disk, 1)).toEqual(cluster(2));
    await put(disk, 2, 3);
    await disk.inactivate();
    const heir = directChild(new SimDisk({ content: file.durable }));
    expect(await findings(heir)).toEqual([]);
    const reader = await openQcow2({ file: heir, readOnly: true });
    expect(await get(reader, 2)).toEqual(cluster(3));
    await reader.close();
    await disk.close();
  });

  test("must never hand over an image that lost compressed data [C17, S15]", async () => {
    const { file, disk } = await shared();
    await put(disk, 0, 1, true);
    file.inject({ kind: "write", range: { offset: 5 * CLUSTER, lengthBytes: 2 ** 30 } });
    for (let i = 0; i < 3; i++) {
      await expect(disk.inactivate()).rejects.toBeInstanceOf(BlockError);
    }
    await expect(disk.inactivate()).rejects.toMatchObject({
      code: "ENODEFAILED",
      message: expect.stringContaining("the image is incomplete"),
    });
    await expect(disk.close()).rejects.toMatchObject({ code: "ENODEFAILED" });
  });

  test("must not write for a reader, nor twice", async () => {
    const { file, disk } = await shared();
    await disk.close();
    const reader = await openQcow2({ file: directChild(file), readOnly: true });
    await get(reader, 0);
    const { write } = file.counts;
    await reader.inactivate();
    await reader.inactivate();
    expect(file.counts.write).toBe(write);
    await reader.activate();
    expect(await get(reader, 0)).toEqual(new Uint8Array(CLUSTER));
    await reader.close();
  });
});

describe("Qcow2Driver.activate()", () => {
  test("must see what another process has written, and go on from there", async () => {
    const { file, disk } = await shared();
    for (let i = 0; i < 8; i++) await put(disk, i, i + 1, i % 2 === 1);
    expect(await get(disk, 3)).toEqual(cluster(4));
    await disk.inactivate();
    const other = await openQcow2({ file: directChild(file) });
    await other.discard(0, 4 * CLUSTER);
    await other.flushToOs();
    for (let i = 10; i < 30; i++) await put(other, i, i + 100, i % 3 === 0);
    await other.truncate(4000 * CLUSTER);
    await put(other, 3999, 77);
    await other.close();
    await disk.activate();
    await disk.activate();
    expect(disk.lengthBytes).toBe(4000 * CLUSTER);
    expect(await get(disk, 3)).toEqual(new Uint8Array(CLUSTER));
    for (let i = 10; i < 30; i++) expect(await get(disk, i)).toEqual(cluster(i + 100));
    expect(await get(disk, 3999)).toEqual(cluster(77));
    for (let i = 30; i < 40; i++) await put(disk, i, i + 50, i % 2 === 1);
    await disk.close();
    const left = directChild(file);
    expect(await findings(left)).toEqual([]);
    const reader = await openQcow2({ file: left, readOnly: true });
    for (let i = 10; i < 30; i++) expect(await get(reader, i)).toEqual(cluster(i + 100));
    for (let i = 30; i < 40; i++) expect(await get(reader, i)).toEqual(cluster(i + 50));
    await reader.close();
  });

  test("must have bitmaps that are those of the image as it is, for who asked for them before", async () => {
    const { file, disk } = await shared();
    const { bitmaps } = disk;
    await bitmaps.add("old", { granularityBytes: CLUSTER });
    await disk.inactivate();
    const other = await openQcow2({ file: directChild(file) });
    await other.bitmaps.remove("old");
    await other.bitmaps.add("theirs", { granularityBytes: CLUSTER });
    await other.close();
    const refused = { code: "EBUSY", message: expect.stringContaining("activate it first") };
    await expect(bitmaps.list()).rejects.toMatchObject(refused);
    await expect(bitmaps.dirtyRanges("old", 0, 1)).rejects.toMatchObject(refused);
    await disk.activate();
    expect((await bitmaps.list()).map(({ name }) => name)).toEqual(["theirs"]);
    await bitmaps.add("new", { granularityBytes: CLUSTER });
    await put(disk, 3, 1);
    await disk.close();
    await expect(bitmaps.list()).rejects.toMatchObject({ code: "ECLOSED" });
    const reader = await openQcow2({ file: directChild(file), readOnly: true });
    expect((await reader.bitmaps.list()).map(({ name }) => name)).toEqual(["theirs", "new"]);
    const dirty = [{ offset: 3 * CLUSTER, lengthBytes: CLUSTER }];
    for (const name of ["theirs", "new"]) {
      expect(await reader.bitmaps.dirtyRanges(name, 0, 9)).toEqual(dirty);
    }
    expect(await findings(directChild(file))).toEqual([]);
  });

  test("must go on noting writes in the bitmaps that were stored when it was handed over", async () => {
    const { file, disk } = await shared();
    await disk.bitmaps.add("b", { granularityBytes: CLUSTER });
    await put(disk, 1, 1);
    await disk.inactivate();
    const other = await openQcow2({ file: directChild(file) });
    expect((await other.bitmaps.list()).map(({ name }) => name)).toEqual(["b"]);
    await put(other, 3, 2);
    await other.close();
    await expect(disk.bitmaps.clear("b")).rejects.toMatchObject({ code: "EBUSY" });
    await disk.activate();
    await put(disk, 5, 3);
    const dirty = [1, 3, 5].map((at) => ({ offset: at * CLUSTER, lengthBytes: CLUSTER }));
    expect(await disk.bitmaps.dirtyRanges("b", 0, 9)).toEqual(dirty);
    await disk.close();
    expect(await findings(directChild(file))).toEqual([]);
    const reader = await openQcow2({ file: directChild(file), readOnly: true });
    expect(await reader.bitmaps.dirtyRanges("b", 0, 9)).toEqual(dirty);
    await reader.close();
  });

  test("must keep the options of the last reopen", async () => {
    const { file, disk } = await shared();
    await disk.reopen({
      readOnly: false,
      options: { "compressed-write-cache": "off", "pass-discard-request": false },
    });
    await disk.inactivate();
    await disk.activate();
    expect(disk.statistics()["compressedCache"]).toBe(false);
    await put(disk, 0, 1);
    await disk.discard(0, CLUSTER);
    const { discard } = file.counts;
    await disk.flushToOs();
    expect(file.counts.discard).toBe(discard);
    await disk.close();
  });

  test("must refuse another kind of image, and one that is corrupt, and stay inactive", async () => {
    const { file, disk } = await shared();
    const good = file.bytes;
    await disk.inactivate();
    const other = await createInMemory({ size: 64 * CLUSTER, cluster_size: 512 });
    await file.writev(0, IoVector.of(other.bytes));
    await expect(disk.activate()).rejects.toMatchObject({
      code: "EINVAL",
      message: expect.stringContaining("not the one that was handed over"),
    });
    await expect((async () => get(disk, 0))()).rejects.toMatchObject({ code: "EBUSY" });
    const corrupt = good.slice();
    corrupt[79] = (corrupt[79] as number) | 2;
    await file.writev(0, IoVector.of(corrupt));
    await expect(disk.activate()).rejects.toMatchObject({ code: "EACCES" });
    await file.writev(0, IoVector.of(good));
    await disk.activate();
    await put(disk, 0, 1);
    expect(await get(disk, 0)).toEqual(cluster(1));
    await disk.close();
  });

  test("must stay inactive when the tables cannot be read", async () => {
    const { file, disk } = await shared();
    await disk.inactivate();
    file.inject({ kind: "read", times: 2 });
    await expect(disk.activate()).rejects.toMatchObject({ code: "EIO" });
    file.clearFaults();
    await expect((async () => get(disk, 0))()).rejects.toMatchObject({ code: "EBUSY" });
    await disk.activate();
    await disk.close();
    await expect(disk.activate()).rejects.toMatchObject({ code: "ECLOSED" });
  });
});

describeWithQemu("BlockGraph.inactivateAll() and activateAll() over a real file", () => {
  const scratch = useScratch();

  test("must let qemu-io have the image, and take it back as it left it", async () => {
    const filename = scratch("handed-over.qcow2");
    await qemuImg("create", "-q", "-f", "qcow2", filename, "4M");
    const graph = new BlockGraph({ drivers: [fileDriver, qcow2Driver] });
    const disk = await graph.open({ driver: "qcow2", file: { driver: "file", filename } });
    await disk.write(0, new Uint8Array(65536).fill(1));
    await expect(runQemuIo(filename, ["write -P 2 1M 64k"])).rejects.toThrow("lock");
    await graph.inactivateAll();
    await runQemuIo(filename, [
      "read -P 1 0 64k",
      "write -P 2 1M 64k",
      "discard 0 64k",
      "truncate 8M",
      "write -P 3 7M 64k",
    ]);
    await graph.activateAll();
    expect(disk.lengthBytes).toBe(8 * 2 ** 20);
    const bytesAt = async (mib: number): Promise<Set<number>> =>
      new Set(await disk.read(mib * 2 ** 20, 65536));
    expect(await bytesAt(0)).toEqual(new Set([0]));
    expect(await bytesAt(1)).toEqual(new Set([2]));
    expect(await bytesAt(7)).toEqual(new Set([3]));
    await disk.write(2 * 2 ** 20, new Uint8Array(65536).fill(4));
    await expect(runQemuIo(filename, ["write -P 2 1M 64k"])).rejects.toThrow("lock");
    await graph.close();
    await runQemuIo(filename, ["read -P 2 1M 64k", "read -P 4 2M 64k", "read -P 3 7M 64k"]);
    expect((await qemuImg("check", filename)).code).toBe(0);
  });
});
