/**
 * The options that opening an image takes: QEMU's names and defaults.
 *
 * Above: driver.ts, open.ts. Below: block-api.
 *
 * Source: QEMU's `-blockdev driver=qcow2,…`.
 */
import { booleanOption, type OptionSchema, type OptionValues } from "@blocklayer/block-api";
import { BlockError, UnsupportedError } from "@blocklayer/bytes";
import {
  type ClusterCodec,
  COMPRESSION_LEVELS,
  createCodec,
  type LevelRange,
} from "@blocklayer/codec";
import { COMPATIBLE, COMPRESSION_TYPE, hasFeature, type Qcow2Header } from "./header/header.js";
import type { CompressedCacheMode } from "./image.js";
import type { DiscardPolicy } from "./refcount/free.js";
import { kindsOfLevel, OVERLAP, OVERLAP_LEVELS } from "./refcount/overlap.js";
import type { CacheSizeOptions } from "./writeback/l2-cache.js";

/** QEMU's names of the single kinds that `overlap-check.NAME` turns on and off. */
export const OVERLAP_OPTIONS: Readonly<Record<string, number>> = {
  "main-header": OVERLAP.header,
  "active-l1": OVERLAP.activeL1,
  "active-l2": OVERLAP.activeL2,
  "refcount-table": OVERLAP.refcountTable,
  "refcount-block": OVERLAP.refcountBlock,
  "snapshot-table": OVERLAP.snapshotTable,
  "inactive-l1": OVERLAP.inactiveL1,
  "inactive-l2": OVERLAP.inactiveL2,
  "bitmap-directory": OVERLAP.bitmapDirectory,
};

const COMPRESSED_CACHE_MODES: readonly CompressedCacheMode[] = ["auto", "on", "off"];

export const openOptions: OptionSchema = {
  "lazy-refcounts": {
    type: "boolean",
    help: "Postpone refcount updates (default: as the image says)",
  },
  "pass-discard-request": {
    type: "boolean",
    help: "Pass guest discards to the file",
    default: true,
  },
  "pass-discard-snapshot": {
    type: "boolean",
    help: "Discard in the file what a snapshot frees",
    default: true,
  },
  "pass-discard-other": {
    type: "boolean",
    help: "Discard in the file what is freed otherwise",
    default: false,
  },
  "discard-no-unref": {
    type: "boolean",
    help: "Keep clusters on discard (not supported)",
    default: false,
  },
  "overlap-check": {
    type: "choice",
    choices: OVERLAP_LEVELS,
    help: "Metadata that writes are checked against (default: cached)",
  },
  "overlap-check.template": {
    type: "choice",
    choices: OVERLAP_LEVELS,
    help: "The same, for use beside single kinds",
  },
  ...overlapSwitches(),
  "compressed-write-cache": {
    type: "choice",
    choices: COMPRESSED_CACHE_MODES,
    help: "Gather compressed writes into whole clusters (auto: when the file takes only aligned requests)",
    default: "auto",
  },
  "compression-level": {
    type: "integer",
    help: "How hard to compress: zlib 1 to 9, 6 when absent; zstd 1 to 22, 3 when absent",
  },
  snapshot: { type: "string", help: "Show this internal snapshot: an id, or else a name" },
  "snapshot.id": { type: "string", help: "Show the internal snapshot with this id" },
  "snapshot.name": { type: "string", help: "Show the internal snapshot with this name" },
  "cache-size": { type: "size", help: "L2 cache and refcount cache together, in bytes" },
  "l2-cache-size": { type: "size", help: "Longest L2 cache, in bytes" },
  "l2-cache-entry-size": { type: "size", help: "Length of an L2 slice, in bytes" },
  "refcount-cache-size": { type: "size", help: "Longest refcount cache, in bytes" },
};

function overlapSwitches(): OptionSchema {
  const names = Object.keys(OVERLAP_OPTIONS);
  return Object.fromEntries(
    names.map((name) => [
      `overlap-check.${name}`,
      { type: "boolean", help: `Check for unintended writes into: ${name}` },
    ]),
  );
}

/** Options that `reopen` may change. */
export const reopenOptions: readonly string[] = [
  "lazy-refcounts",
  "overlap-check.template",
  ...Object.keys(OVERLAP_OPTIONS).map((name) => `overlap-check.${name}`),
  "pass-discard-request",
  "pass-discard-snapshot",
  "pass-discard-other",
  "overlap-check",
  "compressed-write-cache",
];

