import { type BlockChild, directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import {
  Random,
  ReferenceDisk,
  SimDisk,
  SimScheduler,
  stampedBytes,
  TrackedGuest,
} from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

const SEEDS = 4 * Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 1);
/** Every so many requests one fails. */
const STEP = process.env["BLOCKLAYER_FUZZ_RUNS"] === undefined ? 5 : 1;

/** What a check finds; leaks only count when they are not allowed. */
async function findingsIn(file: BlockChild, leaksAllowed = false): Promise<string[]> {
  const { findings } = await checkQcow2(file, await readHeader(file));
  const counted = leaksAllowed ? findings.filter(({ severity }) => severity !== "leak") : findings;
  return counted.map(({ message }) => message);
}

async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

function guestOf(disk: Qcow2Driver, file: SimDisk, reference: ReferenceDisk): TrackedGuest {
  return new TrackedGuest(
    {
      writev: (offset, source, options) => disk.writev(offset, source, options),
      writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
      discard: (offset, length) => disk.discard(offset, length),
      flush: async () => {
        await disk.flushToOs();
        await file.flushToDisk();
      },
    },
    reference,
  );
}

/** A file whose next write at or above an offset waits until `go` is called. */
function parkingChild(inner: BlockChild): {
  child: BlockChild;
  park: (hostOffset: number) => { parked: Promise<void>; go: () => void };
} {
  let parkAt = -1;
  let arrived = (): void => {};
  let gate = Promise.resolve();
  const child: BlockChild = {
    nodeName: inner.nodeName,
    get lengthBytes() {
      return inner.lengthBytes;
    },
    limits: inner.limits,
    capabilities: inner.capabilities,
    readv: (offset, target) => inner.readv(offset, target),
    writev(offset, source) {
      if (offset !== parkAt) return inner.writev(offset, source);
      parkAt = -1;
      arrived();
      return gate.then(() => inner.writev(offset, source));
    },
    writeZeroes: (offset, length, options) => inner.writeZeroes(offset, length, options),
    discard: (offset, length) => inner.discard(offset, length),
    blockStatus: (offset, length) => inner.blockStatus(offset, length),
    truncate: (length) => inner.truncate(length),
    flush: () => inner.flush(),
  };
  return {
    child,
    park(hostOffset) {
      let go = (): void => {};
      gate = new Promise((resolve) => {
        go = resolve;
      });
      const parked = new Promise<void>((resolve) => {
        arrived = resolve;
      });
      parkAt = hostOffset;
      return { parked, go: () => go() };
    },
  };
}

const KIB = 1024;

