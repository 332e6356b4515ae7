import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, type Qcow2Driver } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { mutate } from "./support/mutate.js";
import { Rng } from "./support/rng.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const RUNS = 100 * Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 1);
const SIZE = 2 ** 18;

/** An image with something of every kind in it. */
async function victim(options: Readonly<Record<string, unknown>>): Promise<Uint8Array> {
  const memory = await createInMemory({ size: SIZE, ...options });
  const disk = await openQcow2({ file: directChild(memory) });
  await disk.writev(0, IoVector.of(new Uint8Array(50_000).fill(1)));
  await disk.writev(65_536, IoVector.of(new Uint8Array(32_768).fill(2)), { compressed: true });
  await disk.writeZeroes(131_072, 20_000);
  await disk.discard(10_240, 4096);
  await disk.close();
  return memory.bytes;
}

/** Lets nothing but a BlockError escape. @returns whether one did */
async function attempt(work: () => unknown): Promise<boolean> {
  try {
    await work();
    return false;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return true;
  }
}

async function abuse(disk: Qcow2Driver, rng: Rng): Promise<void> {
  for (let at = 0; at < SIZE; at += 32_768) {
    await attempt(() => disk.readv(at, IoVector.allocate(32_768)));
  }
  for (let i = 0; i < 6; i++) {
    const offset = 512 * rng.below(SIZE / 512);
    const length = Math.min(SIZE - offset, 512 * (1 + rng.below(40)));
    await attempt(() => disk.blockStatus(offset, length));
    switch (rng.below(4)) {
      case 0:
        await attempt(() => disk.discard(offset, length));
        break;
      case 1:
        await attempt(() => disk.writeZeroes(offset, length, { mayUnmap: true }));
        break;
      case 2: {
        const start = offset - (offset % 4096);
        const part = IoVector.of(new Uint8Array(4096).fill(9));
        await attempt(() => disk.writev(start, part, { compressed: true }));
        break;
      }
      default:
        await attempt(() => disk.writev(offset, IoVector.of(new Uint8Array(length).fill(8))));
    }
  }
  await attempt(() => disk.flushToOs());
  await attempt(() => disk.check());
}

describe("Qcow2Driver on broken images", () => {
  test.each([
    ["512", { cluster_size: 512, refcount_bits: 64 }],
    ["4k", { cluster_size: 4096 }],
    ["4k, v2", { cluster_size: 4096, compat: "v2" }],
  ])("must fail with a BlockError or not at all: %s", { timeout: 600_000 }, async (_, options) => {
    const bytes = await victim(options);
    let opened = 0;
    for (let seed = 0; seed < RUNS; seed++) {
      const rng = new Rng(seed);
      const broken = mutate(bytes, rng, seed % 3 === 0);
      const memory = openMemory({ bytes: broken });
      let disk: Qcow2Driver | undefined;
      await attempt(async () => {
        disk = await openQcow2({ file: directChild(memory) });
      });
      if (disk === undefined) continue;
      opened++;
      const before = disk.statistics();
      expect(before["failed"]).toBe(false);
      const open = disk;
      try {
        await abuse(open, rng);
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
      await attempt(() => open.close());
      // Whatever was broken, the header still opens: nothing was written over it.
      if (seed % 3 !== 0) {
        const again = await openQcow2({ file: directChild(memory), readOnly: true });
        await again.close();
      }
    }
    expect(opened).toBeGreaterThan(RUNS / 3);
  });
});
