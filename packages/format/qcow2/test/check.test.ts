import { type CheckResult, directChild } from "@blocklayer/block-api";
import { BlockError, GiB, hasCode, IoVector, MiB, TiB } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { MAX_FINDINGS } from "../src/check/findings.js";
import { checkQcow2, readHeader } from "../src/index.js";
import { type BuilderOptions, CLUSTER, ImageBuilder } from "./support/image-builder.js";
import { childOf } from "./support/images.js";

const COPIED = 1n << 63n;

async function checkBytes(bytes: Uint8Array): Promise<CheckResult> {
  const file = childOf(bytes);
  return checkQcow2(file, await readHeader(file));
}

/** The findings of an image with one thing broken. */
async function findingsOf(
  breakIt: (image: ImageBuilder) => unknown,
  options?: BuilderOptions,
): Promise<readonly string[]> {
  const image = new ImageBuilder(options);
  breakIt(image);
  const { findings } = await checkBytes(image.bytes);
  return findings.map(({ message }) => message);
}

describe("checkQcow2()", () => {
  test("must find nothing wrong with a sound image, of every refcount width", async () => {
    for (const refcountOrder of [0, 1, 2, 3, 4, 5, 6]) {
      const result = await checkBytes(new ImageBuilder({ refcountOrder, dataClusters: 3 }).bytes);
      expect(result).toEqual({
        corruptions: 0,
        leaks: 0,
        checkErrors: 0,
        imageEndOffset: 8 * 512,
        totalClusters: 64,
        allocatedClusters: 3,
        compressedClusters: 0,
        fragmentedClusters: 0,
        findings: [],
        findingsOmitted: 0,
      });
    }
  });

  test.each<[string, (image: ImageBuilder) => unknown, readonly string[]]>([
    [
      "a cluster that nobody uses",
      (i) => i.entry(CLUSTER.l2, 1, 0n),
      ["Leaked cluster 6 refcount=1 reference=0"],
    ],
    [
      "a cluster in use that counts as free",
      (i) => i.refcount(6, 0),
      [
        "ERROR cluster 6 refcount=0 reference=1",
        "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000c00 refcount=0",
      ],
    ],
    [
      "a cluster with two owners",
      (i) => i.entry(CLUSTER.l2, 1, i.dataEntry(0)).refcount(6, 0),
      ["ERROR cluster 5 refcount=1 reference=2"],
    ],
    [
      "a COPIED flag that is missing",
      (i) => i.entry(CLUSTER.l2, 0, i.dataEntry(0) & ~COPIED),
      ["ERROR OFLAG_COPIED data cluster: l2_entry=a00 refcount=1"],
    ],
    [
      "a COPIED flag that is missing in the L1 table",
      (i) => i.entry(CLUSTER.l1, 0, BigInt(4 * 512)),
      ["ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=800 refcount=1"],
    ],
    [
      "reserved bits in an L2 entry",
      (i) => i.entry(CLUSTER.l2, 0, i.dataEntry(0) | 4n),
      ["ERROR found l2 entry with reserved bits set: 8000000000000a04"],
    ],
    [
      "reserved bits in an L1 entry",
      (i) => i.entry(CLUSTER.l1, 0, (1n << 60n) | COPIED | 0x800n),
      ["ERROR found L1 entry with reserved bits set: 9000000000000800"],
    ],
    [
      "reserved bits in the refcount table",
      (i) => i.entry(CLUSTER.refcountTable, 0, 0x401n),
      [
        "ERROR refcount table entry 0 has reserved bits set",
        "Leaked cluster 2 refcount=1 reference=0",
      ],
    ],
    [
      "a refcount block outside the image",
      (i) => i.entry(CLUSTER.refcountTable, 1, 0x100000n),
      ["ERROR refcount block 1 is outside image"],
    ],
    [
      "a refcount block that is used twice",
      (i) => i.entry(CLUSTER.refcountTable, 1, 0x400n),
      ["ERROR refcount block 1 refcount=2", "ERROR cluster 2 refcount=1 reference=2"],
    ],
    [
      "a cluster behind the end of the file",
      (i) => i.entry(CLUSTER.l2, 5, BigInt(8 * 512)),
      [
        "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x1000 size 0x200",
      ],
    ],
    [
      "a compressed cluster with the COPIED flag",
      (i) => i.entry(CLUSTER.l2, 1, COPIED | (1n << 62n) | 0xc00n),
      ["ERROR: coffset=0xc00: copied flag must never be set for compressed clusters"],
    ],
  ])("must report %s", async (_what, breakIt, messages) => {
    expect(await findingsOf(breakIt)).toEqual(messages);
  });

  test("must report entries that do not start at a cluster", async () => {
    const data = await findingsOf((i) => i.entry(CLUSTER.l2, 0, 0xc00n), { clusterBits: 12 });
    expect(data).toContain(
      "ERROR offset=c00: Data cluster is not properly aligned; L2 entry corrupted.",
    );
    const zero = await findingsOf((i) => i.entry(CLUSTER.l2, 0, 0xc01n), { clusterBits: 12 });
    expect(zero).toContain(
      "ERROR offset=c00: Preallocated cluster is not properly aligned; L2 entry corrupted.",
    );
    const table = await findingsOf((i) => i.entry(CLUSTER.l1, 0, 0xc00n), { clusterBits: 12 });
    expect(table).toContain(
      "ERROR l2_offset=c00: Table is not cluster aligned; L1 entry corrupted",
    );
    const block = await findingsOf((i) => i.entry(CLUSTER.refcountTable, 0, 0xc00n), {
      clusterBits: 12,
    });
    expect(block).toEqual([
      "ERROR refcount block 0 is not cluster aligned; refcount table entry corrupted",
      "ERROR: Can't get refcount for clusters 0 to 6: the refcount block cannot be read (7 times)",
    ]);
  });

  test("must count a compressed cluster once for every host cluster that it touches", async () => {
    const image = new ImageBuilder({ dataClusters: 2 })
      .entry(CLUSTER.l2, 0, (1n << 62n) | (1n << 61n) | BigInt(5 * 512 + 100))
      .entry(CLUSTER.l2, 1, (1n << 62n) | BigInt(6 * 512 + 7))
      .refcount(6, 2);
    expect(await checkBytes(image.bytes)).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: 2,
      compressedClusters: 2,
      fragmentedClusters: 2,
    });
  });

  test("must take an L1 entry that the end of the file cuts for one that ends in zeroes", async () => {
    const image = new ImageBuilder();
    image.field("l1TableOffset", 6 * 512).raw(6 * 512, Uint8Array.of(1, 0, 0));
    const { findings } = await checkBytes(image.bytes.subarray(0, 6 * 512 + 3));
    const messages = findings.map(({ message }) => message);
    expect(messages).toContain("ERROR found L1 entry with reserved bits set: 100000000000000");
  });

  test("must see a refcount that cannot hold all references", async () => {
    const image = new ImageBuilder({ refcountOrder: 0 }).entry(CLUSTER.l2, 1, COPIED | 0xa00n);
    const { findings, corruptions } = await checkBytes(image.bytes);
    expect(corruptions).toBe(1);
    expect(findings[0]?.message).toBe("ERROR: overflow cluster offset=0xa00");
  });
});

