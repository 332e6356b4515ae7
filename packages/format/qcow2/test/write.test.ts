/** Writes whose clusters are dropped under them: see refcount/inflight.ts. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector, KiB } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";

const CLUSTER = 64 * KiB;

/** A full backing file whose next read waits. */
function parkedBacking(lengthBytes: number): {
  child: BlockChild;
  parked: Promise<void>;
  go: () => void;
} {
  let arrived = (): void => {};
  let go = (): void => {};
  const parked = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const content = new Uint8Array(lengthBytes).fill(9);
  const onRequest = (): Promise<void> => {
    arrived();
    return gate;
  };
  return { child: directChild(new SimDisk({ content, onRequest })), parked, go };
}

describe("writev()", () => {
  test("must keep its clusters from others while the rest of it is copied [D1]", async () => {
    const options = { size: 2 ** 21, backing_file: "base", backing_fmt: "raw" };
    const memory = openMemory({ bytes: (await createInMemory(options)).bytes });
    const { child, parked, go } = parkedBacking(2 ** 21);
    const disk = await openQcow2({ file: directChild(memory), backing: child });
    const write = (offset: number, length: number, value: number): Promise<void> =>
      Promise.resolve(disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value))));
    await write(0, CLUSTER, 1);
    await disk.flushToOs();
    // The first cluster is written in place, the second is new and copies its tail from the backing file.
    const rewrite = write(0, CLUSTER + 4 * KiB, 2);
    await parked;
    await disk.discard(0, CLUSTER);
    await disk.flushToOs();
    await write(10 * CLUSTER, CLUSTER, 5);
    go();
    await rewrite;
    const other = new Uint8Array(CLUSTER);
    await disk.readv(10 * CLUSTER, IoVector.of(other));
    expect(other.every((byte) => byte === 5)).toBe(true);
    await disk.close();
    const left = directChild(memory);
    expect((await checkQcow2(left, await readHeader(left))).findings).toEqual([]);
  });
});
