/**
 * A guest at work on images that qemu-img made: the library and qemu-io follow the same list of requests, and a flat array
 * says what must be there.
 */
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DRIVERS } from "@blocklayer/cli";
import { openImage } from "@blocklayer/image";
import { expect, test } from "vitest";
import { checkComplaint } from "../src/agreement.mjs";
import { applyToDisk, applyToModel, guestOps, qemuIoCommand } from "../src/guest-ops.mjs";
import { differenceOf, GEOMETRIES, makeChain } from "../src/images.mjs";
import { qemuImg, qemuIo } from "../src/programs.mjs";
import { describeWithQemu, withFolder } from "./support.js";

interface Field {
  readonly geometry: (typeof GEOMETRIES)[number];
  readonly kind: string;
  readonly compressed: boolean;
}
type ModelForm = Parameters<typeof applyToModel>[2];
type GuestOps = ReturnType<typeof guestOps>;

const CASES = GEOMETRIES.flatMap((geometry, index) => [
  { geometry, name: geometry.name, kind: "no backing", compressed: false, seed: 100 + index },
  { geometry, name: geometry.name, kind: "no backing", compressed: true, seed: 200 + index },
  { geometry, name: geometry.name, kind: "shorter backing", compressed: true, seed: 300 + index },
  { geometry, name: geometry.name, kind: "qcow2 backing", compressed: false, seed: 400 + index },
]).filter(isQuick);

/** All of version 3; of the others what writes compressed clusters, which take odd counts of references. */
function isQuick({ geometry, compressed, kind }: Field): boolean {
  if (geometry.refcountBits !== 16) return compressed && kind === "no backing";
  return geometry.compat === "1.1" || compressed;
}

/** The bytes of an image's disk, as qemu-img reads them. */
async function contentOf(image: string, raw: string): Promise<Uint8Array> {
  await qemuImg("convert", "-O", "raw", image, raw);
  return new Uint8Array(await readFile(raw));
}

/** The library follows the list; now and then it reads back what the model says. */
async function work(image: string, ops: GuestOps, model: Uint8Array, form: ModelForm) {
  const disk = await openImage(image, { drivers: DRIVERS, format: "qcow2", readOnly: false });
  try {
    for (const [index, op] of ops.entries()) {
      await applyToDisk(disk, op);
      applyToModel(model, op, form);
      if (index % 5 !== 0) continue;
      const start = Math.max(0, op.offset - 1000);
      const end = Math.min(model.length, op.offset + op.length + 1000);
      const bytes = await disk.read(start, end - start);
      const same = Buffer.compare(bytes, model.subarray(start, end)) === 0;
      expect(same, `bytes ${start} to ${end} after request ${index}: ${qemuIoCommand(op)}`).toBe(
        true,
      );
    }
  } finally {
    await disk.close();
  }
}

describeWithQemu("guest writes", () => {
  test.concurrent.each(CASES)(
    "the library must do what qemu-io does: $name, $kind, compressed: $compressed, seed $seed",
    async ({ geometry, kind, compressed, seed }) => {
      await withFolder(async (folder) => {
        const at = (name: string): string => join(folder, name);
        const { lengthBytes, clusterBytes } = geometry;
        // Chains start plain where compressed writes follow: QEMU refuses to compress over what is there.
        const chain = await makeChain(folder, geometry, kind, !compressed);
        if (compressed && kind === "no backing") {
          const create = ["create", "-q", "-f", "qcow2", "-o", geometry.options];
          await qemuImg(...create, chain.image, String(lengthBytes));
        } else if (chain.backing !== undefined && chain.backingFormat !== undefined) {
          const create = ["create", "-q", "-f", "qcow2", "-o", geometry.options];
          const over = ["-b", chain.backing, "-F", chain.backingFormat];
          await qemuImg(...create, ...over, chain.image, String(lengthBytes));
        }
        const canDiscard = geometry.compat === "1.1" || chain.backing === undefined;
        await copyFile(chain.image, at("theirs.qcow2"));
        const model = await contentOf(chain.image, at("model.raw"));

        const first = { seed, count: 45, lengthBytes, clusterBytes, compressed, forQemu: true };
        const ops = guestOps(first);
        await qemuIo(at("theirs.qcow2"), ops.map(qemuIoCommand));
        await work(chain.image, ops, model, { clusterBytes, canDiscard });
        await writeFile(at("model.raw"), model);
        expect(await checkComplaint(chain.image)).toBeUndefined();
        await contentOf(chain.image, at("ours.raw"));
        expect(await differenceOf(at("ours.raw"), at("model.raw"))).toBeUndefined();
        await contentOf(at("theirs.qcow2"), at("theirs.raw"));
        expect(await differenceOf(at("theirs.raw"), at("model.raw"))).toBeUndefined();

        // What QEMU itself cannot do right: plain and compressed writes over each other.
        const more = guestOps({ ...first, seed: seed + 1000, forQemu: false });
        await work(chain.image, more, model, { clusterBytes, canDiscard });
        await writeFile(at("model.raw"), model);
        expect(await checkComplaint(chain.image)).toBeUndefined();
        await contentOf(chain.image, at("ours.raw"));
        expect(await differenceOf(at("ours.raw"), at("model.raw"))).toBeUndefined();
      });
    },
  );
});
