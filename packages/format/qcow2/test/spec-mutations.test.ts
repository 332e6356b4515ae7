/**
 * Every image of the specification's records, broken further: fed to each decoder by itself, opened both ways,
 * checked, and repaired both ways. Only a BlockError may come out, soon, and in bounded memory; what a repair calls
 * clean is clean for the real qemu-img.
 */
import { writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { BlockError, GiB, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { decodeDirectory } from "../src/bitmap/directory.js";
import { bitmapTableEntry } from "../src/bitmap/table.js";
import { bitmapsExtensionIn, featureNamesIn, splitExtensions } from "../src/header/extensions.js";
import { checkQcow2, decodeHeader, geometryOf, readHeader } from "../src/index.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { readSnapshotTable } from "../src/snapshot/table.js";
import { childOf } from "./support/images.js";
import { mutate } from "./support/mutate.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { Rng } from "./support/rng.js";
import { ALL_RECORDS } from "./support/spec/index.js";
import { guestOf, openRecord, writeEnds } from "./support/spec/judge.js";
import type { SpecRecord } from "./support/spec/record.js";
import { sound } from "./support/spec/spec-image.js";

/** Mutations of each image that is taken. */
const RUNS = Number(process.env["BLOCKLAYER_SPEC_RUNS"] ?? 1);
/** One record of so many is taken: another one with each seed. */
const STEP: number = process.env["BLOCKLAYER_SPEC_RUNS"] === undefined ? 12 : 1;
const SEED = Number(process.env["BLOCKLAYER_FUZZ_SEED"] ?? 1);
/** Of so many repaired images one is shown to qemu-img. */
const SAMPLE = 4;
/** One image takes milliseconds; the rest is a busy machine. */
const MAX_IMAGE_MS = 20_000;
/** What all of them together may add to what this process holds. */
const MAX_GROWTH_BYTES: number = 2 * GiB;
/** Clusters of an image that are fed to the decoders of tables. */
const MAX_PIECES = 16;
/** Longer disks are not read whole. */
const MAX_GUEST_BYTES: number = 2 ** 20;
const MAX_IMAGE_BYTES: number = 2 ** 20;
const MAX_REPAIRED_BYTES: number = 64 * 2 ** 20;
const TIMEOUT_MS = 60_000 + (ALL_RECORDS.length / STEP) * RUNS * 300;
/** What keeps QEMU from opening an image that breaks no rule, or needs another file. */
const NOT_FOR_QEMU = /backing|data-file|No such file|extra data is not supported|doesn't satisfy/;

async function attempt(step: () => unknown): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return false;
  }
}

/** Feeds bytes that were a part of an image to every decoder, whatever they are. */
async function feedDecoders(bytes: Uint8Array, rng: Rng): Promise<void> {
  const header = await readHeader(childOf(sound().bytes));
  const geometry = geometryOf(header);
  const part = bytes.subarray(rng.below(bytes.length + 1));
  await attempt(() => decodeHeader(bytes, bytes.length));
  await attempt(() => decodeHeader(part, part.length));
  for (const start of [72, 104, 112, rng.below(4096)]) {
    await attempt(() => {
      const extensions = splitExtensions(bytes, start, 4096);
      featureNamesIn(extensions);
      bitmapsExtensionIn(extensions, 4096);
    });
  }
  const clusters = Math.floor(bytes.length / 4096);
  const first = rng.below(2);
  for (let cluster = first; cluster < Math.min(clusters, MAX_PIECES); cluster += 2) {
    const table = bytes.subarray(cluster * 4096, (cluster + 1) * 4096);
    const { entries } = decodeDirectory(table, 1 + rng.below(100), geometry);
    expect(entries.length).toBeLessThanOrEqual(4096 / 24);
    const view = viewOf(table);
    for (let at = 0; at < 4096; at += 8) {
      bitmapTableEntry(view.getUint32(at), view.getUint32(at + 4), geometry);
    }
    const claimed = {
      ...header,
      snapshotsOffset: cluster * 4096,
      snapshotCount: 1 + rng.below(200),
    };
    const read = { bytes: 0 };
    await readSnapshotTable(claimed, {
      read: async (offset, length) => {
        read.bytes += length;
        return bytes.subarray(offset, offset + length);
      },
      refuse: () => {},
    });
    // An entry has 128 KiB of texts at most.
    expect(read.bytes).toBeLessThanOrEqual(claimed.snapshotCount * 2 ** 18);
  }
}

