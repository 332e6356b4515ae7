/** How much of a disk the L2 cache covers, in how much memory. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { GiB, IoVector, MiB, TiB } from "@blocklayer/bytes";
import { Random } from "@blocklayer/sim";
import { beforeAll, expect, test } from "vitest";
import { openQcow2, type Qcow2Driver } from "../src/index.js";
import { createInMemory } from "./support/images.js";

/** What a slice of 4 KiB maps, with clusters of 64 KiB and entries of 8 bytes. */
const SLICE_COVERAGE_BYTES = 512 * 65536;
const SLICES = (64 * GiB) / SLICE_COVERAGE_BYTES;
const BLOCK_BYTES = 4096;

/** A file that counts what is read of it. */
function counted(file: BlockChild): { file: BlockChild; reads: () => number } {
  let reads = 0;
  const counting = new Proxy(file, {
    get(target, name) {
      if (name !== "readv") {
        const value: unknown = Reflect.get(target, name);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      }
      return (offset: number, into: IoVector) => {
        reads++;
        return target.readv(offset, into);
      };
    },
  });
  return { file: counting, reads: () => reads };
}

function open64GiB(
  file: BlockChild,
  options: Readonly<Record<string, unknown>>,
): Promise<Qcow2Driver> {
  // What would look for overlaps reads every table once, and this is about what is read again.
  return openQcow2({ file, options: { "overlap-check": "none", ...options } });
}

/** Random reads and writes of 4 KiB all over the disk, at places that have clusters. */
async function work(disk: Qcow2Driver, seed: number, requests: number): Promise<void> {
  const random = new Random(seed);
  const block = IoVector.allocate(BLOCK_BYTES);
  for (let i = 0; i < requests; i++) {
    const slice = random.below(SLICES);
    const offset = slice * SLICE_COVERAGE_BYTES + random.below(16) * BLOCK_BYTES;
    if (i % 2 === 0) await disk.readv(offset, block);
    else await disk.writev(offset, block);
  }
}

/** An image of 64 GiB with all its L2 tables, and a cluster for each slice of them. */
async function spread(): Promise<BlockChild> {
  const made = directChild(await createInMemory({ size: "64G" }));
  const disk = await openQcow2({ file: made });
  const block = IoVector.allocate(BLOCK_BYTES);
  for (let i = 0; i < SLICES; i++) await disk.writev(i * SLICE_COVERAGE_BYTES, block);
  await disk.close();
  return made;
}

let image: BlockChild;
beforeAll(async () => {
  image = await spread();
});

test("an L2 cache of 8 MiB must cover 64 GiB: no table is read twice, and no more memory taken", async () => {
  const { file, reads } = counted(image);
  const disk = await open64GiB(file, { "l2-cache-size": "8M" });
  const block = IoVector.allocate(BLOCK_BYTES);
  for (let i = 0; i < SLICES; i++) await disk.readv(i * SLICE_COVERAGE_BYTES, block);
  const warm = disk.statistics();
  expect([warm["l2CacheMisses"], warm["l2CacheBytes"]]).toEqual([SLICES, 8 * MiB]);
  const before = reads();
  const requests = 20_000;
  await work(disk, 1, requests);
  const { l2CacheMisses, l2CacheEvictions, l2CacheBytes } = disk.statistics();
  expect([l2CacheMisses, l2CacheEvictions, l2CacheBytes]).toEqual([SLICES, 0, 8 * MiB]);
  // Half of the requests read their block, and nothing else is read.
  expect(reads() - before).toBe(requests / 2);
  await disk.close();
});

test("an L2 cache of 4 MiB must read tables again in 64 GiB, and stay in its memory", async () => {
  const { file } = counted(image);
  const disk = await open64GiB(file, { "l2-cache-size": "4M" });
  await work(disk, 2, 20_000);
  const { l2CacheMisses, l2CacheBytes } = disk.statistics();
  expect(l2CacheMisses).toBeGreaterThan(2 * SLICES);
  expect(l2CacheBytes).toBe(4 * MiB);
  await disk.close();
});

test.each([
  ["64 GiB", 64 * GiB, 8 * MiB],
  ["256 GiB", 256 * GiB, 32 * MiB],
  ["1 TiB", TiB, 32 * MiB],
])(
  "the L2 cache of %s must cover the disk in at most 32 MiB when no size is given",
  async (...row) => {
    const [, size, cacheBytes] = row;
    const memory = await createInMemory({ size });
    const disk = await openQcow2({ file: directChild(memory) });
    const { l2CacheLimitBytes } = disk.statistics();
    expect(l2CacheLimitBytes).toBe(cacheBytes);
    await disk.close();
  },
);
