// What a guest does, as a list that can be made from a seed, shortened, and printed.
import { stampedBytes, Random } from "@blocklayer/sim";

/**
 * @typedef {object} Operation - offsets and lengths in bytes; what does not fit the disk is cut when it runs
 * @property {"write" | "compressed" | "zeroes" | "discard" | "read" | "flush" | "grow" | "cache" | "cycle" | "fault"} kind -
 *   or one of upkeep-operations.mjs
 * @property {number} [offset]
 * @property {number} [length] - of a `grow`: how much longer
 * @property {"off" | "metadata" | "falloc" | "full"} [preallocation] - of a `grow`
 * @property {number} [tag] - which write it is: its data says so
 * @property {number} [noise] - how many bytes of each sector are incompressible, 0 to 512
 * @property {boolean} [fua]
 * @property {boolean} [mayUnmap]
 * @property {boolean} [noFallback]
 * @property {"on" | "off" | "auto"} [mode] - of `cache`: a reopen with this `compressed-write-cache`
 * @property {import("@blocklayer/sim").Fault} [fault] - armed here: counts from this place in the list on
 * @property {boolean} [wait] - the next operation begins only after this one has ended
 */

const SECTOR = 512;
/** How often each kind comes up, by what the guest is after. `cycle` closes the image and opens it again. */
const MOODS = {
  mixed: weighted({
    write: 32,
    compressed: 18,
    zeroes: 11,
    discard: 9,
    read: 10,
    flush: 12,
    grow: 3,
    cache: 3,
    cycle: 2,
  }),
  /** A backup: compressed clusters one after the other. */
  compressing: weighted({
    compressed: 60,
    write: 8,
    read: 8,
    flush: 16,
    discard: 4,
    cache: 2,
    cycle: 2,
  }),
  /** Clusters are dropped and taken again while requests to them are on their way. */
  churning: weighted({ write: 36, discard: 22, read: 16, flush: 18, zeroes: 4, compressed: 4 }),
};
const HOT_CLUSTERS = 4;
/**
 * Short plays in clusters `a`, `b` and `c`, in which something can go wrong that random lists hardly ever meet; what is
 * around them is random, and the disk disturbs them as it does all else.
 */
export const PHRASES = {
  /** A rewrite is on its way while its cluster is freed, and another write may take that [D1]. */
  reuse: [
    ["write", "a"],
    ["write", "a", { wait: false }],
    ["discard", "a"],
    ["flush"],
    ["write", "b", { wait: false }],
    ["flush", undefined, { wait: false }],
    ["read", "b"],
  ],
  /** Compressed data is dropped, its host cluster is taken by a plain write, and compressed data follows [D4]. */
  append: [
    ["flush"],
    ["compressed", "a"],
    ["discard", "a"],
    ["flush"],
    ["write", "b"],
    ["compressed", "c"],
    ["flush"],
    ["read", "b"],
  ],
  /** A cluster that reads as zeroes keeps its place in the file, and its old bytes, until it is written again [C5]. */
  keep: [
    ["write", "a"],
    ["flush"],
    ["zeroes", "a", { mayUnmap: false, noFallback: false }],
    ["flush"],
    ["write", "a", { length: SECTOR }],
    ["flush"],
  ],
};
/** Their tags, apart from those of the list. */
const PHRASE_TAG = 10_000;
const FAULT_KINDS = weighted({ read: 2, write: 6, flush: 4, discard: 1, zero: 1, truncate: 1 });

/**
 * The list of a seed.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @param {{ count: number, faults: number }} amount - operations, and faults among them
 * @returns {Operation[]}
 */
export function operationsOf(config, { count, faults }) {
  const random = new Random(config.seed * 16 + 5);
  const { clusterSize, lengthBytes, prefillBytes = 0 } = config;
  const first = prefillBytes / clusterSize;
  const last = Math.ceil(lengthBytes / clusterSize) - 1;
  const hot = Array.from({ length: HOT_CLUSTERS }, () => random.between(first, last));
  const list = Array.from({ length: count }, (_, index) =>
    operation(config, random, hot, index + 1),
  );
  if (config.phrase !== undefined) playPhrase(config, list);
  for (let i = 0; i < faults; i++) {
    list.splice(random.below(list.length), 0, { kind: "fault", fault: faultOf(random) });
  }
  return list;
}

/** Puts a phrase in the place of some operations. */
function playPhrase(config, list) {
  const random = new Random(config.seed * 16 + 9);
  const { clusterSize, lengthBytes, prefillBytes = 0 } = config;
  const first = Math.floor(prefillBytes / clusterSize);
  const last = Math.floor(lengthBytes / clusterSize) - 1;
  const places = random.shuffled(Array.from({ length: last - first + 1 }, (_, i) => first + i));
  const [a = first, b = a, c = b] = places;
  const phrase = PHRASES[config.phrase].map(([kind, cluster, more], index) => ({
    kind,
    ...(cluster === undefined
      ? {}
      : { offset: { a, b, c }[cluster] * clusterSize, length: clusterSize }),
    ...(kind === "write" || kind === "compressed" ? { tag: PHRASE_TAG + index } : {}),
    ...(kind === "compressed" ? { noise: 40 } : {}),
    wait: true,
    ...more,
  }));
  list.splice(random.below(list.length - phrase.length), phrase.length, ...phrase);
}

