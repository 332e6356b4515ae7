/**
 * Broken images, repaired: soon, in bounded memory, and sound afterwards, by our own check and (a sample) by the real
 * qemu-img. What could be read before is read the same after.
 */
import { writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { checkQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { lostIn, viewAll } from "./support/guest-view.js";
import { ImageBuilder } from "./support/image-builder.js";
import { mutate } from "./support/mutate.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { imagesToBreak } from "./support/spec/index.js";

const RUNS = Number(process.env["BLOCKLAYER_REPAIR_RUNS"] ?? 150);
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);
/** Every so many repaired images are shown to qemu-img too. */
const SAMPLE = 10;
/** One image takes milliseconds; the rest is a busy machine. */
const MAX_IMAGE_MS = 60_000;

type Outcome = "refused" | "repaired" | "incomplete";

/** Repairs one broken image and looks at what is left. */
async function repairOne(bytes: Uint8Array): Promise<{ outcome: Outcome; bytes: Uint8Array }> {
  const memory = openMemory({ bytes });
  const file = directChild(memory);
  let header;
  try {
    header = await readHeader(file);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { outcome: "refused", bytes };
  }
  const before = await viewAll(bytes);
  let result;
  try {
    ({ result } = await repairQcow2(file, header, { fix: "all" }));
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { outcome: "incomplete", bytes: memory.bytes.slice() };
  }
  const after = await viewAll(memory.bytes);
  for (const [name, view] of before) {
    const kept = after.get(name);
    const lost = kept === undefined ? ["all"] : lostIn(view, kept);
    expect({ name, lost }).toEqual({ name, lost: [] });
  }
  const again = await checkQcow2(file, await readHeader(file));
  const { corruptions, leaks, checkErrors } = again;
  expect({ corruptions, leaks, checkErrors }).toEqual({
    corruptions: result.corruptions,
    leaks: result.leaks,
    checkErrors: result.checkErrors,
  });
  const isClean = corruptions + leaks + checkErrors === 0;
  return { outcome: isClean ? "repaired" : "incomplete", bytes: memory.bytes.slice() };
}

async function repairAll(
  images: readonly Uint8Array[],
  runs: number,
  look: (run: number, bytes: Uint8Array) => Promise<void>,
): Promise<Readonly<Record<Outcome, number>>> {
  const counts = { refused: 0, repaired: 0, incomplete: 0 };
  for (let run = 0; run < runs; run++) {
    const seed = SEED * 1_000_003 + run;
    const rng = new Rng(seed);
    const broken = mutate(rng.pick(images), rng, run % 3 === 0);
    const started = performance.now();
    try {
      const { outcome, bytes } = await repairOne(broken);
      counts[outcome]++;
      if (outcome === "repaired") await look(run, bytes);
      if (outcome === "incomplete" && process.env["BLOCKLAYER_FUZZ_TELL"]) {
        console.log(`incomplete: seed ${seed}, run ${run}`);
      }
    } catch (cause) {
      throw new Error(`BLOCKLAYER_FUZZ_SEED=${SEED}, run ${run}, seed ${seed}`, { cause });
    }
    const elapsedMs = performance.now() - started;
    if (elapsedMs > MAX_IMAGE_MS) throw new Error(`seed ${seed} took ${elapsedMs} ms`);
  }
  console.log(`mutated images: ${runs} (repair: ${JSON.stringify(counts)})`);
  return counts;
}

describe("repairQcow2() of a broken image", () => {
  test(
    `must leave it sound and keep what could be read, in ${RUNS} images of our own`,
    async () => {
      const images: Uint8Array[] = [];
      for (const version of [2, 3] as const) {
        images.push(new ImageBuilder({ version, dataClusters: 20 }).bytes);
        images.push(new ImageBuilder({ version, clusterBits: 12, dataClusters: 3 }).bytes);
      }
      for (const refcountOrder of [0, 6]) {
        images.push(new ImageBuilder({ refcountOrder, dataClusters: 30 }).bytes);
      }
      images.push(...imagesToBreak());
      const counts = await repairAll(images, RUNS, async () => {});
      expect(counts.repaired).toBeGreaterThan(RUNS / 2);
      expect(counts.incomplete).toBe(0);
    },
    30_000 + RUNS * 100,
  );
});

describeWithQemu("repairQcow2() of a broken image of qemu-img", () => {
  const scratch = useScratch();

  test(
    `must leave it sound for qemu-img too, in ${RUNS} images`,
    async () => {
      const images: Uint8Array[] = [];
      for (const recipe of RECIPES) {
        if (recipe.name !== "large") images.push(await makeImage(recipe, scratch(recipe.name)));
      }
      const counts = await repairAll(images, RUNS, async (run, bytes) => {
        if (run % SAMPLE !== 0) return;
        const name = scratch("repaired");
        await writeFile(name, bytes);
        const { code, stderr } = await qemuImg("check", "-f", "qcow2", name);
        // Bitmaps that were dropped are told as a warning.
        expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringContaining("ERROR") });
      });
      expect(counts.repaired).toBeGreaterThan(RUNS / 2);
      expect(counts.incomplete).toBe(0);
    },
    30_000 + RUNS * 200,
  );
});
