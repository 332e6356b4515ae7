/**
 * Every geometry with every kind of chain, plain and compressed, in both directions: what QEMU's tools make, blk reads; what
 * blk makes, they find sound and the same; and about one file both say the same.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkComplaint, compareComplaints, disagreements } from "../src/agreement.mjs";
import { BACKINGS, differenceOf, GEOMETRIES, makeChain } from "../src/images.mjs";
import { blk, qemuImg } from "../src/programs.mjs";
import { describeWithQemu, withFolder } from "./support.js";

type Geometry = (typeof GEOMETRIES)[number];

/** One field of the matrix. */
export interface MatrixCase {
  readonly geometry: Geometry;
  readonly kind: string;
  readonly compressed: boolean;
}

/** Defines the tests of the fields that are wanted. */
export function matrixSuite(isWanted: (field: MatrixCase) => boolean): void {
  describeWithQemu("matrix", () => {
    for (const geometry of GEOMETRIES) {
      describe(`${geometry.name}`, () => {
        for (const kind of BACKINGS) {
          for (const compressed of [false, true]) {
            if (!isWanted({ geometry, kind, compressed })) continue;
            const form = compressed ? "compressed" : "plain";
            test.concurrent(`${kind}, ${form}`, async () => {
              const field = { geometry, kind, compressed };
              const done = withFolder((folder) => bothWays(folder, field));
              await expect(done).resolves.toBeUndefined();
            });
          }
        }
      });
    }
  });
}

async function bothWays(folder: string, field: MatrixCase): Promise<void> {
  const { geometry, kind, compressed } = field;
  const at = (name: string): string => join(folder, name);
  const chain = await makeChain(folder, geometry, kind, compressed);

  // QEMU made it, blk reads it.
  await qemuImg("convert", "-O", "raw", chain.image, at("theirs.raw"));
  await blk("convert", "-O", "raw", chain.image, at("ours.raw"));
  expect(await differenceOf(at("ours.raw"), at("theirs.raw"))).toBeUndefined();
  for (const layer of chain.layers) expect(await disagreements(layer)).toEqual([]);

  // blk makes it, flat and over the same backing file; QEMU judges it.
  const compress = compressed ? ["-c"] : [];
  const forms = [{ name: "flat", flags: compress }];
  if (chain.backing !== undefined && chain.backingFormat !== undefined) {
    const over = ["-B", chain.backing, "-F", chain.backingFormat];
    forms.push({ name: "over", flags: [...compress, ...over] });
  }
  for (const { name, flags } of forms) {
    const [ours, theirs] = [at(`${name}-ours.qcow2`), at(`${name}-theirs.qcow2`)];
    const words = ["convert", ...flags, "-O", "qcow2", "-o", geometry.options, chain.image];
    await blk(...words, ours);
    expect(await checkComplaint(ours)).toBeUndefined();
    expect(await compareComplaints(ours, at("theirs.raw"))).toEqual([]);
    expect(await disagreements(ours)).toEqual([]);
    if (hasOtherLayout(name, field)) continue;
    await qemuImg(...words, theirs);
    expect(statSync(ours).size).toBe(statSync(theirs).size);
    if (hasSecondRefcountBlock(theirs, geometry)) continue;
    expect(await differenceOf(ours, theirs)).toBeUndefined();
  }
}

/**
 * A new refcount block goes behind the request that needs it. blk gathers extents that QEMU reads one by one, so its requests
 * end elsewhere, and so does the block lie elsewhere; the length of the file is the same.
 */
function hasSecondRefcountBlock(image: string, { clusterBytes, refcountBits }: Geometry): boolean {
  return statSync(image).size > ((clusterBytes * 8) / refcountBits) * clusterBytes;
}

/**
 * Where two right images differ: two deflaters give two lengths; in steps of 4 KiB, which are blk's, a cluster of 512 bytes is
 * data more often than in QEMU's; and behind the end of a short backing image blk leaves alone what reads as zero, where
 * QEMU writes zeroes.
 */
function hasOtherLayout(form: string, { geometry, kind, compressed }: MatrixCase): boolean {
  if (compressed || geometry.clusterBytes < 4096) return true;
  return form === "over" && kind === "shorter backing";
}
