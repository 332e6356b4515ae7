import { writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { CorruptImageError, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { openQcow2, readHeader } from "../src/index.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

/** A snapshot table entry as somebody may have written it. */
interface Entry {
  readonly id?: string | Uint8Array;
  readonly name?: string | Uint8Array;
  /** Extra data as 64-bit numbers: VM state size, disk size, instruction count. */
  readonly extra?: readonly bigint[];
  /** Extra data behind these. */
  readonly moreBytes?: number;
  /** The length of the extra data that the entry claims. */
  readonly extraClaimed?: number;
  readonly vmState?: number;
  readonly vmClock?: bigint;
}

function bytesOf(text: string | Uint8Array): Uint8Array {
  return typeof text === "string" ? new TextEncoder().encode(text) : text;
}

function encodeEntry(entry: Entry): Uint8Array {
  const { extra = [], moreBytes = 0, vmState = 0, vmClock = 3_000_000_005n } = entry;
  const id = bytesOf(entry.id ?? "1");
  const name = bytesOf(entry.name ?? "n");
  const extraBytes = extra.length * 8 + moreBytes;
  const end = 40 + extraBytes + id.length + name.length;
  const bytes = new Uint8Array(Math.ceil(end / 8) * 8);
  const view = viewOf(bytes);
  view.setUint16(12, id.length);
  view.setUint16(14, name.length);
  view.setUint32(16, 0x9000_0000);
  view.setUint32(20, 999_999_999);
  view.setBigUint64(24, vmClock);
  view.setUint32(32, vmState);
  view.setUint32(36, entry.extraClaimed ?? extraBytes);
  for (const [index, value] of extra.entries()) view.setBigUint64(40 + index * 8, value);
  bytes.set(id, 40 + extraBytes);
  bytes.set(name, 40 + extraBytes + id.length);
  return bytes;
}

/** An image whose snapshot table, behind everything else, has these entries. */
async function withEntries(
  entries: readonly Entry[],
  { compat = "v3", count = entries.length, tableOffset = -1 } = {},
): Promise<Uint8Array> {
  const { bytes } = await createInMemory({ size: "1M", cluster_size: 4096, compat });
  const at = Math.ceil(bytes.length / 4096) * 4096;
  const table = entries.map(encodeEntry);
  const image = new Uint8Array(at + table.reduce((sum, one) => sum + one.length, 0));
  image.set(bytes);
  let next = at;
  for (const one of table) {
    image.set(one, next);
    next += one.length;
  }
  const view = viewOf(image);
  view.setUint32(60, count);
  view.setBigUint64(64, BigInt(tableOffset < 0 ? at : tableOffset));
  return image;
}

async function snapshotsOf(bytes: Uint8Array): Promise<unknown> {
  const disk = await openQcow2({ file: directChild(openMemory({ bytes })), readOnly: true });
  try {
    return (await disk.formatInfo()).snapshots;
  } finally {
    await disk.close();
  }
}

const STATE = 0x12_3456_789an;
const DISK = 2n ** 20n;
const MAX_U64 = 2n ** 64n - 1n;

/** Tables that QEMU takes. */
const SOUND: readonly {
  name: string;
  entries: readonly Entry[];
  options?: Parameters<typeof withEntries>[1];
}[] = [
  { name: "no extra data", entries: [{ vmState: 0xffff_fff0 }] },
  { name: "a VM state size alone", entries: [{ extra: [5n << 40n], vmState: 7 }] },
  { name: "half of a disk size", entries: [{ extra: [STATE], moreBytes: 4 }] },
  { name: "what version 3 requires", entries: [{ extra: [STATE, DISK] }] },
  { name: "half of an instruction count", entries: [{ extra: [STATE, DISK], moreBytes: 4 }] },
  { name: "an instruction count", entries: [{ extra: [STATE, DISK, 77n] }] },
  { name: "an instruction count of 0", entries: [{ extra: [STATE, DISK, 0n] }] },
  { name: "no instruction count", entries: [{ extra: [STATE, DISK, MAX_U64] }] },
  { name: "a large instruction count", entries: [{ extra: [STATE, DISK, 2n ** 63n] }] },
  { name: "unknown extra data", entries: [{ extra: [STATE, DISK, 1n], moreBytes: 1000 }] },
  { name: "version 2", entries: [{ vmState: 9 }], options: { compat: "v2" } },
  {
    name: "version 2 with extra data",
    entries: [{ extra: [STATE, DISK, 77n] }],
    options: { compat: "v2" },
  },
  { name: "two entries", entries: [{ extra: [1n, DISK] }, { id: "2", name: "second" }] },
  { name: "entries past the end of the file", entries: [{ id: "7" }], options: { count: 3 } },
  { name: "a table past the end", entries: [{}], options: { tableOffset: 2 ** 40 } },
  { name: "empty texts", entries: [{ id: "", name: "" }] },
  { name: "long texts", entries: [{ id: "1".repeat(200), name: "x".repeat(300) }] },
  { name: "a text with a zero", entries: [{ name: "one\0two" }] },
  { name: "texts that need escapes", entries: [{ name: 'a"\\\n\u0001é😀' }] },
  { name: "the longest clock", entries: [{ vmClock: MAX_U64 }] },
  { name: "a negative VM state", entries: [{ extra: [MAX_U64, DISK] }] },
  { name: "the largest VM state", entries: [{ extra: [2n ** 63n, DISK] }] },
];

describe("imageInfoOf()", () => {
  test("must answer without a promise, and without a list, when there are no snapshots", async () => {
    const disk = await openQcow2({ file: directChild(await createInMemory({ size: "1M" })) });
    const info = disk.formatInfo();
    expect(info).not.toBeInstanceOf(Promise);
    expect(info).not.toHaveProperty("snapshots");
    await disk.close();
  });

  test.each([
    ["too much extra data", [{}, { extraClaimed: 1025 }], "entry 1 has too much extra data"],
    ["an endless entry", [{ extraClaimed: 2 ** 32 - 1 }], "entry 0 has too much extra data"],
  ])("must refuse a table with %s, while the disk reads on", async (_, entries, message) => {
    const bytes = await withEntries(entries);
    await expect(snapshotsOf(bytes)).rejects.toThrow(CorruptImageError);
    await expect(snapshotsOf(bytes)).rejects.toThrow(message);
    const disk = await openQcow2({ file: directChild(openMemory({ bytes })), readOnly: true });
    const { checkErrors } = await disk.check();
    expect(checkErrors).toBe(1);
    await disk.close();
  });

  test("must refuse a table that is longer than any QEMU reads", async () => {
    // 64 MiB end within entry 516.
    const entry = { name: "x".repeat(65_000), id: "y".repeat(65_000) };
    const bytes = await withEntries(Array.from({ length: 520 }, () => entry));
    await expect(snapshotsOf(bytes)).rejects.toThrow("entry 516 is too far out");
  });

  test("must list as many entries as the header says, whatever the file holds", async () => {
    const bytes = await withEntries([{}], { count: 65_536 });
    expect(await snapshotsOf(bytes)).toHaveLength(65_536);
  });

  test("must report a table that cannot be read", async () => {
    const file = new SimDisk({ content: await withEntries([{}]) });
    const disk = await openQcow2({ file: directChild(file), readOnly: true });
    const { snapshotsOffset } = await readHeader(directChild(file));
    file.inject({ kind: "read", range: { offset: snapshotsOffset, lengthBytes: 512 } });
    await expect((async () => disk.formatInfo())()).rejects.toMatchObject({ code: "EIO" });
    await disk.close();
  });
});

describeWithQemu("imageInfoOf() and the real qemu-img", () => {
  const scratch = useScratch();

  async function theirSnapshots(filename: string): Promise<unknown> {
    const { stdout } = await qemuImg("info", "-f", "qcow2", "--output=json", filename);
    return (JSON.parse(stdout) as { snapshots?: unknown }).snapshots;
  }

  test.each(SOUND)("must agree on snapshots: $name", async ({ entries, options }) => {
    const bytes = await withEntries(entries, options);
    await writeFile(scratch("entries.qcow2"), bytes);
    const ours = await snapshotsOf(bytes);
    expect(ours).toEqual(await theirSnapshots(scratch("entries.qcow2")));
    expect(ours).toHaveLength(options?.count ?? entries.length);
  });

  test("must agree where qemu-img refuses the table", async () => {
    const bytes = await withEntries([{}, { extraClaimed: 1025 }]);
    await writeFile(scratch("broken.qcow2"), bytes);
    const { code, stderr } = await qemuImg("info", "-f", "qcow2", scratch("broken.qcow2"));
    expect(code).toBe(1);
    expect(stderr).toContain("Too much extra metadata in snapshot table entry 1");
  });

  test.each(RECIPES.filter(({ name }) => ["snapshots", "refcount64", "data"].includes(name)))(
    "must list the snapshots that qemu-img made: $name",
    async (recipe) => {
      const filename = scratch(`${recipe.name}.qcow2`);
      const bytes = await makeImage(recipe, filename);
      expect(await snapshotsOf(bytes)).toEqual(await theirSnapshots(filename));
    },
  );
});
