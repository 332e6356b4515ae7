/**
 * Broken images through the whole driver, read-only: open, read all, ask for every extent, check, close.
 * Whatever the image says, only a BlockError may come out, and soon.
 */
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector, MiB } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, type Qcow2Driver } from "../src/index.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { ImageBuilder } from "./support/image-builder.js";
import { createInMemory } from "./support/images.js";
import { mutate } from "./support/mutate.js";
import { describeWithQemu, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { imagesToBreak } from "./support/spec/index.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 200);
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);
/** Of a disk that claims to be long, only this much is read, at both ends. */
const MAX_READ_BYTES: number = 4 * MiB;
/** Extents asked for on one disk: a broken image may have many. */
const MAX_EXTENTS = 2000;
/** One image takes milliseconds; the rest is a busy machine. */
const MAX_IMAGE_MS = 10_000;

const TIMEOUT_MS = 30_000 + RUNS * 60;

/** What became of a step: done, or refused with a BlockError. Anything else is thrown on. */
async function attempt(step: () => unknown): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    if (error instanceof BlockError) return false;
    throw error;
  }
}

async function readSome(disk: Qcow2Driver): Promise<void> {
  const { lengthBytes } = disk;
  const chunk = 65536;
  const starts: number[] = [];
  for (let at = 0; at < Math.min(lengthBytes, MAX_READ_BYTES); at += chunk) starts.push(at);
  const tail = Math.max(0, lengthBytes - 8 * chunk);
  for (let at = tail - (tail % 512); at < lengthBytes; at += chunk) starts.push(at);
  for (const start of starts) {
    const length = Math.min(chunk, lengthBytes - start);
    await attempt(() => disk.readv(start, IoVector.allocate(length)));
  }
}

async function walkExtents(disk: Qcow2Driver): Promise<void> {
  const { lengthBytes } = disk;
  let at = 0;
  for (let count = 0; at < lengthBytes && count < MAX_EXTENTS; count++) {
    let step = 65536;
    await attempt(async () => {
      const status = await disk.blockStatus(at, Math.min(lengthBytes - at, 2 ** 40));
      expect(status.lengthBytes).toBeGreaterThan(0);
      expect(status.lengthBytes).toBeLessThanOrEqual(lengthBytes - at);
      step = status.lengthBytes;
    });
    at += step;
  }
}

/** @returns whether the image opened */
async function torture(bytes: Uint8Array): Promise<boolean> {
  const memory = openMemory({ bytes });
  let disk: Qcow2Driver | undefined;
  await attempt(async () => {
    disk = await openQcow2({ file: directChild(memory), readOnly: true });
  });
  if (disk === undefined) return false;
  const open: Qcow2Driver = disk;
  await readSome(open);
  await walkExtents(open);
  await attempt(() => open.check());
  await attempt(() => open.formatInfo());
  await attempt(() => open.close());
  expect({ changedByReading: Buffer.compare(memory.bytes, bytes) }).toEqual({
    changedByReading: 0,
  });
  return true;
}

async function tortureAll(images: readonly Uint8Array[], runs: number): Promise<number> {
  let opened = 0;
  for (let run = 0; run < runs; run++) {
    const seed = SEED * 1_000_003 + run;
    const rng = new Rng(seed);
    const bytes = mutate(rng.pick(images), rng, true);
    const started = performance.now();
    try {
      if (await torture(bytes)) opened++;
    } catch (cause) {
      throw new Error(`BLOCKLAYER_FUZZ_SEED=${SEED}, run ${run}, seed ${seed}`, { cause });
    }
    const elapsedMs = performance.now() - started;
    if (elapsedMs > MAX_IMAGE_MS) throw new Error(`seed ${seed} took ${elapsedMs} ms`);
  }
  console.log(`mutated images: ${runs} (opened read-only: ${opened})`);
  return opened;
}

describe("a broken image, opened read-only", () => {
  test(
    `must let only a BlockError escape, in ${RUNS} images of our own`,
    async () => {
      const images: Uint8Array[] = [];
      for (const version of [2, 3] as const) {
        images.push(new ImageBuilder({ version, dataClusters: 20 }).bytes);
        images.push(new ImageBuilder({ version, clusterBits: 12, dataClusters: 3 }).bytes);
      }
      images.push(new ImageBuilder({ refcountOrder: 6, dataClusters: 30 }).bytes);
      images.push((await createInMemory({ size: "1G", cluster_size: "4k" })).bytes);
      images.push(...imagesToBreak());
      const opened = await tortureAll(images, RUNS);
      expect(opened).toBeGreaterThan(RUNS / 10);
      expect(opened).toBeLessThan(RUNS);
    },
    TIMEOUT_MS,
  );
});

describeWithQemu("a broken image of qemu-img, opened read-only", () => {
  const scratch = useScratch();

  test(
    `must let only a BlockError escape, in ${RUNS} images`,
    async () => {
      const images: Uint8Array[] = [];
      for (const recipe of RECIPES) images.push(await makeImage(recipe, scratch(recipe.name)));
      for (const image of images) expect(await torture(image)).toBe(true);
      const opened = await tortureAll(images, RUNS);
      expect(opened).toBeGreaterThan(RUNS / 10);
    },
    TIMEOUT_MS,
  );
});
