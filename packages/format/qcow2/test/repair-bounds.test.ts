/** Images that want a repair to take too much: it ends soon, in bounded memory, and says what it left. */
import { directChild } from "@blocklayer/block-api";
import { GiB, MiB, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { COPIED, soundImage } from "./support/broken-images.js";
import { CLUSTER, ImageBuilder } from "./support/image-builder.js";

/** More than any of them needs on a busy machine. */
const MAX_MS = 60_000;
const MAX_MEMORY_BYTES: number = 700 * MiB;

/** Repairs, and says how long it took and what it held at most. */
async function measured(
  bytes: Uint8Array,
  lengthBytes = bytes.length,
): Promise<{ corruptions: number; leaks: number; fixed: number }> {
  const memory = openMemory({ bytes });
  if (lengthBytes > bytes.length) await memory.truncate(lengthBytes);
  const file = directChild(memory);
  const before = process.memoryUsage();
  let peak = 0;
  const timer = setInterval(() => {
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    peak = Math.max(peak, heapUsed + arrayBuffers);
  }, 5);
  const started = performance.now();
  try {
    const { result } = await repairQcow2(file, await readHeader(file), { fix: "all" });
    const { corruptions, leaks, corruptionsFixed = 0, leaksFixed = 0 } = result;
    expect(performance.now() - started).toBeLessThan(MAX_MS);
    expect(peak - before.heapUsed - before.arrayBuffers).toBeLessThan(MAX_MEMORY_BYTES);
    return { corruptions, leaks, fixed: corruptionsFixed + leaksFixed };
  } finally {
    clearInterval(timer);
  }
}

describe("repairQcow2() of an image that wants too much", () => {
  test("must not take memory for a file that is mostly hole", async () => {
    const image = soundImage({ clusterBits: 16 });
    // The last cluster of 8 TiB is in use: the counts in between cost nothing.
    const far = 8 * 1024 * GiB - 65_536;
    image.entry(CLUSTER.l2, 20, BigInt(far) | COPIED);
    expect(await measured(image.bytes, far + 65_536)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test(
    "must end when an L1 table names one L2 table twenty thousand times",
    async () => {
      // Refcounts of one bit cannot count that, and copies for all of them would be too many for one round.
      const entries = 20_000;
      const image = new ImageBuilder({ refcountOrder: 0, dataClusters: 2000 });
      const l1 = CLUSTER.data + 100;
      for (let i = 0; i < 2000; i++) image.entry(CLUSTER.l2, i < 64 ? i : 0, 0n);
      for (let i = 5; i < CLUSTER.data + 2000; i++) image.refcount(i, 0);
      image.field("l1TableOffset", l1 * 512).field("l1Size", entries);
      for (let i = 0; i < entries; i++) image.entry(l1, i, BigInt(CLUSTER.l2 * 512) | COPIED);
      for (let i = 0; i < Math.ceil((entries * 8) / 512); i++) image.refcount(l1 + i, 1);
      const { corruptions, fixed } = await measured(image.bytes);
      expect(corruptions).toBe(0);
      expect(fixed).toBeGreaterThan(entries);
    },
    2 * MAX_MS,
  );

  test("must stop at tables that overlap too much, and change nothing", async () => {
    // Thousands of snapshots whose L1 tables are one and the same long range.
    const image = soundImage({ clusterBits: 12, dataClusters: 400 });
    const table = (CLUSTER.data + 1) * 4096;
    const count = 20_000;
    image.field("snapshotCount", count).field("snapshotsOffset", table);
    image.bytes.fill(0, table);
    const view = viewOf(image.bytes);
    for (let i = 0; i < count; i++) {
      const at = table + i * 56;
      view.setUint32(at + 4, (CLUSTER.data + 300) * 4096);
      view.setUint32(at + 8, 2 ** 15);
      view.setUint32(at + 36, 16);
    }
    const memory = openMemory({ bytes: image.bytes.slice() });
    const file = directChild(memory);
    const started = performance.now();
    const { result } = await repairQcow2(file, await readHeader(file), { fix: "all" });
    expect(performance.now() - started).toBeLessThan(MAX_MS);
    expect(result.checkErrors).toBeGreaterThan(0);
    expect(Buffer.compare(memory.bytes, image.bytes)).toBe(0);
  });
});
