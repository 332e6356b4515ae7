/**
 * Broken images through the whole driver, opened for writing: write, zero, discard, read, flush, close.
 * An image that lies about itself may be refused at any point, but only with a BlockError, and soon: never with an
 * assertion, never by hanging.
 */
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { openQcow2, type Qcow2Driver } from "../src/index.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { mutate } from "./support/mutate.js";
import { describeWithQemu, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { imagesToBreak } from "./support/spec/index.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 400);
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);
const OPERATIONS = 12;
const MAX_OFFSET_BYTES = 4 * 2 ** 20;
/** A request that takes this long hangs. */
const MAX_STEP_MS = 10_000;

async function attempt(step: () => unknown): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("the request hangs")), MAX_STEP_MS);
  });
  try {
    await Promise.race([(async (): Promise<unknown> => step())(), late]);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  } finally {
    clearTimeout(timer);
  }
}

function operation(disk: Qcow2Driver, rng: Rng): unknown {
  const sectors = Math.floor(Math.min(disk.lengthBytes, MAX_OFFSET_BYTES) / 512);
  const offset = rng.below(Math.max(1, sectors)) * 512;
  const length = Math.min(disk.lengthBytes - offset, 512 * (1 + rng.below(64)));
  if (length <= 0) return undefined;
  switch (rng.below(6)) {
    case 0:
    case 1:
      return disk.writev(offset, IoVector.of(new Uint8Array(length).fill(rng.below(256))));
    case 2:
      return disk.writeZeroes(offset, length, { mayUnmap: rng.below(2) === 0 });
    case 3:
      return disk.discard(offset, length);
    case 4:
      return disk.readv(offset, IoVector.allocate(length));
    default:
      return disk.flushToOs();
  }
}

/** @returns whether the image opened */
async function torture(bytes: Uint8Array, rng: Rng): Promise<boolean> {
  let disk: Qcow2Driver | undefined;
  await attempt(async () => {
    disk = await openQcow2({ file: directChild(openMemory({ bytes })) });
  });
  if (disk === undefined) return false;
  const open: Qcow2Driver = disk;
  for (let i = 0; i < OPERATIONS; i++) await attempt(() => operation(open, rng));
  await attempt(() => open.close());
  return true;
}

describeWithQemu("a broken image, opened for writing", () => {
  const scratch = useScratch();

  test(
    `must let only a BlockError escape, in ${RUNS} images`,
    async () => {
      const images: Uint8Array[] = [];
      for (const recipe of RECIPES) images.push(await makeImage(recipe, scratch(recipe.name)));
      images.push(...imagesToBreak());
      let opened = 0;
      for (let run = 0; run < RUNS; run++) {
        const seed = SEED * 1_000_003 + run;
        const rng = new Rng(seed);
        try {
          if (await torture(mutate(rng.pick(images), rng, true), rng)) opened++;
        } catch (cause) {
          throw new Error(`BLOCKLAYER_FUZZ_SEED=${SEED}, run ${run}, seed ${seed}`, { cause });
        }
      }
      console.log(`mutated images: ${RUNS} (opened for writing: ${opened})`);
      expect(opened).toBeGreaterThan(RUNS / 3);
      expect(opened).toBeLessThan(RUNS);
    },
    30_000 + RUNS * 20,
  );
});
