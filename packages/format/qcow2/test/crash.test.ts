import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import {
  type CrashState,
  crashStates,
  Random,
  ReferenceDisk,
  SimDisk,
  SimScheduler,
  stampedBytes,
  Trace,
  TrackedGuest,
} from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, formatInfoOf, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const RUNS = Number(process.env["BLOCKLAYER_CRASH_RUNS"] ?? 1);

interface CrashCase {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly sizeBytes: number;
  readonly steps: number;
  /** Requests that run side by side. */
  readonly parallel: number;
  readonly compressed: boolean;
  /** Compressed writes are gathered. */
  readonly cached?: boolean;
  /** Written before the recording begins, from the start of the disk on. */
  readonly prefillBytes?: number;
  /** A backing file as long as the disk, full of bytes. */
  readonly backing?: boolean;
}

const CASES: readonly CrashCase[] = [
  {
    name: "512 B clusters, the refcount table grows",
    options: { cluster_size: 512, refcount_bits: 64 },
    sizeBytes: 2_621_440,
    steps: 80,
    parallel: 1,
    compressed: false,
    prefillBytes: 1_980_000 - (1_980_000 % 512),
  },
  {
    name: "512 B clusters, refcount blocks are added",
    options: { cluster_size: 512, refcount_bits: 64 },
    sizeBytes: 131_072,
    steps: 40,
    parallel: 1,
    compressed: false,
  },
  {
    name: "512 B clusters, compressed",
    options: { cluster_size: 512, refcount_bits: 16 },
    sizeBytes: 65_536,
    steps: 40,
    parallel: 1,
    compressed: true,
  },
  {
    name: "4 KiB clusters, copy-on-write",
    options: { cluster_size: 4096, refcount_bits: 16 },
    sizeBytes: 262_144,
    steps: 40,
    parallel: 1,
    compressed: true,
  },
  {
    name: "version 2",
    options: { cluster_size: 1024, compat: "v2" },
    sizeBytes: 131_072,
    steps: 40,
    parallel: 1,
    compressed: true,
  },
  {
    // More L2 slices than the cache holds: tables go to the file between flushes.
    name: "512 B clusters, compressed, gathered",
    options: { cluster_size: 512, refcount_bits: 16 },
    sizeBytes: 524_288,
    steps: 60,
    parallel: 1,
    compressed: true,
    cached: true,
  },
  {
    name: "4 KiB clusters, compressed, gathered, side by side",
    options: { cluster_size: 4096, refcount_bits: 2 },
    sizeBytes: 262_144,
    steps: 40,
    parallel: 4,
    compressed: true,
    cached: true,
  },
  {
    // After a crash the refcounts may be anything: the dirty bit has them counted anew.
    name: "512 B clusters, lazy refcounts",
    options: { cluster_size: 512, refcount_bits: 16, lazy_refcounts: true },
    sizeBytes: 131_072,
    steps: 60,
    parallel: 1,
    compressed: true,
  },
  {
    name: "4 KiB clusters, lazy refcounts, side by side",
    options: { cluster_size: 4096, refcount_bits: 16, lazy_refcounts: true },
    sizeBytes: 262_144,
    steps: 40,
    parallel: 4,
    compressed: false,
  },
  {
    name: "4 KiB clusters, side by side",
    options: { cluster_size: 4096, refcount_bits: 8 },
    sizeBytes: 131_072,
    steps: 40,
    parallel: 4,
    compressed: false,
  },
  {
    name: "subclusters of 512 B, compressed",
    options: { cluster_size: 16_384, extended_l2: "on" },
    sizeBytes: 131_072,
    steps: 50,
    parallel: 1,
    compressed: true,
  },
  {
    name: "subclusters of 512 B over a backing file, side by side",
    options: { cluster_size: 16_384, extended_l2: "on", refcount_bits: 2 },
    sizeBytes: 98_304,
    steps: 48,
    parallel: 4,
    compressed: false,
    backing: true,
  },
  {
    name: "subclusters of 2 KiB over a backing file",
    options: { cluster_size: 65_536, extended_l2: "on" },
    sizeBytes: 196_608,
    steps: 40,
    parallel: 1,
    compressed: true,
    backing: true,
  },
];

/** One request of the guest, chosen by the random numbers. */
async function request(
  guest: TrackedGuest,
  one: CrashCase,
  random: Random,
  tag: number,
): Promise<void> {
  const sectors = one.sizeBytes / 512;
  const first = (one.prefillBytes ?? 0) / 512;
  const offset = 512 * (first + random.below(sectors - first));
  const length = Math.min(one.sizeBytes - offset, 512 * (1 + random.below(20)));
  const kind = random.below(10);
  const clusterSize = one.options["cluster_size"] as number;
  if (kind < 5) await guest.write(offset, stampedBytes(tag, offset, length));
  else if (kind < 7 && one.compressed) {
    const start = offset - (offset % clusterSize);
    const end = Math.min(one.sizeBytes, start + clusterSize * (1 + random.below(3)));
    await guest.write(start, stampedBytes(tag, start, end - start), { compressed: true });
  } else if (kind === 7)
    await guest.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
  else if (kind === 8) await guest.discard(offset, length);
  else await guest.flush();
}