describe("checkQcow2() of extended L2 entries", () => {
  /** The first entry of an image with subclusters, as it is made here: descriptor, then bitmap. */
  async function findingsWith(descriptor: bigint, bitmap: bigint): Promise<readonly string[]> {
    return findingsOf(
      (i) =>
        i
          .field("incompatible", 16n)
          .field("size", 2 ** 24)
          .entry(CLUSTER.l2, 0, descriptor === 0n ? i.dataEntry(0) : descriptor)
          .entry(CLUSTER.l2, 1, bitmap),
      { clusterBits: 14, dataClusters: 1 },
    );
  }

  const HOST = 0n;

  test.each<[string, bigint, bigint, readonly string[]]>([
    ["data, zeroes and nothing", HOST, 0xffff_0000_0000_00ffn, []],
    ["nothing at all in a host cluster", HOST, 0n, []],
    [
      "a subcluster with both bits",
      HOST,
      0x0000_0001_0000_0001n,
      ["ERROR offset=14000: Allocated cluster has corrupted subcluster allocation bitmap"],
    ],
    ["zeroes nowhere", COPIED, 0xffff_ffff_0000_0000n, ["Leaked cluster 5 refcount=1 reference=0"]],
    [
      "data nowhere",
      COPIED,
      0x8000_0000n,
      [
        "ERROR: Unallocated cluster has non-zero subcluster allocation map",
        "Leaked cluster 5 refcount=1 reference=0",
      ],
    ],
    [
      "a compressed cluster with a bitmap",
      0x4000_0000_0001_4000n,
      0x1_0000_0000n,
      [
        "ERROR compressed cluster 0 with non-zero subcluster allocation bitmap, entry=0x4000000000014000",
        "Leaked cluster 5 refcount=1 reference=0",
      ],
    ],
    ["a compressed cluster without one", 0x4000_0000_0001_4000n, 0n, []],
    [
      "a cluster without data that is not aligned",
      COPIED | 0x14200n,
      0x1_0000_0000n,
      [
        "ERROR offset=14200: Preallocated cluster is not properly aligned; L2 entry corrupted.",
        "ERROR cluster 6 refcount=0 reference=1",
      ],
    ],
  ])("must judge %s as qemu-img does [C14]", async (_, descriptor, bitmap, messages) => {
    expect(await findingsWith(descriptor, bitmap)).toEqual(messages);
  });
});

