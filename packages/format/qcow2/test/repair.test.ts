/** Repairs, kind by kind: what is mended, what is listed, what stays as it is. */
import type { CheckResult, RepairKind } from "@blocklayer/block-api";
import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, IoVector, viewOf } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { BROKEN, COPIED, imageWithSnapshot, soundImage } from "./support/broken-images.js";
import { CLUSTER } from "./support/image-builder.js";
import { viewAll } from "./support/guest-view.js";

const CLEAN = { corruptions: 0, leaks: 0, checkErrors: 0 };

function brokenBy(name: string): Uint8Array {
  const one = BROKEN.find((each) => each.name === name);
  if (one === undefined) throw new Error(`no broken image '${name}'`);
  return one.bytes();
}

async function repair(
  bytes: Uint8Array,
  fix: RepairKind = "all",
): Promise<{ memory: MemoryDriver; result: CheckResult; messages: string[] }> {
  const memory = openMemory({ bytes });
  const file = directChild(memory);
  const { result } = await repairQcow2(file, await readHeader(file), { fix });
  return { memory, result, messages: result.findings.map(({ message }) => message) };
}

async function recheck(memory: MemoryDriver): Promise<CheckResult> {
  const file = directChild(memory);
  return checkQcow2(file, await readHeader(file));
}

function featuresOf({ bytes }: MemoryDriver): bigint {
  return viewOf(bytes).getBigUint64(72);
}

