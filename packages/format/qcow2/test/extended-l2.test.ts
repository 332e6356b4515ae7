/** Twin images with subclusters: what random commands leave is what they leave through qemu-io. */
import { readFile, writeFile } from "node:fs/promises";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { openQcow2 } from "../src/index.js";
import { childOf } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { makeTwins, mapOf, randomPlan } from "./support/twins.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

/** Every size of cluster takes its turn. */
const CLUSTER_SIZES = ["16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"];
const RUNS = Number(process.env["BLOCKLAYER_TWIN_RUNS"] ?? 2 * CLUSTER_SIZES.length);
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);

/** The whole disk, as our driver reads a file. */
async function contentOf(file: string, backing: BlockChild | undefined): Promise<Uint8Array> {
  const disk = await openQcow2({
    file: childOf(new Uint8Array(await readFile(file))),
    readOnly: true,
    ...(backing === undefined ? {} : { backing }),
  });
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  await disk.close();
  return bytes;
}

describeWithQemu("extended L2 entries beside qemu-io", () => {
  const scratch = useScratch();

  test(`must leave the same map, the same disk and no error after ${RUNS} random lists of commands`, async () => {
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED * 1_000_003 + run;
      const rng = new Rng(seed);
      const clusterSize = CLUSTER_SIZES[run % CLUSTER_SIZES.length] as string;
      const plan = randomPlan(rng, clusterSize);
      const what = JSON.stringify({ seed, ...plan });
      const base = new Random(seed).bytes(512 * (1 + rng.below(plan.sizeBytes / 512 + 40)));
      await writeFile(scratch("base.raw"), base);
      const child = directChild(openMemory({ bytes: base }));
      const files = { theirs: scratch("theirs.qcow2"), ours: scratch("ours.qcow2") };
      const hasBacking = rng.below(2) === 0;
      const backing = { name: "base.raw", child };
      await makeTwins(plan, hasBacking ? { ...files, backing } : files);
      const under = hasBacking ? child : undefined;
      await qemuImg("convert", "-O", "raw", files.theirs, scratch("theirs.raw"));
      const raw = await readFile(scratch("theirs.raw"));
      const found = {
        what,
        map: await mapOf(files.ours),
        ours: Buffer.compare(await contentOf(files.ours, under), raw),
        theirs: Buffer.compare(await contentOf(files.theirs, under), raw),
        compared: (await qemuImg("compare", files.ours, files.theirs)).stdout,
        checks: [
          (await qemuImg("check", files.ours)).stdout.split("\n")[0],
          (await qemuImg("check", files.theirs)).stdout.split("\n")[0],
        ],
      };
      const clean = "No errors were found on the image.";
      expect(found).toEqual({
        what,
        map: await mapOf(files.theirs),
        ours: 0,
        theirs: 0,
        compared: "Images are identical.\n",
        checks: [clean, clean],
      });
    }
  }, 1_800_000);
});