describe("Qcow2Driver with requests side by side", () => {
  test.each([
    ["512 B clusters", { cluster_size: 512, refcount_bits: 64 }, 1],
    ["4 KiB clusters", { cluster_size: 4096 }, 1],
    ["zstd", { cluster_size: 4096, compression_type: "zstd" }, 1],
    ["version 2", { cluster_size: 1024, compat: "v2" }, 1],
    ["64 KiB clusters", {}, 2],
    ["subclusters of 512 B", { cluster_size: 16_384, extended_l2: "on" }, 1],
    ["subclusters of 2 KiB", { cluster_size: 65_536, extended_l2: "on" }, 2],
  ])(
    "must leave what one of the senders wrote: %s",
    { timeout: 120_000 },
    async (_, options, divisor) => {
      for (let seed = 1; seed <= SEEDS / divisor; seed++) {
        const lengthBytes = 48 * ((options as { cluster_size?: number }).cluster_size ?? 65536);
        const image = await createInMemory({ size: lengthBytes, ...options });
        const scheduler = new SimScheduler({
          seed,
          // Chains of promises under the image lock are long; the codec's threads take real time.
          settleTurns: 500,
          idle: () => new Promise((resolve) => setTimeout(resolve, 1)),
        });
        const file = new SimDisk({ content: image.bytes, scheduler });
        const reference = new ReferenceDisk({ lengthBytes });
        await scheduler.run(async () => {
          const disk = await openQcow2({
            file: directChild(file),
            options: { "l2-cache-size": "4k", "l2-cache-entry-size": 512 },
          });
          const guest = guestOf(disk, file, reference);
          const random = new Random(seed);
          let tag = 1;
          const worker = async (): Promise<void> => {
            for (let i = 0; i < 12; i++) {
              const sectors = lengthBytes / 512;
              const offset = 512 * random.below(sectors);
              const length = Math.min(
                lengthBytes - offset,
                512 * (1 + random.below(random.below(2) === 0 ? 8 : sectors / 3)),
              );
              const kind = random.below(12);
              if (kind < 6) await guest.write(offset, stampedBytes(tag++, offset, length));
              else if (kind === 6) {
                const clusterSize = disk.limits.discardAlignment;
                const start = offset - (offset % clusterSize);
                const bytes = stampedBytes(tag++, start, clusterSize);
                await guest.write(start, bytes, { compressed: true });
              } else if (kind < 8) {
                await guest.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
              } else if (kind < 10) await guest.discard(offset, length);
              else if (kind === 10) await guest.flush();
              else await disk.readv(offset, IoVector.allocate(length));
            }
          };
          await Promise.all(Array.from({ length: 6 }, worker));
          reference.check(await contentOf(disk));
          await disk.close();
        });
        const left = directChild(new SimDisk({ content: file.bytes }));
        expect(await findingsIn(left)).toEqual([]);
        const again = await openQcow2({ file: left, readOnly: true });
        reference.check(await contentOf(again));
        await again.close();
      }
    },
  );

  test("must keep a parked write off clusters that are used again [D3]", async () => {
    const image = await createInMemory({ size: 2 ** 20 });
    const memory = openMemory({ bytes: image.bytes });
    const { child, park } = parkingChild(directChild(memory));
    const disk = await openQcow2({ file: child });
    const write = (offset: number, length: number, value: number): Promise<void> =>
      Promise.resolve(disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value))));
    await write(0, 128 * KIB, 3);
    await disk.flushToOs();
    const { hostOffset } = await disk.blockStatus(0, 128 * KIB);
    const { parked, go } = park(hostOffset as number);
    const rewrite = write(0, 64 * KIB, 4);
    await parked;
    await disk.discard(0, 128 * KIB);
    await disk.flushToOs();
    await write(512 * KIB, 128 * KIB, 5);
    go();
    await rewrite;
    const bytes = await contentOf(disk);
    expect(bytes.subarray(512 * KIB, 640 * KIB).every((byte) => byte === 5)).toBe(true);
    expect(bytes.subarray(0, 128 * KIB).every((byte) => byte === 0 || byte === 4)).toBe(true);
    await disk.flushToOs();
    // Once the write has ended, its clusters are taken again.
    await write(768 * KIB, 64 * KIB, 6);
    expect((await disk.blockStatus(768 * KIB, 64 * KIB)).hostOffset).toBe(hostOffset);
    await disk.close();
    expect(await findingsIn(directChild(openMemory({ bytes: memory.bytes })))).toEqual([]);
  });

  test("compressed writes must allocate in the order of submission", async () => {
    const order = async (): Promise<Uint8Array> => {
      const image = await createInMemory({ size: 2 ** 24 });
      const memory = openMemory({ bytes: image.bytes });
      const disk = await openQcow2({ file: directChild(memory) });
      const random = new Random(9);
      const writes: Promise<void>[] = [];
      for (let i = 0; i < 16; i++) {
        const bytes = new Uint8Array(2 ** 20);
        bytes.set(random.bytes(random.below(2 ** 19)));
        writes.push(
          Promise.resolve(disk.writev(i * 2 ** 20, IoVector.of(bytes), { compressed: true })),
        );
      }
      await Promise.all(writes);
      await disk.close();
      return memory.bytes;
    };
    expect(Buffer.compare(await order(), await order())).toBe(0);
  });
});

describe("Qcow2Driver over a file that fails", () => {
  test.each(["EIO", "ENOSPC"] as const)(
    "must leave leaks at most after %s",
    { timeout: 120_000 },
    async (code) => {
      const kinds = ["write", "flush", "read"] as const;
      let struck = 0;
      for (const kind of kinds) {
        for (let nth = 1; nth < 40; nth += STEP) {
          const image = await createInMemory({
            size: 65_536,
            cluster_size: 512,
            refcount_bits: 64,
          });
          const file = new SimDisk({ content: image.bytes });
          const reference = new ReferenceDisk({ lengthBytes: 65_536 });
          const disk = await openQcow2({
            file: directChild(file),
            options: { "l2-cache-size": "4k", "l2-cache-entry-size": 512 },
          });
          const guest = guestOf(disk, file, reference);
          const random = new Random(77);
          file.inject({ kind, nth, code });
          let failures = 0;
          for (let i = 0; i < 25; i++) {
            const offset = 512 * random.below(128);
            const length = Math.min(65_536 - offset, 512 * (1 + random.below(24)));
            try {
              if (i % 7 === 6) await guest.flush();
              else if (i % 5 === 4) await guest.discard(offset, length);
              else await guest.write(offset, stampedBytes(i + 1, offset, length));
            } catch (error) {
              expect(error).toBeInstanceOf(BlockError);
              failures++;
            }
          }
          if (failures > 0) struck++;
          file.clearFaults();
          const failed = disk.statistics()["failed"] === true;
          await disk.close().catch((error: unknown) => {
            expect(failed).toBe(true);
            expect(error).toBeInstanceOf(BlockError);
          });
          const left = directChild(new SimDisk({ content: file.bytes }));
          expect(await findingsIn(left, true)).toEqual([]);
          if (failed) continue;
          const again = await openQcow2({ file: left, readOnly: true });
          reference.check(await contentOf(again));
          await again.close();
        }
      }
      expect(struck).toBeGreaterThan(5);
    },
  );
});
