/** Growing a disk when something goes wrong on the way. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { crashStates, SimDisk, Trace } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";

const OLD_SIZE = 65_536;

describe("truncate()", () => {
  test.each([
    ["clusters of 1 KiB", { cluster_size: 1024 }],
    ["subclusters of 512 B", { cluster_size: 16_384, extended_l2: "on" }],
    ["subclusters of 2 KiB", { extended_l2: "on" }],
  ])(
    "must never show the backing file where it shall show zeroes, even after a crash [C1]: %s",
    async (_, shape) => {
      const backing = { backing_file: "base", backing_fmt: "raw" };
      const { bytes } = await createInMemory({ size: OLD_SIZE - 512, ...shape, ...backing });
      const base = directChild(openMemory({ bytes: new Uint8Array(2 ** 18).fill(9) }));
      const trace = new Trace();
      const file = new SimDisk({ content: bytes, trace });
      const disk = await openQcow2({ file: directChild(file), backing: base });
      await disk.truncate(2 * OLD_SIZE, { zeroWrite: true });
      await disk.close();
      let grown = 0;
      for (const state of crashStates(trace, { seed: 1, maxSubsets: 8, tear: true })) {
        const left = directChild(state.open());
        expect((await checkQcow2(left, await readHeader(left))).corruptions).toBe(0);
        const after = await openQcow2({ file: left, backing: base, readOnly: true });
        const content = new Uint8Array(after.lengthBytes);
        await after.readv(0, IoVector.of(content));
        expect(content.subarray(0, OLD_SIZE - 512).every((byte) => byte === 9)).toBe(true);
        expect(content.subarray(OLD_SIZE - 512).every((byte) => byte === 0)).toBe(true);
        if (content.length > OLD_SIZE) grown++;
      }
      expect(grown).toBeGreaterThan(0);
    },
  );

  test.each([
    ["read", 2 ** 31, 160],
    ["write", 2 ** 24, 5],
  ] as const)(
    "must give everything back, and leave the disk as it was, when a %s fails",
    async (kind, size, last) => {
      const { bytes } = await createInMemory({
        size: OLD_SIZE,
        cluster_size: 512,
        refcount_bits: 64,
      });
      let struck = 0;
      for (let nth = kind === "read" ? last - 24 : 1; nth <= last; nth++) {
        const file = new SimDisk({ content: bytes });
        const disk = await openQcow2({ file: directChild(file) });
        await disk.writev(0, IoVector.allocate(1024));
        file.inject({ kind, nth, code: "EIO" });
        try {
          await disk.truncate(size);
        } catch (error) {
          expect(error).toBeInstanceOf(BlockError);
          expect(disk.lengthBytes).toBe(OLD_SIZE);
          struck++;
        }
        file.clearFaults();
        // A header whose fate is unknown: nothing more is written.
        if (disk.statistics()["failed"] === true) continue;
        await disk.flushToOs();
        await disk.close();
        const left = directChild(new SimDisk({ content: file.bytes }));
        const { findings } = await checkQcow2(left, await readHeader(left));
        expect(findings).toEqual([]);
      }
      expect(struck).toBeGreaterThan(2);
    },
  );
});
