/** What an image with an external data file must not have: found by a check, and repaired where that can be done. */
import { directChild } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { checkQcow2, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { CLUSTER, ImageBuilder } from "./support/image-builder.js";

/** One cluster of the disk, at offset 0 of the data file. */
function imageWithDataFile(): ImageBuilder {
  const image = new ImageBuilder({ clusterBits: 12, dataClusters: 1 });
  image.field("incompatible", 4n).refcount(CLUSTER.data, 0);
  return image.entry(CLUSTER.l2, 0, 1n << 63n);
}

async function findingsOf(image: ImageBuilder): Promise<readonly string[]> {
  const file = directChild(openMemory({ bytes: image.bytes }));
  const { findings } = await checkQcow2(file, await readHeader(file));
  return findings.map(({ message }) => message);
}

async function leftIn(image: ImageBuilder): Promise<readonly string[]> {
  const memory = openMemory({ bytes: image.bytes });
  const file = directChild(memory);
  await repairQcow2(file, await readHeader(file), { fix: "all" });
  const { findings } = await checkQcow2(file, await readHeader(file));
  return findings.map(({ message }) => message);
}

test("a compressed cluster with a data file must be found, and dropped by a repair", async () => {
  const image = imageWithDataFile().entry(CLUSTER.l2, 1, (1n << 62n) | 0x5000n);
  const found = ["ERROR compressed cluster 1 with data file, entry=0x4000000000005000"];
  expect(await findingsOf(image)).toEqual(found);
  expect(await leftIn(image)).toEqual([]);
});

test("a COPIED flag that is missing with a data file must be found, and set by a repair", async () => {
  const image = imageWithDataFile().entry(CLUSTER.l2, 1, 0x1000n);
  const found = ["ERROR OFLAG_COPIED data cluster: l2_entry=1000 refcount=1"];
  expect(await findingsOf(image)).toEqual(found);
  expect(await leftIn(image)).toEqual([]);
});

test("snapshots with a data file must be found, and stay where they are", async () => {
  const image = imageWithDataFile().field("snapshotCount", 1);
  image.field("snapshotsOffset", CLUSTER.data * 4096).refcount(CLUSTER.data, 1);
  // One entry: no L1 table, an identity of one byte, 16 bytes of extra data.
  const table = CLUSTER.data * 4096;
  image.raw(table + 13, Uint8Array.of(1)).raw(table + 39, Uint8Array.of(16));
  const found = ["ERROR 1 snapshots in image with data file"];
  expect(await findingsOf(image)).toEqual(found);
  expect(await leftIn(image)).toEqual(found);
});
