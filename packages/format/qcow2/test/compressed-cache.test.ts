import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { MetadataCache } from "@blocklayer/metadata-cache";
import { Random, SimDisk } from "@blocklayer/sim";
import { describe, expect, test, vi } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { CompressedCache } from "../src/writeback/compressed-cache.js";
import { type AlignedDisk, openAligned } from "./support/aligned-disk.js";
import { createInMemory } from "./support/images.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const CLUSTER = 4096;
const compressed = { compressed: true };

/** A cluster of which about `bytes` are left after compression. */
function cluster(seed: number, bytes = 1000, length = CLUSTER): Uint8Array {
  const content = new Uint8Array(length);
  content.set(new Random(seed).bytes(bytes));
  content.fill(seed, bytes);
  return content;
}

/** What requests can be made to wait at. */
function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

async function write(disk: AlignedDisk, index: number, seed = index + 1): Promise<void> {
  await disk.backend.write(index * CLUSTER, cluster(seed), compressed);
}

async function expectCluster(disk: AlignedDisk, index: number, seed = index + 1): Promise<void> {
  const found = await disk.backend.read(index * CLUSTER, CLUSTER);
  expect(Buffer.compare(found, cluster(seed)), `cluster ${index}`).toBe(0);
}

/** What a check finds in the file as it is now. */
async function findings(disk: AlignedDisk): Promise<string[]> {
  const child = directChild(openMemory({ bytes: disk.bytes() }));
  return (await checkQcow2(child, await readHeader(child))).findings.map(({ message }) => message);
}

const dataWrites = ({ requests }: AlignedDisk): number =>
  requests.filter(({ kind, offset }) => kind === "write" && offset >= 5 * CLUSTER).length;

