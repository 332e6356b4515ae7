// What one seed simulates: an image, the disk that it lies on, and how its guest behaves.
import { Random } from "@blocklayer/sim";
import { upkeepConfigOf } from "./upkeep-config.mjs";

/**
 * @typedef {"schedules" | "crashes" | "upkeep-schedules" | "upkeep-crashes" | "service-crashes"} Mode
 *
 * @typedef {object} SimConfig - lengths in bytes
 * @property {number} seed - decides the scheduler's order, latencies and data
 * @property {string} [upkeep] - the image is changed as a whole, too: what its user is after, see upkeep-config.mjs
 * @property {2 | 3} version
 * @property {number} clusterSize
 * @property {number} refcountBits
 * @property {boolean} [extendedL2]
 * @property {boolean} [lazyRefcounts]
 * @property {"raw" | "plain"} [dataFile] - guest data lies in an external data file, which shows the same disk if raw
 * @property {number} lengthBytes - of the guest's disk at the start
 * @property {number} alignment - what the file takes requests in
 * @property {"on" | "off" | "auto"} compressedCache
 * @property {number} l2CacheBytes - of slices of 512 bytes
 * @property {number} [backingBytes] - length of the backing file
 * @property {number} [prefillBytes] - written from the start of the disk on before anything is simulated
 * @property {boolean} passDiscards - whether the file hears of what is freed, for whatever reason
 * @property {"zero" | "keep"} discards - how a discarded range of the file reads
 * @property {"mixed" | "compressing" | "churning"} mood - what the guest is after: see operations.mjs
 * @property {"reuse" | "append" | "keep"} [phrase] - a short play among the operations: see operations.mjs
 * @property {boolean} scheduled - requests to the file wait, and complete in the scheduler's order
 * @property {number} maxInFlight - requests of the guest at once
 * @property {{ oneIn: number, most: number }} [latency] - one request in so many waits for up to `most` completions
 * @property {number} [spaceBytes] - the file cannot grow by more
 * @property {{ oneIn: number, most: number }} [holds] - the file listens to the driver's events: one request of guest
 *   data in so many is held back for up to `most` completions, while what concerns tables goes on
 */

/** Wide ones more often: their blocks count few clusters, so that even a small image needs some. */
const REFCOUNT_BITS = [1, 2, 4, 8, 16, 32, 64, 64, 64];
/** Small clusters make many tables of few bytes: that is where the orders between them show. */
const CLUSTER_SIZES = {
  crashes: many({ 512: 16, 1024: 6, 2048: 4, 4096: 4, 8192: 1, 65536: 1 }),
  schedules: many({ 512: 6, 1024: 2, 2048: 2, 4096: 4, 8192: 2, 16384: 2, 65536: 2 }),
};
/** Longest disk whose every byte is read for every state of a crash. */
const DISK_BYTES = { crashes: 48 * 1024, schedules: 256 * 1024 };
/** A disk so full that its refcount table is about to grow: 512-byte clusters, refcounts of 64 bits. */
const FULL_DISK = { lengthBytes: 2_228_224, prefillBytes: 2_009_600 };
/** With clusters of 512 bytes this takes more tables than the smallest caches hold. */
const WIDE_DISK_BYTES = 384 * 1024;
const WIDE_ONE_IN = 10;
const FULL_ONE_IN = 80;
/** Two L2 tables long; with their header, tables and one refcount block these clusters nearly fill that block. */
const TIGHT_DISK = { lengthBytes: 48 * 1024, fewest: 48, most: 58 };
const TIGHT_ONE_IN = { crashes: 8, schedules: 16 };
const HELD_ONE_IN = 4;
const PHRASE_ONE_IN = 3;

/**
 * The configuration of a seed.
 *
 * @param {Mode} mode
 * @param {number} seed
 * @returns {SimConfig}
 */
export function configOf(mode, seed) {
  if (isUpkeep(mode)) return upkeepConfigOf(mode, seed);
  return staged(mode, plainConfig(mode, seed));
}

/** Whether images are changed as a whole. */
export function isUpkeep(/** @type {Mode} */ mode) {
  return mode.startsWith("upkeep-");
}

/** Whether every state of a crash is looked at. */
export function isCrashes(/** @type {Mode} */ mode) {
  return mode.endsWith("crashes");
}

