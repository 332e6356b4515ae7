/** Discards of what a broken image claims. */
import { directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { describe, expect, test } from "vitest";
import { openQcow2, readHeader } from "../src/index.js";
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