function operation(config, random, hot, tag) {
  return guestOperation(random.pick(MOODS[config.mood]), config, random, hot, tag);
}

/** A request of the guest, or what its user does between two. */
export function guestOperation(kind, config, random, hot, tag) {
  const wait = config.maxInFlight === 1 || random.oneIn(4);
  switch (kind) {
    case "write":
      return {
        kind,
        ...range(config, random, hot),
        tag,
        ...(random.oneIn(12) ? { fua: true } : {}),
        wait,
      };
    case "compressed": {
      const noise = random.pick([0, 40, 200, 300, 400, 512]);
      return { kind, ...wholeClusters(config, random, hot), tag, noise, wait };
    }
    case "zeroes": {
      const mayUnmap = random.oneIn(2);
      return { kind, ...range(config, random, hot), mayUnmap, noFallback: random.oneIn(6), wait };
    }
    case "discard":
    case "read":
      return { kind, ...range(config, random, hot), wait };
    case "grow":
      return {
        kind,
        length: SECTOR * random.between(1, (8 * config.clusterSize) / SECTOR),
        wait: true,
      };
    case "cache":
      return { kind, mode: random.pick(["on", "off", "auto"]), wait: true };
    default:
      return { kind, wait: wait || kind === "cycle" };
  }
}

/** Where a request lies: in clusters that are used again and again, or anywhere; at any byte, or aligned. */
function range(config, random, hot) {
  const { clusterSize, lengthBytes } = config;
  if (random.oneIn(4)) return wholeClusters(config, random, hot);
  const unit = random.oneIn(4) ? 1 : SECTOR;
  const inHot = random.pick(hot) * clusterSize + random.below(clusterSize);
  const offset = (random.oneIn(3) ? random.below(lengthBytes) : inHot) % lengthBytes;
  const start = offset - (offset % unit);
  const most = random.pick([SECTOR, clusterSize, 3 * clusterSize, 6 * clusterSize]);
  return { offset: start, length: unit * random.between(1, Math.max(1, Math.floor(most / unit))) };
}

function wholeClusters(config, random, hot) {
  const { clusterSize, lengthBytes } = config;
  const last = Math.ceil(lengthBytes / clusterSize) - 1;
  const first = random.oneIn(2) ? random.pick(hot) : random.between(0, last);
  return { offset: first * clusterSize, length: clusterSize * random.between(1, 4) };
}

/** @returns {import("@blocklayer/sim").Fault} */
export function faultOf(random) {
  const kind = random.pick(FAULT_KINDS);
  const times = random.oneIn(4) ? random.between(2, 12) : 1;
  const code = random.oneIn(3) ? "ENOSPC" : "EIO";
  const fault = { kind, nth: random.between(1, random.pick([3, 12, 40])), times, code };
  if (kind === "flush" && random.oneIn(2)) {
    return { ...fault, losesCache: random.pick(["all", "some"]), lossSeed: random.below(1000) };
  }
  // What a write leaves is whole sectors of the disk, wherever it began.
  if (kind === "write" && random.oneIn(2)) return { ...fault, tornSeed: random.below(1000) };
  if (kind === "read" && random.oneIn(2)) {
    return { ...fault, partialBytes: SECTOR * random.between(1, 8) };
  }
  return fault;
}

/**
 * The data of a write: stamped sectors, a part of each of them noise.
 *
 * @param {Operation} operation
 * @param {number} offset - a multiple of nothing
 * @param {number} length
 */
export function dataOf({ tag = 0, noise = 0 }, offset, length) {
  const start = offset - (offset % SECTOR);
  const end = Math.ceil((offset + length) / SECTOR) * SECTOR;
  const bytes = stampedBytes(tag, start, end - start);
  const random = new Random(tag);
  for (let at = SECTOR; noise > 0 && at <= bytes.length; at += SECTOR) {
    // The stamp at the sector's begin stays.
    for (let i = Math.min(noise, SECTOR - 12); i > 0; i--) bytes[at - i] = random.below(256);
  }
  return bytes.subarray(offset - start, offset - start + length);
}

/** Ways to make an operation plainer, for a list that fails. */
export function simplerOperations(/** @type {Operation} */ one) {
  const ways = [];
  if (one.wait === false) ways.push([{ ...one, wait: true }]);
  if (one.fua) ways.push([{ ...one, fua: false }]);
  if (one.mayUnmap) ways.push([{ ...one, mayUnmap: false }]);
  if (one.noise) ways.push([{ ...one, noise: 0 }]);
  if (one.length !== undefined && one.length >= 2 * SECTOR && one.kind !== "compressed") {
    const half = Math.floor(one.length / 2 / SECTOR) * SECTOR;
    ways.push([{ ...one, length: half }]);
    if (one.offset !== undefined) {
      ways.push([{ ...one, offset: one.offset + half, length: one.length - half }]);
    }
  }
  return ways;
}

/** Each name as often as its weight says. */
export function weighted(weights) {
  return Object.entries(weights).flatMap(([name, weight]) =>
    Array.from({ length: weight }, () => name),
  );
}
