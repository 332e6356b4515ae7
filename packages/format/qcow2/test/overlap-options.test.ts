/** Every kind of metadata, and the option that has writes into it caught [C16]. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, IoVector, viewOf } from "@blocklayer/bytes";
import { BlockGraph } from "@blocklayer/block-graph";
import { memoryDriver, openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, qcow2Driver, readHeader } from "../src/index.js";
import { INCOMPATIBLE } from "../src/header/header.js";
import { OVERLAP_OPTIONS } from "../src/open-options.js";
import { COPIED, imageWithSnapshot, soundImage } from "./support/broken-images.js";
import { CLUSTER } from "./support/image-builder.js";

/** Where each kind lies in the image below. */
const PLACES: readonly (readonly [string, number, string])[] = [
  ["main-header", 0, "qcow2 header"],
  ["active-l1", CLUSTER.l1, "active L1 table"],
  ["active-l2", CLUSTER.l2, "active L2 table"],
  ["refcount-table", CLUSTER.refcountTable, "refcount table"],
  ["refcount-block", CLUSTER.refcountBlock, "refcount block"],
  ["snapshot-table", CLUSTER.data + 8, "snapshot table"],
  ["inactive-l1", CLUSTER.data + 9, "inactive L1 table"],
  ["inactive-l2", CLUSTER.data + 10, "inactive L2 table"],
  ["bitmap-directory", CLUSTER.data + 7, "bitmap directory"],
];

const ALL_OFF = Object.fromEntries(
  Object.keys(OVERLAP_OPTIONS).map((name) => [`overlap-check.${name}`, false]),
);

/** An image with every kind; its first guest cluster lies on `target`. */
function imageOn(target: number): Uint8Array {
  const image = imageWithSnapshot();
  const directory = new Uint8Array(24);
  viewOf(directory).setUint32(0, 1);
  viewOf(directory).setUint32(12, 32);
  viewOf(directory).setUint32(20, (CLUSTER.data + 7) * 512);
  image.field("autoclear", 1n).extension(112, 0x2385_2875, directory);
  // One bitmap without a bit, and that does not record: its table is the cluster before the directory.
  image.bytes.fill(0, (CLUSTER.data + 6) * 512, (CLUSTER.data + 8) * 512);
  image.entry(CLUSTER.l2, 6, 0n).entry(CLUSTER.l2, 7, 0n);
  const bitmap = viewOf(image.bytes.subarray((CLUSTER.data + 7) * 512));
  bitmap.setUint32(4, (CLUSTER.data + 6) * 512);
  bitmap.setUint32(8, 1);
  bitmap.setUint8(16, 1);
  bitmap.setUint8(17, 16);
  bitmap.setUint16(18, 1);
  bitmap.setUint8(24, 0x62);
  return image.entry(CLUSTER.l2, 0, BigInt(target * 512) | COPIED).bytes;
}

async function outcomeOf(
  bytes: Uint8Array,
  options: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const memory = openMemory({ bytes });
  const disk = await openQcow2({ file: directChild(memory), options });
  try {
    await disk.writev(0, IoVector.of(new Uint8Array(512).fill(0x5a)));
    await disk.close();
    return "written";
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await disk.close().catch(() => {});
    expect((await readHeader(directChild(memory))).incompatible).toBe(INCOMPATIBLE.corrupt);
    return error;
  }
}

describe("option overlap-check.NAME", () => {
  test("must be there for each kind", () => {
    expect(PLACES.map(([name]) => name).sort()).toEqual(Object.keys(OVERLAP_OPTIONS).sort());
  });

  test.each(PLACES.filter(([, cluster]) => cluster !== 0))(
    "%s must have a write into it caught, alone and no other",
    async (name, cluster, structure) => {
      const only = { ...ALL_OFF, [`overlap-check.${name}`]: true };
      const caught = await outcomeOf(imageOn(cluster), only);
      expect(caught).toBeInstanceOf(CorruptImageError);
      expect(String(caught)).toContain(structure);
      const others = { "overlap-check": "all", [`overlap-check.${name}`]: "off" };
      const spared = await outcomeOf(imageOn(cluster), others);
      expect(String(spared)).not.toContain(structure);
    },
  );

  test("main-header must have a write into it caught, alone and no other", async () => {
    // Entry 15 of an L1 table in the header is 0, and gets a new L2 table.
    const image = soundImage()
      .field("l1TableOffset", 0)
      .field("l1Size", 16)
      .field("size", 2 ** 19);
    const attempt = async (options: Readonly<Record<string, unknown>>): Promise<string> => {
      const memory = openMemory({ bytes: image.bytes.slice() });
      const disk = await openQcow2({ file: directChild(memory), options });
      const write = async (): Promise<void> => disk.writev(15 * 2 ** 15, IoVector.allocate(512));
      const said = await write().then(() => "written", String);
      await disk.close().catch(() => {});
      return said;
    };
    expect(await attempt({ ...ALL_OFF, "overlap-check.main-header": true })).toContain(
      "qcow2 header",
    );
    expect(await attempt({ "overlap-check.main-header": false })).toBe("written");
  });

  test("the level must decide where no single kind does", async () => {
    const at = (kind: string): Uint8Array =>
      imageOn(PLACES.find(([name]) => name === kind)?.[1] ?? 0);
    const isCaught = async (kind: string, options: object): Promise<boolean> =>
      (await outcomeOf(at(kind), { ...options })) instanceof CorruptImageError;
    for (const kind of ["active-l1", "refcount-table", "snapshot-table", "bitmap-directory"]) {
      expect([kind, await isCaught(kind, { "overlap-check": "constant" })]).toEqual([kind, true]);
      expect([kind, await isCaught(kind, { "overlap-check": "none" })]).toEqual([kind, false]);
    }
    for (const kind of ["active-l2", "refcount-block", "inactive-l1"]) {
      expect([kind, await isCaught(kind, { "overlap-check": "constant" })]).toEqual([kind, false]);
      expect([kind, await isCaught(kind, {})]).toEqual([kind, true]);
    }
    expect(await isCaught("inactive-l2", {})).toBe(false);
    expect(await isCaught("inactive-l2", { "overlap-check.template": "all" })).toBe(true);
    expect(
      await isCaught("active-l1", { "overlap-check": "none", "overlap-check.template": "none" }),
    ).toBe(false);
  });

  test("must be reached through a graph's options, dotted and nested", async () => {
    for (const options of [
      { "overlap-check.active-l1": "off" },
      { "overlap-check": { "active-l1": "off" } },
    ]) {
      const graph = new BlockGraph({ drivers: [memoryDriver, qcow2Driver] });
      await graph.add({ driver: "memory", "node-name": "file", size: 2 ** 16 });
      const file = await graph.open("file");
      await file.write(0, imageOn(CLUSTER.l1));
      await file.close();
      const disk = await graph.open({ driver: "qcow2", file: "file", ...options });
      await disk.write(0, new Uint8Array(512).fill(1));
      expect(await disk.read(0, 1)).toEqual(Uint8Array.of(1));
      await graph.close();
    }
  });
});
