/** Extended L2 entries beside repair, preallocation and a disk that gets shorter. */
import { writeFile } from "node:fs/promises";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

const CLUSTER = 65536;
const SUBCLUSTER = CLUSTER / 32;
const EXTENDED = { size: 32 * CLUSTER, cluster_size: CLUSTER, extended_l2: true };
const CLEAN = { corruptions: 0, leaks: 0, checkErrors: 0 };

async function recheck(file: BlockChild): Promise<unknown> {
  const { corruptions, leaks, checkErrors } = await checkQcow2(file, await readHeader(file));
  return { corruptions, leaks, checkErrors };
}

/** An image whose cluster 1 has data in subclusters 0 to 3, and in cluster 2 compressed data. */
async function soundImage(): Promise<{ bytes: Uint8Array; entryAt: (index: number) => number }> {
  const memory = await createInMemory(EXTENDED);
  const disk = await openQcow2({ file: directChild(memory) });
  await disk.writev(CLUSTER, IoVector.of(new Uint8Array(4 * SUBCLUSTER).fill(7)));
  const whole = IoVector.of(new Uint8Array(CLUSTER).fill(8));
  await disk.writev(2 * CLUSTER, whole, { compressed: true });
  await disk.close();
  const bytes = memory.bytes.slice();
  const view = viewOf(bytes);
  const l1 = Number(view.getBigUint64(40));
  const l2 = Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n);
  return { bytes, entryAt: (index) => l2 + 16 * index };
}

interface Broken {
  readonly name: string;
  readonly break: (view: DataView, entryAt: (index: number) => number) => void;
  readonly message: RegExp;
  readonly dropped: boolean;
  /** First bytes of subclusters 0 and 5 of cluster 1, and of cluster 2. */
  readonly shows: readonly [number, number, number];
}

const BROKEN: readonly Broken[] = [
  {
    name: "subclusters both allocated and zero",
    break: (view, at) => view.setUint32(at(1) + 8, 0x2f),
    message: /both allocated and zero/,
    dropped: false,
    shows: [7, 0, 8],
  },
  {
    name: "a compressed cluster with a bitmap",
    break: (view, at) => view.setUint32(at(2) + 12, 1),
    message: /compressed cluster with subcluster bitmap/,
    dropped: false,
    shows: [7, 0, 8],
  },
  {
    name: "allocated subclusters of no cluster",
    break: (view, at) => view.setBigUint64(at(1), 0n),
    message: /there is no cluster/,
    dropped: true,
    shows: [0, 0, 8],
  },
  {
    name: "a cluster behind the end of the file",
    break: (view, at) => view.setBigUint64(at(1), 0x8000_0001_0000_0000n),
    message: /behind the end of the file/,
    dropped: true,
    shows: [0, 0, 8],
  },
  {
    name: "reserved bits",
    break: (view, at) => view.setUint32(at(1), view.getUint32(at(1)) | 0x0100_0000),
    message: /reserved bits/,
    dropped: false,
    shows: [7, 0, 8],
  },
];

async function brokenBy({ break: breakIt }: Broken): Promise<Uint8Array> {
  const { bytes, entryAt } = await soundImage();
  breakIt(viewOf(bytes), entryAt);
  return bytes;
}

async function repaired(
  bytes: Uint8Array,
): Promise<{ memory: MemoryDriver; dropped: string[]; messages: string[] }> {
  const memory = openMemory({ bytes });
  const file = directChild(memory);
  const dropped: string[] = [];
  const onDropped = (message: string): void => void dropped.push(message);
  const { result } = await repairQcow2(file, await readHeader(file), { fix: "all", onDropped });
  return { memory, dropped, messages: result.findings.map(({ message }) => message) };
}

describe("repairQcow2() of extended L2 entries", () => {
  test.each(BROKEN)("must mend, or drop and list: $name", async (one) => {
    const { memory, dropped, messages } = await repaired(await brokenBy(one));
    const file = directChild(memory);
    expect(await recheck(file)).toEqual(CLEAN);
    expect([...messages, ...dropped].join("\n")).toMatch(one.message);
    expect(dropped.length > 0).toBe(one.dropped);
    const disk = await openQcow2({ file, readOnly: true });
    const first = async (offset: number): Promise<number> => {
      const target = new Uint8Array(1);
      await disk.readv(offset, IoVector.of(target));
      return target[0] as number;
    };
    expect([
      await first(CLUSTER),
      await first(CLUSTER + 5 * SUBCLUSTER),
      await first(2 * CLUSTER),
    ]).toEqual(one.shows);
    await disk.close();
  });

  test("must write nothing into a sound image", async () => {
    const { bytes } = await soundImage();
    const { memory } = await repaired(bytes.slice());
    expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
  });
});

describe("truncate() with extended L2 entries", () => {
  test("must zero all that a cut cluster holds behind the end, subcluster by subcluster", async () => {
    const memory = await createInMemory(EXTENDED);
    const file = directChild(memory);
    const disk = await openQcow2({ file });
    for (const i of [0, 3, 8, 9, 20]) {
      const bytes = IoVector.of(new Uint8Array(SUBCLUSTER).fill(7));
      await disk.writev(CLUSTER + i * SUBCLUSTER, bytes);
    }
    await disk.truncate(CLUSTER + 4 * SUBCLUSTER + 512);
    await disk.truncate(4 * CLUSTER);
    const bytes = new Uint8Array(4 * CLUSTER);
    await disk.readv(0, IoVector.of(bytes));
    const expected = new Uint8Array(4 * CLUSTER);
    expected.fill(7, CLUSTER, CLUSTER + SUBCLUSTER);
    expected.fill(7, CLUSTER + 3 * SUBCLUSTER, CLUSTER + 4 * SUBCLUSTER);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await disk.close();
    expect(await recheck(file)).toEqual(CLEAN);
  });

  test.each(["metadata", "falloc", "full"] as const)(
    "must hide a longer backing file where it grows, with preallocation %s",
    async (preallocation) => {
      const memory = await createInMemory({
        ...EXTENDED,
        size: 2 * CLUSTER,
        backing_file: "base",
        backing_fmt: "raw",
      });
      // A memory store has no space to set aside; what it is asked for is as good as there.
      const inner = directChild(memory);
      const truncate = (lengthBytes: number): unknown => inner.truncate(lengthBytes);
      const file = Object.create(inner, { truncate: { value: truncate } }) as BlockChild;
      const backing = directChild(openMemory({ bytes: new Uint8Array(8 * CLUSTER).fill(5) }));
      const disk = await openQcow2({ file, backing });
      await disk.truncate(6 * CLUSTER, { preallocation, zeroWrite: true });
      const bytes = new Uint8Array(6 * CLUSTER);
      await disk.readv(0, IoVector.of(bytes));
      const expected = new Uint8Array(6 * CLUSTER).fill(5, 0, 2 * CLUSTER);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      await disk.close();
      expect(await recheck(file)).toEqual(CLEAN);
    },
  );
});

describeWithQemu("repaired extended entries beside qemu-img", () => {
  const scratch = useScratch();

  test.each(BROKEN)("must be sound for it: $name", async (one) => {
    const { memory } = await repaired(await brokenBy(one));
    const name = scratch(`${one.name}.qcow2`);
    await writeFile(name, memory.bytes);
    expect(await qemuImg("check", name)).toMatchObject({ code: 0 });
  });
});
