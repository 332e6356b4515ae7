/** Refcount blocks that could not be added. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { Random, SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";

const SIZE = 262_144;
const SMALL = { size: SIZE, cluster_size: 512, refcount_bits: 64 };

async function findingsIn(bytes: Uint8Array): Promise<string[]> {
  const file = directChild(new SimDisk({ content: bytes }));
  const { findings } = await checkQcow2(file, await readHeader(file));
  return findings.map(({ severity, message }) => `${severity}: ${message}`);
}

async function failing(work: () => unknown): Promise<boolean> {
  try {
    await work();
    return false;
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return true;
  }
}

describe("a refcount block that could not be added", () => {
  test("must not be taken for metadata when its cluster is used otherwise [C16]", async () => {
    const { bytes } = await createInMemory(SMALL);
    let struck = 0;
    for (let nth = 10; nth < 50; nth += 2) {
      const file = new SimDisk({ content: bytes });
      const disk = await openQcow2({ file: directChild(file) });
      const random = new Random(nth);
      file.inject({ kind: "write", nth, times: 3 });
      for (let i = 0; i < 60; i++) {
        const offset = 512 * random.below(500);
        const length = Math.min(SIZE - offset, 512 * (1 + random.below(90)));
        const failed = await failing(() => {
          if (i % 9 === 8) return disk.flushToOs();
          if (i % 5 === 4) return disk.discard(offset, length);
          return disk.writev(offset, IoVector.allocate(length));
        });
        if (failed) struck++;
      }
      file.clearFaults();
      await disk.close();
      const findings = await findingsIn(file.bytes);
      expect(findings.filter((one) => !one.startsWith("leak"))).toEqual([]);
    }
    expect(struck).toBeGreaterThan(20);
  });

  test("must not keep flushes from succeeding on a full file system [C17]", async () => {
    const { bytes } = await createInMemory(SMALL);
    for (let room = 0; room < 66; room++) {
      const maxLengthBytes = bytes.length + 512 * (40 + room);
      const file = new SimDisk({ content: bytes, maxLengthBytes });
      const disk = await openQcow2({ file: directChild(file) });
      let written = 0;
      while (!(await failing(() => disk.writev(written, IoVector.allocate(512))))) written += 512;
      expect(written).toBeGreaterThan(0);
      await disk.flushToOs();
      await disk.close();
      expect(await findingsIn(file.bytes)).toEqual([]);
    }
  });
});
