// Lists in which the image is changed as a whole between requests of the guest.
import { Random } from "@blocklayer/sim";
import { faultOf, guestOperation, weighted } from "./operations.mjs";
import { BACKING_NAME } from "./stack.mjs";

/**
 * What upkeep-run.mjs carries out. `which` and `from` count snapshots or bitmaps, modulo how many there are.
 *
 * @typedef {object} UpkeepOperation
 * @property {"snapshot" | "shrink" | "amend" | "rename" | "bitmap" | "check" | "handover"} kind
 * @property {string} [action] - of a snapshot or a bitmap: see ACTIONS
 * @property {number} [tag] - names what is made
 * @property {number} [which]
 * @property {number} [from] - the bitmap that is merged
 * @property {number} [length] - in bytes: how much shorter
 * @property {Record<string, unknown>} [options] - of `amend`
 * @property {number} [granularityBytes]
 * @property {boolean} [recording]
 * @property {string} [name] - of the backing file
 * @property {"leaks" | "all"} [fix]
 */

export const UPKEEP_KINDS = new Set([
  "snapshot",
  "shrink",
  "amend",
  "rename",
  "bitmap",
  "check",
  "handover",
]);

/** How often each kind comes up, beside requests of the guest. */
const FOCUS_WEIGHTS = {
  snapshots: { snapshot: 30, shrink: 2, grow: 3, amend: 1, check: 3, handover: 1, cycle: 3 },
  bitmaps: { bitmap: 30, shrink: 3, grow: 4, check: 2, handover: 3, cycle: 6, rename: 1 },
  lengths: { shrink: 14, grow: 14, snapshot: 4, check: 2, cycle: 3, bitmap: 2 },
  options: { amend: 20, rename: 8, check: 3, cycle: 4, shrink: 2, grow: 2, bitmap: 2 },
  all: {
    snapshot: 10,
    bitmap: 8,
    shrink: 5,
    grow: 5,
    amend: 6,
    rename: 3,
    check: 4,
    handover: 3,
    cycle: 4,
  },
};
const GUEST_WEIGHTS = {
  write: 30,
  compressed: 10,
  zeroes: 8,
  discard: 8,
  read: 4,
  flush: 8,
  cache: 1,
};
const ACTIONS = {
  snapshot: weighted({ create: 5, apply: 3, delete: 3 }),
  bitmap: weighted({ add: 6, remove: 2, clear: 2, enable: 2, disable: 2, merge: 2, store: 4 }),
};
const PREALLOCATIONS = ["off", "off", "off", "metadata", "falloc", "full"];
const GRANULARITIES = [512, 1024, 4096];
const REFCOUNT_BITS = [1, 2, 4, 8, 16, 32, 64];
/** Longer ones do not fit into a header of one sector: clusters of 1 KiB leave no room for the steps to such a one. */
const LONG_NAME_BYTES = { short: 180, long: 420 };
const LONG_NAME_CLUSTER_BYTES = 4096;

/** What the backing file may be called: all names are the same file. */
export const BACKING_NAMES = [
  BACKING_NAME,
  ...Object.values(LONG_NAME_BYTES).map(
    (bytes) => `${"n".repeat(bytes / 2)}/${"m".repeat(bytes / 2)}`,
  ),
];

/**
 * The list of a seed.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @param {{ count: number, faults: number }} amount
 */
export function upkeepOperationsOf(config, { count, faults }) {
  const random = new Random(config.seed * 16 + 12);
  const kinds = kindsOf(config);
  const last = Math.ceil(config.lengthBytes / config.clusterSize) - 1;
  const hot = Array.from({ length: 4 }, () => random.between(0, last));
  const list = Array.from({ length: count }, (_, index) => {
    const kind = random.pick(kinds);
    const tag = index + 1;
    return UPKEEP_KINDS.has(kind) || kind === "grow"
      ? upkeepOperation(kind, config, random, tag)
      : guestOperation(kind, config, random, hot, tag);
  });
  for (let i = 0; i < faults; i++) {
    list.splice(random.below(list.length), 0, { kind: "fault", fault: faultOf(random) });
  }
  return list;
}

function kindsOf(config) {
  const { compressed, ...guest } = GUEST_WEIGHTS;
  // What no request can be for, is not asked for: it would be refused each time.
  const plain = config.dataFile === undefined ? { ...guest, compressed } : guest;
  const { rename, ...upkeep } = FOCUS_WEIGHTS[config.upkeep];
  const named = config.backingBytes === undefined ? {} : { rename: rename ?? 0 };
  return weighted({ ...plain, ...upkeep, ...named });
}

function upkeepOperation(kind, config, random, tag) {
  const { clusterSize } = config;
  const which = random.below(8);
  switch (kind) {
    case "snapshot":
      return { kind, action: random.pick(ACTIONS.snapshot), which, tag };
    case "bitmap": {
      const granularityBytes = random.pick(GRANULARITIES);
      const recording = !random.oneIn(4);
      const from = random.below(8);
      const action = random.pick(ACTIONS.bitmap);
      return { kind, action, which, from, tag, granularityBytes, recording };
    }
    case "grow": {
      const length = 512 * random.between(1, (6 * clusterSize) / 512);
      return { kind, length, preallocation: random.pick(PREALLOCATIONS), wait: true };
    }
    case "shrink":
      return { kind, length: 512 * random.between(1, (6 * clusterSize) / 512) };
    case "amend":
      return { kind, options: amendOptionsOf(random) };
    case "rename":
      return { kind, name: random.pick(namesFor(config)) };
    case "check":
      return { kind, ...(random.oneIn(3) ? {} : { fix: random.pick(["leaks", "all"]) }) };
    default:
      return { kind };
  }
}

function namesFor({ clusterSize }) {
  return clusterSize >= LONG_NAME_CLUSTER_BYTES ? BACKING_NAMES : BACKING_NAMES.slice(0, 2);
}

function amendOptionsOf(random) {
  const lazy = { lazy_refcounts: random.oneIn(2) };
  const width = { refcount_bits: random.pick(REFCOUNT_BITS) };
  return random.pick([
    lazy,
    width,
    width,
    { compat: "0.10", refcount_bits: 16 },
    { compat: "0.10" },
    { compat: "1.1" },
    { compat: "1.1", ...lazy, ...width },
  ]);
}