/** Sets the stage for what comes up too rarely by itself. A stream of its own: other seeds stay as they are. */
function staged(mode, config) {
  const random = new Random(config.seed * 16 + 7);
  const changes = {};
  if (config.prefillBytes === undefined && random.oneIn(TIGHT_ONE_IN[mode])) {
    Object.assign(changes, tightDisk(random));
  }
  if (random.oneIn(PHRASE_ONE_IN)) changes.phrase = random.pick(["reuse", "append", "keep"]);
  if (config.scheduled && (changes.phrase === "reuse" || random.oneIn(HELD_ONE_IN))) {
    changes.holds = { oneIn: random.pick([2, 4, 8]), most: random.pick([10, 30, 100]) };
    changes.maxInFlight = random.pick([4, 8]);
  }
  return { ...config, ...changes };
}

/** The first refcount block is nearly full, so that a few clusters more need another: it counts 64. */
function tightDisk(random) {
  const clusters = random.between(TIGHT_DISK.fewest, TIGHT_DISK.most);
  return {
    version: 3,
    clusterSize: 512,
    refcountBits: 64,
    lengthBytes: TIGHT_DISK.lengthBytes,
    prefillBytes: clusters * 512,
  };
}

function plainConfig(mode, seed) {
  const random = new Random(seed);
  const version = random.oneIn(5) ? 2 : 3;
  const clusterSize = random.pick(CLUSTER_SIZES[mode]);
  const isWide = clusterSize === 512 && random.oneIn(WIDE_ONE_IN);
  const most = isWide ? WIDE_DISK_BYTES : DISK_BYTES[mode];
  const clusters = Math.max(
    3,
    random.between(Math.ceil(most / clusterSize / 4), most / clusterSize),
  );
  const cutSectors = random.oneIn(3) ? random.below(clusterSize / 512) : 0;
  const isFull = clusterSize === 512 && version === 3 && random.oneIn(FULL_ONE_IN);
  const lengthBytes = isFull
    ? FULL_DISK.lengthBytes
    : (isWide ? most : clusters * clusterSize) - 512 * cutSectors;
  const scheduled = mode === "schedules" || random.oneIn(2);
  return {
    seed,
    version,
    clusterSize,
    refcountBits: isFull ? 64 : version === 2 ? 16 : random.pick(REFCOUNT_BITS),
    lengthBytes,
    ...(isFull ? { prefillBytes: FULL_DISK.prefillBytes } : {}),
    alignment: random.pick([1, 1, 512, 4096]),
    compressedCache: random.pick(["on", "on", "off", "auto"]),
    l2CacheBytes: random.pick([4096, 4096, 65536]),
    ...(random.oneIn(3)
      ? { backingBytes: 512 * random.between(1, (lengthBytes / 512) * 1.25) }
      : {}),
    passDiscards: random.oneIn(2),
    discards: random.pick(["zero", "keep"]),
    mood: random.pick(["mixed", "mixed", "compressing", "churning"]),
    scheduled,
    maxInFlight: scheduled ? random.pick([1, 2, 4, 8]) : 1,
    ...(scheduled && random.oneIn(2)
      ? { latency: { oneIn: random.pick([2, 8, 20]), most: random.pick([5, 40, 400]) } }
      : {}),
    ...(mode === "schedules" && random.oneIn(8)
      ? { spaceBytes: random.between(1, Math.ceil(lengthBytes / 1024)) * 1024 }
      : {}),
  };
}

/** A configuration in a few words, for progress and reports. */
export function describeConfig(/** @type {SimConfig} */ config) {
  const { version, clusterSize, refcountBits, lengthBytes, alignment, compressedCache } = config;
  return [
    `v${version}`,
    `cluster ${clusterSize}`,
    `refcount ${refcountBits}`,
    `disk ${lengthBytes}`,
    `alignment ${alignment}`,
    `compressed cache ${compressedCache}`,
    config.backingBytes === undefined ? "no backing file" : `backing ${config.backingBytes}`,
    ...["upkeep", "extendedL2", "lazyRefcounts", "dataFile"].flatMap((name) =>
      config[name] === undefined ? [] : [`${name} ${config[name]}`],
    ),
    config.scheduled ? `${config.maxInFlight} in flight` : "one at a time",
  ].join(", ");
}

/** Each key as often as its value says. */
function many(weights) {
  return Object.entries(weights).flatMap(([key, times]) =>
    Array.from({ length: times }, () => Number(key)),
  );
}