/** @throws UnsupportedError for options that are known and not there */
export function refuseMissingOptions(values: OptionValues): void {
  for (const name of ["discard-no-unref"]) {
    if (!booleanOption(values, name)) continue;
    throw new UnsupportedError(`qcow2: option '${name}=on' is not supported`, { op: "open" });
  }
}

/** The levels of the values of `compression_type`: higher ones are slower and give less. */
export const compressionLevels: Readonly<Record<"zlib" | "zstd", LevelRange>> = {
  zlib: COMPRESSION_LEVELS.deflate,
  zstd: COMPRESSION_LEVELS.zstd,
};

/** Makes a codec by its name, as `createCodec` of @blocklayer/codec does. */
export type CodecFactory = typeof createCodec;

/**
 * Makes the codec of an image's compressed clusters. The level is nothing of the image: it may differ from one
 * opening to the next.
 *
 * @returns what makes it, when it is needed
 * @throws BlockError `EINVAL` for a level that the image's compression type does not have
 */
export function codecMakerOf(
  values: OptionValues,
  { compressionType }: Pick<Qcow2Header, "compressionType">,
  create: CodecFactory = createCodec,
): () => ClusterCodec {
  const type = compressionType === COMPRESSION_TYPE.zstd ? "zstd" : "zlib";
  const name = type === "zstd" ? "zstd" : "deflate";
  const level = values["compression-level"];
  if (typeof level !== "number") return () => create(name);
  const { min, max } = compressionLevels[type];
  if (level >= min && level <= max) return () => create(name, { level });
  const message = `qcow2: option 'compression-level' is ${level}; compression type '${type}' has levels ${min} to ${max}`;
  throw new BlockError("EINVAL", message, { op: "open" });
}

/** The sizes that the user named. */
export function cacheOptionsOf(values: OptionValues): CacheSizeOptions {
  const sizes: { -readonly [K in keyof CacheSizeOptions]: number } = {};
  const take = (name: string, key: keyof CacheSizeOptions): void => {
    const value = values[name];
    if (typeof value === "number") sizes[key] = value;
  };
  take("cache-size", "totalBytes");
  take("l2-cache-size", "l2Bytes");
  take("l2-cache-entry-size", "l2SliceBytes");
  take("refcount-cache-size", "refcountBytes");
  return sizes;
}

/**
 * The kinds of metadata that writes are checked against, as bits of OVERLAP.
 *
 * @throws BlockError `EINVAL` when the two options for the level disagree
 */
export function overlapKindsOf(values: OptionValues): number {
  const { "overlap-check": plain, "overlap-check.template": template } = values;
  if (plain !== undefined && template !== undefined && plain !== template) {
    const said = `'overlap-check' ('${String(plain)}') and 'overlap-check.template' ('${String(template)}')`;
    throw new BlockError("EINVAL", `Conflicting values for qcow2 options ${said}`, { op: "open" });
  }
  const word = plain ?? template;
  let kinds = kindsOfLevel(OVERLAP_LEVELS.find((one) => one === word) ?? "cached");
  for (const [name, kind] of Object.entries(OVERLAP_OPTIONS)) {
    const value = values[`overlap-check.${name}`];
    if (value === true) kinds |= kind;
    if (value === false) kinds &= ~kind;
  }
  return kinds;
}

/**
 * Whether refcounts are written lazily: the option, or what the image asks for.
 *
 * @throws BlockError `EINVAL` for a version 2 image, which has no dirty bit
 */
export function lazyRefcountsOf(
  values: OptionValues,
  header: Pick<Qcow2Header, "version" | "compatible">,
): boolean {
  const wanted =
    values["lazy-refcounts"] ?? hasFeature(header.compatible, COMPATIBLE.lazyRefcounts);
  if (wanted === true && header.version < 3) {
    throw new BlockError(
      "EINVAL",
      "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
      { op: "open" },
    );
  }
  return wanted === true;
}

export function compressedCacheModeOf(values: OptionValues): CompressedCacheMode {
  const mode = COMPRESSED_CACHE_MODES.find((one) => one === values["compressed-write-cache"]);
  return mode ?? "auto";
}

export function discardPolicyOf(values: OptionValues): DiscardPolicy {
  return {
    request: booleanOption(values, "pass-discard-request"),
    snapshot: booleanOption(values, "pass-discard-snapshot"),
    other: booleanOption(values, "pass-discard-other"),
  };
}