describe("checkQcow2() of a snapshot table", () => {
  const table = 7 * 512;

  function withSnapshots(count: number): ImageBuilder {
    return new ImageBuilder({ dataClusters: 4 })
      .field("snapshotCount", count)
      .field("snapshotsOffset", table);
  }

  function entry(l1Offset: number, l1Size: number, extra = 16): Uint8Array {
    const bytes = new Uint8Array(40 + extra);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(l1Offset));
    view.setUint32(8, l1Size);
    view.setUint32(36, extra);
    return bytes;
  }

  test("must count the L2 tables and data clusters of a snapshot once more", async () => {
    const image = withSnapshots(1)
      .raw(table, entry(8 * 512, 1))
      .raw(8 * 512, Uint8Array.of(0));
    image
      .entry(8, 0, BigInt(CLUSTER.l2 * 512))
      .entry(CLUSTER.l2, 2, 0n)
      .entry(CLUSTER.l2, 3, 0n)
      .entry(CLUSTER.l1, 0, BigInt(CLUSTER.l2 * 512))
      .entry(CLUSTER.l2, 0, BigInt(5 * 512))
      .entry(CLUSTER.l2, 1, BigInt(6 * 512));
    for (const cluster of [CLUSTER.l2, 5, 6]) image.refcount(cluster, 2);
    const result = await checkBytes(image.bytes);
    expect(result.findings).toEqual([]);
    expect(result.allocatedClusters).toBe(2);
  });

  test("must report L1 tables that cannot be, and entries without their version 3 data", async () => {
    const image = withSnapshots(3)
      .raw(table, entry(8 * 512 + 8, 1))
      .raw(table + 56, entry(8 * 512, 2 ** 22 + 1))
      .raw(table + 112, entry(0, 0, 8));
    const messages = (await checkBytes(image.bytes)).findings.map(({ message }) => message);
    expect(messages[0]).toContain("L1 table is not cluster aligned");
    expect(messages[1]).toContain("L1 table is too large");
    expect(messages[2]).toBe("ERROR snapshot table entry 2 is incomplete");
  });

  test("must end at an entry whose length cannot be trusted", async () => {
    const image = withSnapshots(65536).raw(table, entry(0, 0));
    new DataView(image.bytes.buffer).setUint32(table + 36, 0xffff_ffff);
    const result = await checkBytes(image.bytes);
    expect(result.checkErrors).toBe(1);
  });
});

