// Configurations whose images are also changed as a whole: snapshots, lengths, options, bitmaps, repairs.
import { Random } from "@blocklayer/sim";
import { weighted } from "./operations.mjs";

/** What the user of the image is after: see upkeep-operations.mjs. */
export const FOCUSES = ["snapshots", "bitmaps", "lengths", "options", "all"];
/** Extended L2 entries need clusters of 16 KiB at least. */
const EXTENDED_CLUSTER_BYTES = 16 * 1024;
const CLUSTER_SIZES = weighted({ 512: 8, 1024: 4, 2048: 3, 4096: 3, 8192: 1 }).map(Number);
const REFCOUNT_BITS = [1, 2, 4, 8, 16, 16, 32, 64, 64, 64];
/** Every byte of the disk, and of every snapshot, is read for every state. */
const DISK_BYTES = 24 * 1024;
const EXTENDED_DISK_BYTES = 80 * 1024;

/**
 * The configuration of a seed. A stream of its own: the seeds of other modes stay as they are.
 *
 * @param {"upkeep-schedules" | "upkeep-crashes"} mode
 * @param {number} seed
 * @returns {import("./config.mjs").SimConfig}
 */
export function upkeepConfigOf(mode, seed) {
  const random = new Random(seed * 16 + 11);
  const focus = random.pick(FOCUSES);
  const version = random.oneIn(5) && focus !== "bitmaps" ? 2 : 3;
  const extendedL2 = version === 3 && random.oneIn(6);
  const clusterSize = extendedL2 ? EXTENDED_CLUSTER_BYTES : random.pick(CLUSTER_SIZES);
  const most = extendedL2 ? EXTENDED_DISK_BYTES : DISK_BYTES;
  const clusters = random.between(3, Math.max(4, Math.floor(most / clusterSize)));
  const lengthBytes = clusters * clusterSize - 512 * (random.oneIn(3) ? random.below(3) : 0);
  const dataFile = version === 3 && random.oneIn(8) ? random.pick(["raw", "plain"]) : undefined;
  const hasBacking = dataFile !== "raw" && random.oneIn(3);
  const scheduled = mode === "upkeep-schedules" || random.oneIn(3);
  return {
    seed,
    upkeep: focus,
    version,
    clusterSize,
    refcountBits: version === 2 ? 16 : random.pick(REFCOUNT_BITS),
    ...(extendedL2 ? { extendedL2 } : {}),
    ...(version === 3 && random.oneIn(3) ? { lazyRefcounts: true } : {}),
    ...(dataFile === undefined ? {} : { dataFile }),
    lengthBytes,
    alignment: random.pick([1, 1, 512, 4096]),
    compressedCache: random.pick(["on", "on", "off", "auto"]),
    l2CacheBytes: random.pick([4096, 4096, 65536]),
    ...(hasBacking ? { backingBytes: 512 * random.between(1, (lengthBytes / 512) * 1.25) } : {}),
    passDiscards: random.oneIn(2),
    discards: random.pick(["zero", "keep"]),
    mood: random.pick(["mixed", "mixed", "compressing", "churning"]),
    scheduled,
    maxInFlight: scheduled ? random.pick([1, 2, 4, 8]) : 1,
    ...(scheduled && random.oneIn(2)
      ? { latency: { oneIn: random.pick([2, 8, 20]), most: random.pick([5, 40]) } }
      : {}),
    ...(mode === "upkeep-schedules" && random.oneIn(10)
      ? { spaceBytes: random.between(8, 64) * 1024 }
      : {}),
  };
}
