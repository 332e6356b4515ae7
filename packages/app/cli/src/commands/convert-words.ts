/** The words of `blk convert`, checked against each other before anything is opened. */
import { SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { type OpenImageOptions, parseOptionString } from "@blocklayer/image";
import { compressionLevels } from "@blocklayer/qcow2";
import { boundedNumber, COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { cacheMode, openOptions } from "../open-options.js";
import { sizeWord } from "../size-word.js";
import { snapshotOption } from "../snapshot-source.js";
import type { Terminal } from "../terminal.js";

const MAX_SPARSE_BYTES = 16 * 1024 * 1024;
const DEFAULT_SPARSE_BYTES = 4096;
const DEFAULT_PARALLEL = 8;

const OPTIONS = {
  ...COMMON_OPTIONS,
  "target-image-opts": { type: "boolean" },
  "target-is-zero": { type: "boolean" },
  bitmaps: { type: "boolean" },
  "skip-broken-bitmaps": { type: "boolean" },
  "copy-range": { type: "boolean", short: "C" },
  compress: { type: "boolean", short: "c" },
  "compression-level": { type: "string" },
  progress: { type: "boolean", short: "p" },
  "no-create": { type: "boolean", short: "n" },
  "target-cache": { type: "string", short: "t" },
  "source-cache": { type: "string", short: "T" },
  "target-format": { type: "string", short: "O" },
  backing: { type: "string", short: "B" },
  "backing-format": { type: "string", short: "F" },
  options: { type: "string", short: "o", multiple: true },
  "snapshot-param": { type: "string", short: "l" },
  "sparse-size": { type: "string", short: "S" },
  "rate-limit": { type: "string", short: "r" },
  coroutines: { type: "string", short: "m" },
  "out-of-order": { type: "boolean", short: "W" },
  salvage: { type: "boolean" },
} as const;

type Values = ReturnType<typeof parseWords<typeof OPTIONS>>["values"];

/** What the user asked for. */
export interface ConvertWords {
  readonly sources: readonly string[];
  readonly target: string;
  readonly targetFormat: string;
  readonly open: OpenImageOptions;
  readonly targetCache: NonNullable<OpenImageOptions["cache"]>;
  readonly targetImageOpts: boolean;
  readonly targetIsZero: boolean;
  readonly noCreate: boolean;
  readonly createOptions: Readonly<Record<string, string>>;
  readonly backing: { readonly filename: string; readonly format: string } | undefined;
  readonly compressed: boolean;
  readonly compressionLevel: number | undefined;
  readonly copyRange: boolean;
  readonly sparseSizeBytes: number;
  readonly rateLimitBytesPerSecond: number | undefined;
  readonly parallel: number;
  readonly outOfOrder: boolean;
  readonly bitmaps: boolean;
  readonly skipBrokenBitmaps: boolean;
  readonly salvage: boolean;
  readonly progress: boolean;
  readonly quiet: boolean;
}

/** @returns the words, or the format whose options the user asked about (`-o help`) */
export function readConvertWords(
  args: readonly string[],
  terminal: Terminal,
): ConvertWords | { readonly helpOnFormat: string; readonly target: string | undefined } {
  const { values, positionals } = parseWords(args, OPTIONS);
  const targetFormat = values["target-format"] ?? "raw";
  const createOptions = parseOptionString(values.options ?? []);
  if ("help" in createOptions) return { helpOnFormat: targetFormat, target: positionals.at(-1) };
  refuseContradictions(values);
  const target = positionals.at(-1);
  if (target === undefined || positionals.length < 2) {
    throw new UsageError("Must specify image file name");
  }
  if (values.bitmaps === true && positionals.length > 2) {
    throw new UsageError("Copying bitmaps only possible with single source");
  }
  const rate = values["rate-limit"];
  return {
    sources: positionals.slice(0, -1),
    target,
    targetFormat,
    open: {
      ...openOptions(values, terminal),
      ...snapshotOf(values, positionals.length - 1),
      // The target may be one of the sources, or a file of theirs: that is found out before it is emptied.
      keepWritersOut: true,
    },
    targetCache: cacheMode(values["target-cache"] ?? "unsafe", "cache"),
    targetImageOpts: values["target-image-opts"] === true,
    targetIsZero: values["target-is-zero"] === true,
    noCreate: values["no-create"] === true,
    createOptions,
    backing: backingOf(values, createOptions),
    compressed: values.compress === true,
    compressionLevel: compressionLevel(values, createOptions["compression_type"]),
    copyRange: values["copy-range"] === true,
    sparseSizeBytes: sparseSize(values["sparse-size"]),
    rateLimitBytesPerSecond: rate === undefined ? undefined : rateLimit(rate),
    parallel: parallelOf(values.coroutines),
    outOfOrder: values["out-of-order"] === true,
    salvage: values.salvage === true,
    bitmaps: values.bitmaps === true,
    skipBrokenBitmaps: values["skip-broken-bitmaps"] === true,
    progress: values.progress === true && values.quiet !== true,
    quiet: values.quiet === true,
  };
}

function snapshotOf(values: Values, sourceCount: number): Pick<OpenImageOptions, "snapshot"> {
  const param = values["snapshot-param"];
  if (param === undefined) return {};
  if (sourceCount > 1) throw new UsageError("No support for concatenating multiple snapshot");
  return snapshotOption(param);
}

function refuseContradictions(values: Values): void {
  const noCreate = values["no-create"] === true;
  if (values["skip-broken-bitmaps"] === true && values.bitmaps !== true) {
    throw new UsageError("Use of --skip-broken-bitmaps requires --bitmaps");
  }
  if (values["copy-range"] === true && values["sparse-size"] !== undefined) {
    throw new UsageError("Cannot enable copy offloading when -S is used");
  }
  if (values["copy-range"] === true && values.compress === true) {
    throw new UsageError("Cannot enable copy offloading when -c is used");
  }
  if (values["compression-level"] !== undefined && values.compress !== true) {
    throw new UsageError("--compression-level has no effect without -c");
  }
  if (values["target-image-opts"] === true && !noCreate) {
    throw new UsageError("--target-image-opts requires use of -n flag");
  }
  if (values["target-image-opts"] === true && values["target-format"] !== undefined) {
    throw new UsageError("-O cannot be used with --target-image-opts");
  }
  if (noCreate && values.options !== undefined) {
    throw new UsageError("-o has no effect when skipping image creation");
  }
  if (values["target-is-zero"] === true && !noCreate) {
    throw new UsageError("--target-is-zero requires use of -n flag");
  }
}

/** The driver checks it too, but only when the target is made already. */
function compressionLevel(values: Values, type: string | undefined): number | undefined {
  const word = values["compression-level"];
  if (word === undefined) return undefined;
  // What the target has already (-n), or what no image can have, is for the driver to know.
  const known = values["no-create"] === true ? undefined : (type ?? "zlib");
  const isZlib = known === "zlib";
  const { min, max } = isZlib ? compressionLevels.zlib : compressionLevels.zstd;
  const whose = isZlib ? ", the levels of compression_type=zlib" : "";
  const message = `Invalid compression level specified. It is a number from ${min} to ${max}${whose}`;
  return boundedNumber(word, min, max, message);
}

function backingOf(
  values: Values,
  createOptions: Readonly<Record<string, string>>,
): ConvertWords["backing"] {
  const filename = values.backing ?? createOptions["backing_file"];
  const format = values["backing-format"] ?? createOptions["backing_fmt"];
  if (filename === undefined) {
    if (format === undefined) return undefined;
    throw new UsageError("Backing format cannot be used without backing file");
  }
  if (format === undefined) {
    throw new UsageError("Use of backing file requires explicit backing format (-F)");
  }
  return { filename, format };
}

function sparseSize(word: string | undefined): number {
  if (word === undefined) return DEFAULT_SPARSE_BYTES;
  const bytes = sizeWord(word, "buffer size for sparse output");
  if (bytes <= MAX_SPARSE_BYTES && bytes % SECTOR_SIZE_BYTES === 0) return bytes;
  throw new UsageError(
    `Invalid buffer size for sparse output specified. Valid sizes are multiples of ${SECTOR_SIZE_BYTES} up to ${MAX_SPARSE_BYTES}. Select 0 to disable sparse detection (fully allocates output).`,
  );
}

function rateLimit(word: string): number {
  const bytes = sizeWord(word, "rate limit");
  if (bytes === 0)
    throw new UsageError("Invalid rate limit specified: 0 bytes a second copy nothing");
  return bytes;
}

function parallelOf(word: string | undefined): number {
  if (word === undefined) return DEFAULT_PARALLEL;
  const message = "Invalid number of coroutines. Allowed number of coroutines is between 1 and 16";
  return boundedNumber(word, 1, 16, message);
}