describe("checkQcow2() of hostile images", () => {
  test("must bound the list of findings, and count the rest", async () => {
    const image = new ImageBuilder({ clusterBits: 12, dataClusters: 1600 });
    for (let i = 0; i < 512; i++) image.entry(CLUSTER.l2, i, 0n);
    const result = await checkBytes(image.bytes);
    expect(result.leaks).toBe(1600);
    expect(result.findings).toHaveLength(MAX_FINDINGS);
    expect(result.findingsOmitted).toBe(600);
  });

  test("must look once at an L2 table that four million L1 entries name", {
    timeout: 60_000,
  }, async () => {
    const memory = openMemory({ bytes: new ImageBuilder({ clusterBits: 16 }).bytes });
    const image = new ImageBuilder({ clusterBits: 16 });
    const l1 = new Uint8Array(32 * 2 ** 20);
    const view = new DataView(l1.buffer);
    for (let at = 0; at < l1.length; at += 8) view.setBigUint64(at, COPIED | BigInt(4 * 65536));
    image.field("l1Size", l1.length / 8).field("l1TableOffset", 16 * 65536);
    memory.writev(0, IoVector.of(image.bytes));
    memory.writev(16 * 65536, IoVector.of(l1));
    const file = directChild(memory);
    const started = performance.now();
    const result = await checkQcow2(file, await readHeader(file));
    expect(performance.now() - started).toBeLessThan(5000);
    expect(result.allocatedClusters).toBe(2 * (l1.length / 8));
    expect(result.corruptions).toBeGreaterThan(0);
    expect(Number(memory.statistics()["reads"])).toBeLessThan(20);
  });

  test("must not follow L2 tables that overlap each other without end", async () => {
    const image = new ImageBuilder({ clusterBits: 21, dataClusters: 12 });
    const l1Size = 4096;
    image.field("l1Size", l1Size);
    for (let i = 0; i < l1Size; i++) image.entry(CLUSTER.l1, i, BigInt(2 ** 21 * 6 + i * 512));
    const memory = openMemory({ bytes: image.bytes });
    for (const length of [image.bytes.length, 2 ** 53 - 512]) {
      memory.truncate(length);
      const file = directChild(memory);
      const started = performance.now();
      const result = await checkQcow2(file, await readHeader(file));
      expect(performance.now() - started).toBeLessThan(5000);
      expect(result.checkErrors).toBeGreaterThan(0);
    }
  }, 20_000);

  test("must take memory for what a sparse file holds, not for its length", async () => {
    const image = new ImageBuilder({ clusterBits: 16 });
    const memory = openMemory({ bytes: image.bytes });
    memory.truncate(100 * TiB);
    const file = directChild(memory);
    const result = await checkQcow2(file, await readHeader(file));
    expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    memory.truncate(2 ** 53 - 512);
    expect(await checkQcow2(file, await readHeader(file))).toEqual(result);
  });

  test("must not read holes, however many tables lie in them", async () => {
    const image = new ImageBuilder({ clusterBits: 16 });
    const memory = openMemory({ bytes: image.bytes });
    const l1 = new Uint8Array(2 ** 20);
    const view = new DataView(l1.buffer);
    for (let i = 0; i < l1.length / 8; i++) {
      view.setBigUint64(i * 8, BigInt(2 ** 52) + BigInt(i) * (2n ** 18n + BigInt(i % 2)));
    }
    image.field("l1Size", l1.length / 8).field("l1TableOffset", 16 * 65536);
    memory.writev(0, IoVector.of(image.bytes));
    memory.writev(16 * 65536, IoVector.of(l1));
    memory.truncate(2 ** 53 - 512);
    const file = directChild(memory);
    const before = Number(memory.statistics()["reads"]);
    const result = await checkQcow2(file, await readHeader(file));
    expect(result.corruptions).toBeGreaterThan(l1.length / 8);
    expect(Number(memory.statistics()["reads"]) - before).toBeLessThan(20);
  }, 20_000);

  test("must stop when it is told to", async () => {
    const file = childOf(new ImageBuilder().bytes);
    const signal = AbortSignal.abort();
    const header = await readHeader(file);
    await expect(checkQcow2(file, header, { signal })).rejects.toSatisfy((error) =>
      hasCode(error, "ECANCELED"),
    );
  });

  test("must count what the file cannot read, and go on", async () => {
    const inner = childOf(new ImageBuilder().bytes);
    const header = await readHeader(inner);
    const file = {
      ...inner,
      lengthBytes: inner.lengthBytes,
      readv: (offset: number): void => {
        throw new BlockError("EIO", `no byte at ${offset}`);
      },
    };
    const result = await checkQcow2(file, header);
    expect(result.checkErrors).toBeGreaterThan(0);
    expect(result.findings[0]?.message).toContain("I/O error");
  });

  test("must be done in a moment with 128 GiB of data", async () => {
    const clusterBits = 16;
    const tables = 256;
    const image = new ImageBuilder({ clusterBits, dataClusters: 0 });
    const memory = openMemory({ bytes: image.bytes });
    const l1 = new Uint8Array(tables * 8);
    const l2 = new Uint8Array(65536);
    const base = 16 * GiB;
    for (let t = 0; t < tables; t++) {
      const offset = (16 + t) * 65536;
      new DataView(l1.buffer).setBigUint64(t * 8, BigInt(offset) | COPIED);
      const view = new DataView(l2.buffer);
      for (let i = 0; i < 8192; i++) {
        view.setBigUint64(i * 8, BigInt(base + (t * 8192 + i) * 65536) | COPIED);
      }
      memory.writev(offset, IoVector.of(l2));
    }
    image.field("l1Size", tables).field("size", tables * 512 * MiB);
    memory.writev(0, IoVector.of(image.bytes));
    memory.writev(3 * 65536, IoVector.of(l1));
    memory.truncate(base + tables * 512 * MiB);
    const file = directChild(memory);
    const header = await readHeader(file);
    // About half a second; the rest is a busy machine.
    const started = performance.now();
    const result = await checkQcow2(file, header);
    expect(performance.now() - started).toBeLessThan(15_000);
    expect(result.allocatedClusters).toBe(2 ** 21);
    expect(result.corruptions).toBeGreaterThan(2 ** 21);
  }, 30_000);
});
