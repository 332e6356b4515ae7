/** Discards of what a broken image claims. */
import { directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, readHeader } from "../src/index.js";
import {
  CLUSTER as EXTENDED_CLUSTER,
  entryOf,
  findingsOf,
  fullBacking,
  openExtended,
  SUBCLUSTER,
} from "./support/extended.js";
import { createInMemory } from "./support/images.js";

const CLUSTER = 65_536;

describe("discard()", () => {
  test("must not free the neighbours of an entry that is no cluster [C1]", async () => {
    const memory = await createInMemory({ size: 2 ** 21 });
    const first = await openQcow2({ file: directChild(memory) });
    await first.writev(0, IoVector.of(new Uint8Array(3 * CLUSTER).fill(1)));
    await first.close();
    const { bytes } = memory;
    const view = viewOf(bytes);
    const { l1TableOffset } = await readHeader(directChild(memory));
    const l2TableOffset = view.getUint32(l1TableOffset + 4);
    // The first entry now straddles the clusters of guest offsets 0 and 64 KiB.
    view.setUint32(l2TableOffset + 4, view.getUint32(l2TableOffset + 4) + 512);
    const disk = await openQcow2({ file: directChild(openMemory({ bytes })) });
    await disk.discard(0, CLUSTER);
    await disk.flushToOs();
    await disk.writev(10 * CLUSTER, IoVector.of(new Uint8Array(2 * CLUSTER).fill(9)));
    const neighbour = new Uint8Array(CLUSTER);
    await disk.readv(CLUSTER, IoVector.of(neighbour));
    expect(neighbour.every((byte) => byte === 1)).toBe(true);
    await disk.close();
  });
});

describe("discard() with subclusters", () => {
  test("must give back whole clusters alone, whatever their subclusters hold", async () => {
    const one = await openExtended({ backing: fullBacking(64 * EXTENDED_CLUSTER) });
    await one.write(SUBCLUSTER, SUBCLUSTER, 1);
    await one.disk.writeZeroes(EXTENDED_CLUSTER, 2 * SUBCLUSTER);
    const before = await entryOf(one, 0);
    expect(before[1]).toBe("0000000000000002");
    await one.disk.discard(SUBCLUSTER, EXTENDED_CLUSTER - SUBCLUSTER);
    expect(await entryOf(one, 0)).toEqual(before);
    await one.disk.discard(0, 3 * EXTENDED_CLUSTER);
    for (const cluster of [0, 1, 2]) {
      expect(await entryOf(one, cluster)).toEqual(["0000000000000000", "ffffffff00000000"]);
    }
    expect(await entryOf(one, 3)).toEqual(["0000000000000000", "0000000000000000"]);
    await one.disk.close();
    expect(await findingsOf(one.memory)).toEqual([]);
  });

  test("must leave what has no host cluster as it is where no backing file is", async () => {
    const one = await openExtended();
    await one.disk.writeZeroes(0, 2 * SUBCLUSTER);
    await one.write(EXTENDED_CLUSTER, SUBCLUSTER, 1);
    await one.disk.discard(0, 3 * EXTENDED_CLUSTER);
    expect(await entryOf(one, 0)).toEqual(["0000000000000000", "0000000300000000"]);
    expect(await entryOf(one, 1)).toEqual(["0000000000000000", "ffffffff00000000"]);
    expect(await entryOf(one, 2)).toEqual(["0000000000000000", "0000000000000000"]);
    await one.disk.close();
    expect(await findingsOf(one.memory)).toEqual([]);
  });
});
