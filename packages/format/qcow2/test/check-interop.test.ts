import { writeFile } from "node:fs/promises";
import type { CheckResult } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { beforeAll, expect, test } from "vitest";
import { checkQcow2 } from "../src/check/check.js";
import { readHeader } from "../src/index.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { childOf } from "./support/images.js";
import { mutate } from "./support/mutate.js";
import { describeWithQemu, qemuImg, type QemuResult, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 40);
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);

/** The counts of a check, in the order and with the names of qemu-img's JSON. */
type Counts = Readonly<Record<string, number>>;

function countsOf(result: CheckResult): Counts {
  return {
    corruptions: result.corruptions,
    leaks: result.leaks,
    "check-errors": result.checkErrors,
    "image-end-offset": result.imageEndOffset ?? 0,
    "total-clusters": result.totalClusters ?? 0,
    "allocated-clusters": result.allocatedClusters ?? 0,
    "compressed-clusters": result.compressedClusters ?? 0,
    "fragmented-clusters": result.fragmentedClusters ?? 0,
  };
}

/** qemu-img leaves out what is zero. */
function countsOfQemu({ stdout }: QemuResult): Counts | undefined {
  if (!stdout.trim().startsWith("{")) return undefined;
  const json = JSON.parse(stdout) as Record<string, number>;
  return {
    corruptions: json["corruptions"] ?? 0,
    leaks: json["leaks"] ?? 0,
    "check-errors": json["check-errors"] ?? 0,
    "image-end-offset": json["image-end-offset"] ?? 0,
    "total-clusters": json["total-clusters"] ?? 0,
    "allocated-clusters": json["allocated-clusters"] ?? 0,
    "compressed-clusters": json["compressed-clusters"] ?? 0,
    "fragmented-clusters": json["fragmented-clusters"] ?? 0,
  };
}

async function check(bytes: Uint8Array): Promise<CheckResult> {
  const file = childOf(bytes);
  return checkQcow2(file, await readHeader(file));
}

describeWithQemu("checkQcow2() beside qemu-img check", () => {
  const scratch = useScratch();
  const images: Uint8Array[] = [];
  beforeAll(async () => {
    for (const recipe of RECIPES) images.push(await makeImage(recipe, scratch(recipe.name)));
  }, 60_000);

  test("checkQcow2() must count as qemu-img does on sound images of every shape", async () => {
    for (const [index, recipe] of RECIPES.entries()) {
      const theirs = await qemuImg("check", "--output=json", "-f", "qcow2", scratch(recipe.name));
      const ours = await check(images[index] as Uint8Array);
      expect({ name: recipe.name, ...countsOf(ours) }).toEqual({
        name: recipe.name,
        ...countsOfQemu(theirs),
      });
      expect({ name: recipe.name, findings: ours.findings }).toEqual({
        name: recipe.name,
        findings: [],
      });
    }
  });

  test(`checkQcow2() must count as qemu-img does on ${RUNS} broken images`, async () => {
    let compared = 0;
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED * 1_000_003 + run;
      const rng = new Rng(seed);
      const bytes = mutate(rng.pick(images), rng);
      const filename = scratch("broken");
      await writeFile(filename, bytes);
      const theirs = countsOfQemu(await qemuImg("check", "--output=json", "-f", "qcow2", filename));
      let ours: Counts | undefined;
      try {
        ours = countsOf(await check(bytes));
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
      }
      if (theirs === undefined || ours === undefined) continue;
      compared++;
      // Where qemu-img cannot read a refcount, it leaves out the COPIED flags; we look at the rest.
      const unfinished = (theirs["check-errors"] ?? 0) > 0;
      const corruptions = unfinished ? theirs["corruptions"] : ours["corruptions"];
      expect({ seed, ...ours, corruptions }).toEqual({ seed, ...theirs });
      expect(ours["corruptions"]).toBeGreaterThanOrEqual(theirs["corruptions"] ?? 0);
    }
    expect(compared).toBeGreaterThan(RUNS * 0.6);
  }, 600_000);
});