describe("CompressedCache on a file that takes only aligned requests", () => {
  test("must write whole host clusters, and read nothing to write them", async () => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    disk.requests.length = 0;
    for (let i = 1; i < 40; i++) await write(disk, i);
    const kinds = new Set(disk.requests.map(({ kind }) => kind));
    expect([...kinds]).toEqual(["write"]);
    for (const { offset, lengthBytes } of disk.requests) {
      expect([offset % CLUSTER, lengthBytes % CLUSTER]).toEqual([0, 0]);
    }
    expect(disk.requests.length).toBeLessThanOrEqual(11);
    for (let i = 0; i < 40; i++) await expectCluster(disk, i);
    await disk.backend.flush();
    expect(await findings(disk)).toEqual([]);
    expect(disk.statistic("compressedCacheClusters")).toBe(0);
    expect(disk.statistic("compressedCacheAvoidedReadModifyWrites")).toBeGreaterThan(60);
    for (let i = 0; i < 40; i++) await expectCluster(disk, i);
    await disk.backend.close();
  });

  test("must not be there for a file that takes any request [S13]", async () => {
    const disk = await openAligned({ size: 16 * CLUSTER, cluster_size: CLUSTER }, 1);
    for (let i = 0; i < 8; i++) await write(disk, i);
    expect(disk.statistic("compressedCache")).toBe(false);
    expect(disk.statistic("compressedCacheFlushedClusters")).toBe(0);
    expect(dataWrites(disk)).toBeGreaterThanOrEqual(8);
    expect((await disk.backend.root.driver.formatInfo?.())?.data).not.toHaveProperty(
      "compressed-write-cache",
    );
    await disk.backend.close();
  });

  test("must be decided again at reopen, after a flush, and show in info [S13]", async () => {
    const disk = await openAligned({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    const { root } = disk.backend;
    expect((await root.driver.formatInfo?.())?.data).toHaveProperty("compressed-write-cache", true);
    await write(disk, 0);
    expect(disk.statistic("compressedCacheClusters")).toBe(1);
    await disk.graph.reopen(root, { options: { "compressed-write-cache": "off" } });
    expect(disk.statistic("compressedCache")).toBe(false);
    expect(await findings(disk)).toEqual([]);
    await write(disk, 1);
    expect(disk.statistic("compressedCacheClusters")).toBe(0);
    await disk.graph.reopen(root, { options: { "compressed-write-cache": "on" } });
    await write(disk, 2);
    expect(disk.statistic("compressedCacheClusters")).toBe(1);
    for (let i = 0; i < 3; i++) await expectCluster(disk, i);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must be as it was, with all else, when a reopen cannot flush it [S13]", async () => {
    const disk = await openAligned({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    const { root } = disk.backend;
    await write(disk, 0);
    disk.hook = ({ kind }) => {
      if (kind === "flush") throw new BlockError("EIO", "sim: injected failure");
    };
    // Below the graph, which would flush first, and refuse.
    await expect(
      root.driver.reopen({
        readOnly: false,
        options: { "compressed-write-cache": "off", "pass-discard-request": false },
      }),
    ).rejects.toMatchObject({ code: "EIO" });
    expect(disk.statistic("compressedCache")).toBe(true);
    disk.hook = () => {};
    await disk.backend.close().catch(() => undefined);
  });

  test("must be decided again when only the file was reopened [S13]", async () => {
    const image = await createInMemory({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    const inner = directChild(image);
    let limits = { ...inner.limits, requestAlignment: 512 };
    const file = Object.create(inner, { limits: { get: () => limits } }) as typeof inner;
    const disk = await openQcow2({ file });
    const put = (i: number): unknown =>
      disk.writev(i * CLUSTER, IoVector.of(cluster(i + 1)), compressed);
    await put(0);
    expect(disk.statistics()["compressedCacheClusters"]).toBe(1);
    limits = { ...limits, requestAlignment: 1 };
    await put(1);
    expect(disk.statistics()["compressedCacheClusters"]).toBe(0);
    await disk.close();
  });

  test("must read what is partly here and partly in the file [S4]", async () => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    for (let round = 0; round < 12; round++) {
      // A flush in the middle of a host cluster: the next data begins there.
      for (let i = 0; i < 5; i++) await write(disk, 5 * round + i, 7 * round + i + 1);
      for (let i = 0; i < 5; i++) await expectCluster(disk, 5 * round + i, 7 * round + i + 1);
      const all = await disk.backend.read(0, (round + 1) * 5 * CLUSTER);
      expect(Buffer.compare(all.subarray(0, CLUSTER), cluster(1))).toBe(0);
      if (round % 3 !== 2) await disk.backend.flush();
    }
    expect(disk.statistic("compressedCacheHits")).toBeGreaterThan(0);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must be seen by readers while its write is on the way", async () => {
    const disk = await openAligned({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    await disk.backend.flush();
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    disk.hook = ({ kind, offset }) =>
      kind === "write" && offset >= 5 * CLUSTER ? gate : undefined;
    const writes = Array.from({ length: 8 }, (_, i) => write(disk, i + 1));
    await expect.poll(() => disk.statistic("compressedCacheWrites")).toBeGreaterThan(1);
    for (let i = 1; i < 5; i++) await expectCluster(disk, i);
    disk.hook = () => {};
    go();
    await Promise.all(writes);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must have a flush wait for what others write [S8]", async () => {
    const disk = await openAligned({ size: 32 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    await disk.backend.flush();
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    let parked = 0;
    disk.hook = ({ kind, offset }) => {
      if (kind !== "write" || offset < 5 * CLUSTER || parked > 0) return undefined;
      parked++;
      return gate;
    };
    const writes = Array.from({ length: 6 }, (_, i) => write(disk, i + 1));
    await expect.poll(() => parked).toBe(1);
    let flushed = false;
    const flush = disk.backend.flush().then(() => {
      flushed = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(flushed).toBe(false);
    go();
    await flush;
    await Promise.all(writes);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("writeToStore() must wait for what others take meanwhile of what it found [S8, S11]", async () => {
    const disk = await openAligned({ size: 32 * CLUSTER, cluster_size: CLUSTER });
    const l2Table = gate();
    const data = gate();
    disk.hook = ({ kind, offset }) => {
      if (kind !== "write" || offset < 4 * CLUSTER) return undefined;
      // The request holds the image lock while its L2 table is written.
      if (offset === 4 * CLUSTER) return l2Table.passed;
      // Then the flush and the request take turns: the flush has the clusters 5, 9 and 13.
      return offset % (4 * CLUSTER) === CLUSTER ? undefined : data.passed;
    };
    // Every other cluster does not shrink, so that no two host clusters of compressed data lie side by side.
    const content = new Uint8Array(16 * CLUSTER);
    for (let i = 0; i < 16; i++)
      content.set(cluster(i + 1, i % 2 === 0 ? 3000 : CLUSTER), i * CLUSTER);
    const writeToStore = vi.spyOn(CompressedCache.prototype, "writeToStore");
    const written = disk.backend.write(0, content, compressed);
    await expect.poll(() => disk.requests.some(({ offset }) => offset === 4 * CLUSTER)).toBe(true);
    const flush = disk.backend.flush();
    l2Table.open();
    await expect.poll(() => disk.statistic("compressedCacheWrites")).toBe(5);
    let ended = 0;
    for (const { value } of writeToStore.mock.results) {
      void Promise.resolve(value).then(() => ended++);
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(ended).toBe(0);
    writeToStore.mockRestore();
    data.open();
    await Promise.all([written, flush]);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must hold eight host clusters at most, however much one request brings", async () => {
    const disk = await openAligned({ size: 256 * CLUSTER, cluster_size: CLUSTER });
    let most = 0;
    disk.hook = async () => {
      most = Math.max(most, Number(disk.statistic("compressedCacheBuffers")));
      await Promise.resolve();
    };
    const content = new Uint8Array(200 * CLUSTER);
    for (let i = 0; i < 200; i++) content.set(cluster(i % 251, 3000), i * CLUSTER);
    await Promise.all([
      disk.backend.write(0, content, compressed),
      disk.backend.write(200 * CLUSTER, content.subarray(0, 50 * CLUSTER), compressed),
    ]);
    expect(most).toBeGreaterThan(3);
    expect(most).toBeLessThanOrEqual(8);
    expect(Buffer.compare(await disk.backend.read(0, content.length), content)).toBe(0);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must store what does not shrink past the cache, between cached data", async () => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    const content = new Uint8Array(32 * CLUSTER);
    for (let i = 0; i < 32; i++)
      content.set(cluster(i + 1, i % 3 === 1 ? CLUSTER : 900), i * CLUSTER);
    await disk.backend.write(0, content, compressed);
    expect(Buffer.compare(await disk.backend.read(0, content.length), content)).toBe(0);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must forget what is dropped, and keep its place out of use until it is written [S14, D1]", async () => {
    const disk = await openAligned({ size: 32 * CLUSTER, cluster_size: CLUSTER });
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 10; i++) await write(disk, i, 31 * round + i + 1);
      if (round % 2 === 0) await disk.backend.discard(0, 6 * CLUSTER);
      if (round % 4 === 1) await disk.backend.write(2 * CLUSTER, cluster(99), {});
      await disk.backend.flush();
    }
    for (let i = 6; i < 10; i++) await expectCluster(disk, i, 31 * 19 + i + 1);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });
});

describe("Qcow2Driver.close() of an image that failed", () => {
  test("must write nothing any more, not even the end of the last sector [C17]", async () => {
    const image = await createInMemory({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    const file = new SimDisk({ content: image.bytes });
    const options = { "compressed-write-cache": "off" };
    const disk = await openQcow2({ file: directChild(file), options });
    await disk.writev(0, IoVector.of(cluster(1)), compressed);
    expect(file.lengthBytes % 512).not.toBe(0);
    file.inject({ kind: "flush" });
    await expect((async () => disk.flushToOs())()).rejects.toMatchObject({ code: "EIO" });
    const { write } = file.counts;
    await expect(disk.close()).rejects.toMatchObject({ code: "ENODEFAILED" });
    expect(file.counts.write).toBe(write);
  });
});

describe("CompressedCache in the node's statistics [S13]", () => {
  test("must tell whether it is on, what it holds, and what it did and saved", async () => {
    const disk = await openAligned({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    const told = (): Record<string, unknown> => {
      const all = Object.entries(disk.backend.root.statistics());
      return Object.fromEntries(all.filter(([name]) => name.startsWith("compressedCache")));
    };
    const nothing = {
      compressedCache: true,
      compressedCacheClusters: 0,
      compressedCacheBytes: 0,
      compressedCacheBuffers: 0,
      compressedCacheHits: 0,
      compressedCacheWrites: 0,
      compressedCacheFlushedClusters: 0,
      compressedCachePaddedBytes: 0,
      compressedCacheAvoidedReadModifyWrites: 0,
    };
    expect(told()).toEqual(nothing);
    await write(disk, 0);
    await write(disk, 1);
    const bytes = Number(told()["compressedCacheBytes"]);
    expect(bytes).toBeGreaterThan(2000);
    expect(bytes).toBeLessThan(CLUSTER);
    // The first one's tail, and the second one's head and tail, share blocks with others.
    const held = {
      compressedCacheClusters: 1,
      compressedCacheBytes: bytes,
      compressedCacheBuffers: 1,
    };
    const avoided = { compressedCacheAvoidedReadModifyWrites: 3 };
    expect(told()).toEqual({ ...nothing, ...held, ...avoided });
    await expectCluster(disk, 1);
    expect(told()["compressedCacheHits"]).toBe(1);
    await disk.backend.flush();
    const done = {
      compressedCacheHits: 1,
      compressedCacheWrites: 1,
      compressedCacheFlushedClusters: 1,
      compressedCachePaddedBytes: CLUSTER - bytes,
    };
    expect(told()).toEqual({ ...nothing, ...avoided, ...done });
    await disk.graph.reopen(disk.backend.root, { options: { "compressed-write-cache": "off" } });
    expect(told()).toEqual({ ...nothing, compressedCache: false });
    await disk.backend.close();
  });
});

describe("CompressedCache between other work", () => {
  test.each([
    ["go on without a gap after room was given back [S10, D4]", true],
    ["forget data whose host cluster was given back [S14]", false],
  ])("must %s", async (_, shared) => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    // The host cluster holds other data too, or is the failing data's own.
    if (shared) await write(disk, 0);
    // Drawing an edge may have to flush, and that may fail: after the data has its room, before it is linked.
    const draw = vi.spyOn(MetadataCache.prototype, "dependsOn").mockImplementationOnce(() => {
      throw new BlockError("EIO", "sim: injected failure");
    });
    await expect(write(disk, 1)).rejects.toMatchObject({ code: "EIO" });
    draw.mockRestore();
    for (let i = 2; i < 12; i++) await write(disk, i);
    if (shared) await expectCluster(disk, 0);
    for (let i = 2; i < 12; i++) await expectCluster(disk, i);
    expect((await disk.backend.read(CLUSTER, CLUSTER)).every((byte) => byte === 0)).toBe(true);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });

  test("must check for overlaps when it writes, and mark the image as corrupt [S12]", async () => {
    const image = await createInMemory({ size: 16 * CLUSTER, cluster_size: CLUSTER });
    // The refcount of the L1 table's cluster says that it is free: compressed data is given its place.
    const bytes = image.bytes.slice();
    new DataView(bytes.buffer).setUint16(2 * CLUSTER + 2 * 3, 0);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({
      file: directChild(memory),
      options: { "compressed-write-cache": "on" },
    });
    await expect(
      (async () => {
        await disk.writev(0, IoVector.of(cluster(1)), compressed);
        await disk.flushToOs();
      })(),
    ).rejects.toMatchObject({ code: "ECORRUPT" });
    await expect(async () => disk.flushToOs()).rejects.toMatchObject({ code: "ENODEFAILED" });
    await disk.close().catch(() => undefined);
    const header = await readHeader(directChild(openMemory({ bytes: memory.bytes })));
    expect(header.incompatible & 2n).toBe(2n);
  });
});

describe("CompressedCache whose write fails", () => {
  const eio = (): never => {
    throw new BlockError("EIO", "sim: injected failure");
  };

  async function failed(): Promise<{ disk: AlignedDisk; error: unknown }> {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    await disk.backend.flush();
    disk.hook = ({ kind, offset }) => {
      if (kind === "write" && offset >= 5 * CLUSTER) eio();
    };
    let error: unknown;
    for (let i = 1; i < 20 && error === undefined; i++) {
      await write(disk, i).catch((caught: unknown) => {
        error = caught;
      });
    }
    disk.hook = () => {};
    return { disk, error };
  }

  test("must fail the write that met it, every later flush with the first cause, and close [C17]", async () => {
    const { disk, error } = await failed();
    expect(error).toMatchObject({ code: "EIO" });
    for (let i = 0; i < 3; i++) {
      await expect(disk.backend.flush()).rejects.toMatchObject({
        code: "ENODEFAILED",
        message: expect.stringContaining("injected failure"),
      });
    }
    await expect(write(disk, 30)).rejects.toMatchObject({ code: "ENODEFAILED", cause: error });
    await expect(disk.backend.close()).rejects.toMatchObject({ code: "ENODEFAILED" });
    expect((await findings(disk)).filter((one) => !one.startsWith("Leaked"))).toEqual([]);
  });

  test("must still let readers have the data, and never let a table name it in the file [S11]", async () => {
    const { disk } = await failed();
    for (let i = 0; i < 4; i++) await expectCluster(disk, i);
    await disk.backend.close().catch(() => undefined);
    const file = directChild(openMemory({ bytes: disk.bytes() }));
    const again = await openQcow2({ file, readOnly: true });
    const target = new Uint8Array(4 * CLUSTER);
    await again.readv(0, IoVector.of(target));
    expect(Buffer.compare(target.subarray(0, CLUSTER), cluster(1))).toBe(0);
    expect(target.subarray(CLUSTER).every((byte) => byte === 0)).toBe(true);
    await again.close();
  });

  test("must name every cache that a flush could not write, the first error first", async () => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    disk.hook = ({ kind }) => {
      if (kind === "write") eio();
    };
    const error: unknown = await disk.backend.flush().catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "EIO" });
    const { cause } = error as BlockError;
    expect((cause as AggregateError).errors.length).toBeGreaterThanOrEqual(3);
    expect((cause as AggregateError).message).toMatch(
      /compressed cache: .*L2 cache: .*refcount cache: /,
    );
    disk.hook = () => {};
    await disk.backend.close().catch(() => undefined);
  });
});

describe("CompressedCache and QEMU's two corruptions", () => {
  test("must hold: plain writes over and beside compressed ones [D5]", async () => {
    const disk = await openAligned({ size: 64 * CLUSTER, cluster_size: CLUSTER });
    await write(disk, 0);
    await disk.backend.write(0, cluster(50), {});
    await disk.backend.write(CLUSTER, cluster(51), {});
    await disk.backend.write(2 * CLUSTER, cluster(52), compressed);
    await expectCluster(disk, 0, 50);
    await expectCluster(disk, 1, 51);
    await expectCluster(disk, 2, 52);
    await disk.backend.close();
    expect(await findings(disk)).toEqual([]);
  });
});