/** What shows through an image with a backing file. */
function backingBytesOf(one: CrashCase): Uint8Array | undefined {
  return one.backing === true ? stampedBytes(0, 0, one.sizeBytes) : undefined;
}

function backingOf(one: CrashCase): { backing?: BlockChild } {
  const bytes = backingBytesOf(one);
  return bytes === undefined ? {} : { backing: directChild(openMemory({ bytes })) };
}

/** Runs a guest on an image and records what reaches its file. */
async function record(
  one: CrashCase,
  seed: number,
): Promise<{ trace: Trace; reference: ReferenceDisk }> {
  const image = await createInMemory({ size: one.sizeBytes, ...one.options });
  const prefill = new Uint8Array(one.prefillBytes ?? 0);
  const initial = backingBytesOf(one) ?? new Uint8Array(one.sizeBytes);
  if (prefill.length > 0) {
    prefill.set(stampedBytes(0, 0, prefill.length));
    initial.set(prefill);
    const disk = await openQcow2({ file: directChild(image) });
    await disk.writev(0, IoVector.of(prefill));
    await disk.close();
  }
  const trace = new Trace();
  // The codec's threads take real time.
  const idle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));
  const scheduler =
    one.parallel > 1 ? new SimScheduler({ seed, settleTurns: 500, idle }) : undefined;
  const file = new SimDisk({
    content: image.bytes,
    trace,
    ...(scheduler === undefined ? {} : { scheduler }),
  });
  const reference = new ReferenceDisk({
    lengthBytes: one.sizeBytes,
    content: initial,
    trace,
  });
  const work = async (): Promise<void> => {
    const disk = await openQcow2({
      file: directChild(file),
      ...backingOf(one),
      options: {
        "l2-cache-size": "4k",
        "l2-cache-entry-size": 512,
        "compressed-write-cache": one.cached === true ? "on" : "off",
      },
    });
    const flush = async (): Promise<void> => {
      await disk.flushToOs();
      await file.flushToOs();
      await file.flushToDisk();
    };
    const guest = new TrackedGuest(deviceOf(disk, flush), reference);
    const random = new Random(seed);
    let tag = 1;
    const worker = async (): Promise<void> => {
      for (let i = 0; i < one.steps / one.parallel; i++) await request(guest, one, random, tag++);
    };
    await Promise.all(Array.from({ length: one.parallel }, worker));
    await disk.close();
  };
  await (scheduler === undefined ? work() : scheduler.run(work));
  return { trace, reference };
}

function deviceOf(
  disk: Qcow2Driver,
  flush: () => Promise<void>,
): ConstructorParameters<typeof TrackedGuest>[0] {
  return {
    writev: (offset, source, options) => disk.writev(offset, source, options),
    writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
    discard: (offset, length) => disk.discard(offset, length),
    flush,
  };
}

/**
 * What a crash left must open, check without corruption, and show old or new bytes. A dirty image comes to that by
 * being opened for writing [C8].
 */
async function inspect(one: CrashCase, state: CrashState, reference: ReferenceDisk): Promise<void> {
  const file = directChild(state.open());
  if (formatInfoOf(await readHeader(file)).dirty === true) {
    await (await openQcow2({ file })).close();
    expect(formatInfoOf(await readHeader(file)).dirty).toBe(false);
  }
  const result = await checkQcow2(file, await readHeader(file));
  if (result.corruptions > 0 || result.checkErrors > 0) {
    throw new Error(`${state.describe()}\n${JSON.stringify(result.findings, undefined, 1)}`);
  }
  const disk = await openQcow2({ file, ...backingOf(one), readOnly: true });
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  await disk.close();
  reference.checkCrash(bytes, state.position, state.describe());
}

describe("Qcow2Driver after a crash", () => {
  test.each(CASES)(
    "must show old or new bytes and leak at most: $name",
    { timeout: 120_000 * (1 + RUNS) },
    async (one) => {
      let states = 0;
      for (let run = 0; run < RUNS; run++) {
        const seed = 1 + run * 31 + one.sizeBytes / 512;
        const { trace, reference } = await record(one, seed);
        const maxSubsets = Number(process.env["BLOCKLAYER_CRASH_SUBSETS"] ?? 4);
        for (const state of crashStates(trace, { seed, maxSubsets, tear: true })) {
          await inspect(one, state, reference);
          states++;
        }
      }
      console.log(`crash states: ${states} (${one.name})`);
      expect(states).toBeGreaterThan(100);
    },
  );
});