/** @returns the repaired image, when it is clean and short enough to be looked at */
async function feedRepair(
  bytes: Uint8Array,
  fix: "leaks" | "all",
): Promise<Uint8Array | undefined> {
  const memory = openMemory({ bytes });
  const file = directChild(memory);
  let isClean = false;
  await attempt(async () => {
    const { result } = await repairQcow2(file, await readHeader(file), { fix });
    // A repair of leaks tells as an error what it does not look at.
    if (fix === "leaks") return;
    const again = await checkQcow2(file, await readHeader(file));
    const { corruptions, leaks, checkErrors } = again;
    expect({ corruptions, leaks, checkErrors }).toEqual({
      corruptions: result.corruptions,
      leaks: result.leaks,
      checkErrors: result.checkErrors,
    });
    isClean = corruptions + leaks + checkErrors === 0;
  });
  return isClean && memory.lengthBytes <= MAX_REPAIRED_BYTES ? memory.bytes.slice() : undefined;
}

/** @returns the image that repairing all of it leaves, when it is clean */
async function feedAll(
  record: SpecRecord,
  bytes: Uint8Array,
  rng: Rng,
): Promise<Uint8Array | undefined> {
  await feedDecoders(bytes, rng);
  await attempt(async () => {
    const { disk } = await openRecord(record, bytes, true);
    if (disk.lengthBytes <= MAX_GUEST_BYTES) await guestOf(disk, 4096);
    await attempt(() => disk.formatInfo());
    await attempt(() => disk.blockStatus(0, Math.min(disk.lengthBytes, 2 ** 40)));
    await disk.close();
  });
  if (bytes.length >= 24) await writeEnds(record, bytes);
  await attempt(async () => checkQcow2(childOf(bytes), await readHeader(childOf(bytes))));
  await feedRepair(bytes, "leaks");
  return feedRepair(bytes, "all");
}

describeWithQemu("an image of a record, broken further", () => {
  const scratch = useScratch();

  test(
    "must let only a BlockError escape, and be clean for qemu-img when it was repaired",
    async () => {
      const counts = { mutations: 0, clean: 0, judged: 0 };
      const startBytes = process.memoryUsage().rss;
      for (let nth = SEED % STEP; nth < ALL_RECORDS.length; nth += STEP) {
        const record = ALL_RECORDS[nth] as SpecRecord;
        const { bytes } = record.build();
        if (bytes.length > MAX_IMAGE_BYTES) continue;
        for (let run = 0; run < RUNS; run++) {
          const rng = new Rng(SEED * 1_000_003 + nth * 1009 + run);
          const started = performance.now();
          counts.mutations++;
          try {
            const clean = await feedAll(record, mutate(bytes, rng, true), rng);
            if (clean === undefined) continue;
            if (counts.clean++ % SAMPLE !== 0) continue;
            await writeFile(scratch("repaired"), clean);
            const { code, stderr } = await qemuImg("check", "-f", "qcow2", scratch("repaired"));
            if (code === 1 && NOT_FOR_QEMU.test(stderr)) continue;
            counts.judged++;
            expect({ code, stderr }).toEqual({
              code: 0,
              stderr: expect.not.stringContaining("ERROR"),
            });
          } catch (cause) {
            const where = `BLOCKLAYER_FUZZ_SEED=${SEED}, record ${nth}, run ${run}`;
            throw new Error(`${where}: ${record.line}`, { cause });
          }
          expect(performance.now() - started).toBeLessThan(MAX_IMAGE_MS);
          expect(process.memoryUsage().rss - startBytes).toBeLessThan(MAX_GROWTH_BYTES);
        }
      }
      console.log(`mutated records: ${JSON.stringify(counts)}`);
      expect(counts.clean).toBeGreaterThan(counts.mutations / 4);
      expect(counts.judged).toBeGreaterThan(counts.mutations / (8 * SAMPLE));
    },
    TIMEOUT_MS,
  );
});
