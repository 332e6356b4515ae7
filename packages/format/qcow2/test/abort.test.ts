import { directChild, type RequestOptions } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { Random, ReferenceDisk, SimDisk, SimScheduler, stampedBytes } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const SEEDS = 12 * Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 1);
const WORKERS = 5;
const REQUESTS = 10;
const CLUSTERS = 48;

/** One request of the guest, told to the model; one that is aborted may have done its work or not. */
async function request(
  disk: Qcow2Driver,
  reference: ReferenceDisk,
  random: Random,
  tag: number,
  options: RequestOptions,
): Promise<boolean> {
  const clusterSize = disk.limits.discardAlignment;
  const sectors = disk.lengthBytes / 512;
  const kind = random.below(6);
  const compressed = kind === 0 || kind === 1;
  let offset = 512 * random.below(sectors);
  if (compressed) offset -= offset % clusterSize;
  const longest = compressed ? 3 * clusterSize : 512 * (1 + random.below(40));
  const length = Math.min(longest, disk.lengthBytes - offset);
  const bytes = stampedBytes(tag, offset, length);
  const follow = async (
    entry: ReturnType<ReferenceDisk["startWrite"]>,
    work: () => unknown,
  ): Promise<boolean> => {
    try {
      await work();
      reference.finish(entry);
      return false;
    } catch (error) {
      reference.fail(entry);
      expect(error).toBeInstanceOf(BlockError);
      expect(error).toMatchObject({ code: "ECANCELED" });
      return true;
    }
  };
  if (kind < 4) {
    const source = IoVector.of(bytes);
    return follow(reference.startWrite(offset, bytes), () =>
      disk.writev(offset, source, { ...options, compressed }),
    );
  }
  if (kind === 4) {
    return follow(reference.startDiscard(offset, length), () =>
      disk.discard(offset, length, options),
    );
  }
  return follow(reference.startZeroes(offset, length), () =>
    disk.writeZeroes(offset, length, { ...options, mayUnmap: true }),
  );
}

async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

describe("Qcow2Driver whose requests are aborted in the middle", () => {
  test.each([
    ["compressed writes go to the file", "off"],
    ["compressed writes are gathered", "on"],
  ])(
    "must leave old or new bytes, no leak, and nothing held: %s",
    { timeout: 120_000 },
    async (_, mode) => {
      let aborted = 0;
      for (let seed = 1; seed <= SEEDS; seed++) {
        const clusterSize = seed % 2 === 0 ? 512 : 4096;
        const lengthBytes = CLUSTERS * clusterSize;
        const image = await createInMemory({ size: lengthBytes, cluster_size: clusterSize });
        const scheduler = new SimScheduler({
          seed,
          settleTurns: 200,
          idle: () => new Promise((resolve) => setTimeout(resolve, 1)),
        });
        const file = new SimDisk({ content: image.bytes, scheduler });
        const reference = new ReferenceDisk({ lengthBytes });
        await scheduler.run(async () => {
          const disk = await openQcow2({
            file: directChild(file),
            options: {
              "l2-cache-size": "4k",
              "l2-cache-entry-size": 512,
              "compressed-write-cache": mode,
            },
          });
          const random = new Random(seed);
          let tag = 1;
          const worker = async (): Promise<void> => {
            for (let i = 0; i < REQUESTS; i++) {
              const controller = new AbortController();
              const { signal } = controller;
              const running = request(disk, reference, random, tag++, { signal });
              for (let turns = random.below(120); turns > 0; turns--) await undefined;
              if (random.below(2) === 0) controller.abort();
              if (await running) aborted++;
              if (random.below(8) === 0) await disk.flushToOs();
            }
          };
          await Promise.all(Array.from({ length: WORKERS }, worker));
          reference.check(await contentOf(disk));
          const statistics = disk.statistics();
          expect([
            statistics["pendingAllocations"],
            statistics["requestsInFlight"],
            statistics["coolingClusters"],
          ]).toEqual([0, 0, 0]);
          expect(statistics["imageLocked"]).toBe(false);
          await disk.close();
        });
        const left = directChild(new SimDisk({ content: file.bytes }));
        expect((await checkQcow2(left, await readHeader(left))).findings).toEqual([]);
        const again = await openQcow2({ file: left, readOnly: true });
        reference.check(await contentOf(again));
        await again.close();
      }
      expect(aborted).toBeGreaterThan(SEEDS);
    },
  );
});