describe("repairQcow2()", () => {
  test.each(BROKEN)("must leave nothing to be mended: $name", async ({ bytes }) => {
    const { memory, result } = await repair(bytes());
    expect(result).toMatchObject(CLEAN);
    expect((result.corruptionsFixed ?? 0) + (result.leaksFixed ?? 0)).toBeGreaterThan(0);
    expect(await recheck(memory)).toMatchObject(CLEAN);
    const second = await repair(memory.bytes.slice());
    expect(second.result).toMatchObject({ ...CLEAN, corruptionsFixed: 0, leaksFixed: 0 });
    expect(Buffer.compare(second.memory.bytes, memory.bytes)).toBe(0);
  });

  test("must write nothing into a sound image", async () => {
    const { bytes } = soundImage();
    for (const fix of ["leaks", "all"] as const) {
      const { memory, result } = await repair(bytes.slice(), fix);
      expect(result).toMatchObject({ ...CLEAN, corruptionsFixed: 0, leaksFixed: 0 });
      expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
    }
  });

  test("must say what it mends in qemu-img's words", async () => {
    const low = await repair(brokenBy("a refcount that is too low, and COPIED flags with it"));
    expect(low.messages).toEqual([
      "ERROR cluster 7 refcount=1 reference=2",
      "Repairing cluster 7 refcount=1 reference=2",
      "Repairing OFLAG_COPIED data cluster: l2_entry=8000000000000e00 refcount=2",
      "Repairing OFLAG_COPIED data cluster: l2_entry=8000000000000e00 refcount=2",
    ]);
    const lost = await repair(brokenBy("a refcount of 0 for a cluster in use"));
    expect(lost.messages).toEqual([
      "ERROR cluster 7 refcount=0 reference=1",
      "Rebuilding refcount structure",
      "Repairing cluster 1 refcount=1 reference=0",
      "Repairing cluster 2 refcount=1 reference=0",
    ]);
    expect(lost.result).toMatchObject({ corruptionsFixed: 1, leaksFixed: 0 });
  });

  test("must list what leaves the image, also beyond the room of the list", async () => {
    const image = soundImage({ clusterBits: 16 });
    for (let i = 100; i < 3100; i++) image.entry(CLUSTER.l2, i, (1n << 40n) | COPIED);
    const memory = openMemory({ bytes: image.bytes });
    const file = directChild(memory);
    const heard: string[] = [];
    const { result } = await repairQcow2(file, await readHeader(file), {
      fix: "all",
      onDropped: (message) => heard.push(message),
    });
    expect(heard.length).toBe(3000);
    expect(new Set(heard).size).toBe(3000);
    expect(heard[0]).toContain("Dropping L2 table 0x40000 entry 100");
    expect(result).toMatchObject({ ...CLEAN, corruptionsFixed: 3000 });
    expect(result.findings.length).toBe(1000);
    expect(result.findingsOmitted).toBe(2000);
  });

  test("with `leaks` must not touch what is worse than a leak", async () => {
    for (const name of [
      "data behind the end of the file",
      "reserved bits in every kind of entry",
    ]) {
      const bytes = brokenBy(name);
      const { memory, result } = await repair(bytes.slice(), "leaks");
      expect(result.corruptions + result.checkErrors).toBeGreaterThan(0);
      expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
    }
  });

  test("with `leaks` must change nothing where refcounts cannot tell what is free", async () => {
    const image = soundImage().refcount(CLUSTER.data + 2, 0);
    const bytes = image.entry(CLUSTER.l2, 3, 0n).bytes;
    const { memory, result, messages } = await repair(bytes.slice(), "leaks");
    expect(messages).toContain("ERROR need to rebuild refcount structures");
    expect(result).toMatchObject({ checkErrors: 1, leaksFixed: 0 });
    expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
  });

  test("with `leaks` must set the COPIED flag that a lowered refcount asks for", async () => {
    const image = soundImage().refcount(CLUSTER.data, 2);
    const { bytes } = image.entry(CLUSTER.l2, 0, BigInt(CLUSTER.data * 512));
    const { memory, result } = await repair(bytes, "leaks");
    expect(result).toMatchObject({ ...CLEAN, leaksFixed: 1, corruptionsFixed: 1 });
    expect(await recheck(memory)).toMatchObject(CLEAN);
  });

  test("must keep a guest's data apart from tables that it lay on", async () => {
    const bytes = brokenBy("data on the L1 table, on an L2 table and on a refcount block");
    const before = await viewAll(bytes);
    const { memory, messages } = await repair(bytes.slice());
    expect(messages.filter((one) => one.includes("its data lies on metadata")).length).toBe(2);
    const disk = await openQcow2({ file: directChild(memory) });
    // What the guest writes elsewhere changes the tables, and no longer what it reads here.
    await disk.writev(40 * 512, IoVector.allocate(512));
    await disk.close();
    const after = await viewAll(memory.bytes);
    for (const entry of [20, 21, 22]) {
      expect(after.get("active")?.get(entry * 512)).toBe(before.get("active")?.get(entry * 512));
    }
    expect(await recheck(memory)).toMatchObject(CLEAN);
  });

  test("must mend a snapshot's tables too, and keep what only the snapshot has", async () => {
    const image = imageWithSnapshot();
    const l2 = CLUSTER.data + 10;
    image.entry(l2, 5, 0x1000_0000n);
    const before = await viewAll(image.bytes);
    const { memory, result } = await repair(image.bytes.slice());
    expect(result).toMatchObject(CLEAN);
    expect(await viewAll(memory.bytes)).toEqual(before);
  });

  test("must drop a snapshot that nobody can read, and free what it held", async () => {
    const { memory, messages, result } = await repair(
      brokenBy("a snapshot whose L1 table is not aligned"),
    );
    expect(messages[0]).toContain("Dropping snapshot 1 (s1): its L1 table");
    expect(result).toMatchObject(CLEAN);
    expect((await readHeader(directChild(memory))).snapshotCount).toBe(0);
  });

  test("must clear the dirty and the corrupt bit, but only of an image that is sound", async () => {
    for (const fix of ["leaks", "all"] as const) {
      const { memory } = await repair(soundImage().field("incompatible", 3).bytes, fix);
      expect(featuresOf(memory)).toBe(0n);
    }
    const image = soundImage().field("incompatible", 3);
    image.entry(CLUSTER.l2, 20, image.dataEntry(2));
    const { memory, result } = await repair(image.bytes, "leaks");
    expect(result.corruptions).toBeGreaterThan(0);
    expect(featuresOf(memory)).toBe(3n);
  });

  test("must change nothing where a table cannot be read", async () => {
    const { bytes } = soundImage().entry(CLUSTER.l2, 20, (1n << 40n) | COPIED);
    for (let nth = 1; nth < 12; nth++) {
      const file = new SimDisk({ content: bytes });
      file.inject({ kind: "read", nth, times: 1000 });
      const child = directChild(file);
      const outcome = await repairQcow2(
        child,
        await readHeader(directChild(new SimDisk({ content: bytes }))),
        {
          fix: "all",
        },
      ).then(
        ({ result }) => result.checkErrors > 0,
        (error: unknown) => error instanceof BlockError,
      );
      file.clearFaults();
      if (!outcome) continue;
      expect(Buffer.compare(file.bytes, bytes)).toBe(0);
      return;
    }
    throw new Error("no read failed");
  });

  test("must end with ENOSPC, unchanged, where a new structure has no room", async () => {
    const bytes = brokenBy("a refcount table without its block");
    const memory = openMemory({ bytes: bytes.slice() });
    const inner = directChild(memory);
    const capabilities = { ...inner.capabilities, truncate: false };
    const file = { ...inner, lengthBytes: bytes.length, capabilities };
    await expect(repairQcow2(file, await readHeader(file), { fix: "all" })).rejects.toSatisfy(
      (error) => error instanceof BlockError && error.code === "ENOSPC",
    );
    expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
  });

  test("must use free clusters for it where the file cannot grow", async () => {
    const image = soundImage();
    for (let i = 4; i < 8; i++) image.entry(CLUSTER.l2, i, 0n).refcount(CLUSTER.data + i, 0);
    const { bytes } = image.entry(CLUSTER.refcountTable, 0, 0n);
    const memory = openMemory({ bytes });
    const inner = directChild(memory);
    const capabilities = { ...inner.capabilities, truncate: false };
    const file = { ...inner, lengthBytes: bytes.length, capabilities };
    const { result } = await repairQcow2(file, await readHeader(file), { fix: "all" });
    expect(result).toMatchObject(CLEAN);
    expect(memory.bytes.length).toBe(bytes.length);
  });

  test("must show zeroes, not an older layer, for what it drops from a version 2 image", async () => {
    const image = soundImage({ version: 2, clusterBits: 12 });
    image.field("backingFileOffset", 200).field("backingFileSize", 4).raw(200, "base");
    image.entry(CLUSTER.l2, 20, 0x5200n | COPIED).entry(CLUSTER.l2, 21, 0x5200n | COPIED);
    const { memory, result } = await repair(image.bytes);
    expect(result).toMatchObject(CLEAN);
    const backing = directChild(openMemory({ bytes: new Uint8Array(2 ** 21).fill(0xbb) }));
    const disk = await openQcow2({ file: directChild(memory), backing });
    const bytes = new Uint8Array(3 * 4096);
    await disk.readv(20 * 4096, IoVector.of(bytes));
    expect(bytes.subarray(0, 8192).every((byte) => byte === 0)).toBe(true);
    expect(bytes[8192]).toBe(0xbb);
    await disk.close();
  });
});

describe("Qcow2Driver.check() with `fix`", () => {
  test("must repair under an open disk, which goes on with what is true then", async () => {
    const memory = openMemory({ bytes: brokenBy("a refcount of 0 for a cluster in use") });
    const disk = await openQcow2({ file: directChild(memory) });
    const sector = new Uint8Array(512);
    await disk.readv(1024, IoVector.of(sector));
    expect(await disk.check({ fix: "all" })).toMatchObject({ ...CLEAN, corruptionsFixed: 1 });
    for (let i = 30; i < 50; i++) await disk.writev(i * 512, IoVector.allocate(512));
    await disk.readv(1024, IoVector.of(sector));
    expect(sector[0]).toBe(3);
    await disk.close();
    expect(await recheck(memory)).toMatchObject(CLEAN);
  });

  test("must repair a corrupt image that was opened for a check, so that it opens again", async () => {
    const { bytes } = soundImage().field("incompatible", 2).refcount(CLUSTER.data, 5);
    const memory = openMemory({ bytes });
    await expect(openQcow2({ file: directChild(memory) })).rejects.toThrow("Image is corrupt");
    const disk = await openQcow2({ file: directChild(memory), forCheck: true });
    expect(await disk.check()).toMatchObject({ leaks: 1 });
    expect(await disk.check({ fix: "leaks" })).toMatchObject({ ...CLEAN, leaksFixed: 1 });
    await disk.writev(0, IoVector.allocate(512));
    await disk.close();
    const again = await openQcow2({ file: directChild(memory) });
    await again.close();
  });

  test("must refuse on a disk that is open read-only, or has failed", async () => {
    const { bytes } = soundImage();
    const reader = await openQcow2({ file: directChild(openMemory({ bytes })), readOnly: true });
    await expect(reader.check({ fix: "all" })).rejects.toThrow("read-only");
    await reader.close();
    const image = soundImage();
    image.entry(CLUSTER.l2, 0, BigInt(CLUSTER.l1 * 512) | COPIED);
    const disk = await openQcow2({ file: directChild(openMemory({ bytes: image.bytes })) });
    const write = async (): Promise<void> => disk.writev(0, IoVector.allocate(512));
    await expect(write()).rejects.toBeInstanceOf(CorruptImageError);
    await expect(disk.check({ fix: "all" })).rejects.toThrow("failed");
  });
});
