/**
 * `blk convert`: one disk out of one or several images.
 *
 * A target that is made here holds no image until everything is written (see ConvertTarget): neither Ctrl-C
 * nor an error nor a power cut leaves half a disk that could be taken for a whole one.
 */
import type { BlockBackend } from "@blocklayer/block-graph";
import { BlockError, hasCode, UnsupportedError } from "@blocklayer/bytes";
import {
  convertImage,
  ConvertTarget,
  copyBitmaps,
  type ExistingTargetOptions,
  type NewTargetOptions,
  type TargetBacking,
} from "@blocklayer/image";
import { UsageError } from "../command-line.js";
import { describeError } from "../describe-error.js";
import { whileMaking, whileOpening } from "../naming.js";
import { optionHelp } from "../option-help.js";
import { Progress } from "../output/progress.js";
import { DRIVERS } from "../registry.js";
import { sizeWord } from "../size-word.js";
import { openSource } from "../snapshot-source.js";
import type { Terminal } from "../terminal.js";
import { type ConvertWords, readConvertWords } from "./convert-words.js";

export async function convert(args: readonly string[], terminal: Terminal): Promise<number> {
  const words = readConvertWords(args, terminal);
  if ("helpOnFormat" in words) {
    terminal.out(optionHelp(words.helpOnFormat, words.target));
    return 0;
  }
  const progress = new Progress(terminal, words.progress);
  const sources: BlockBackend[] = [];
  try {
    for (const name of words.sources) {
      sources.push(await openSource(name, words.open));
    }
    await convertTo(words, sources, progress, terminal);
    progress.finish();
    return 0;
  } finally {
    progress.end();
    for (const source of sources) await source.close();
  }
}

async function convertTo(
  words: ConvertWords,
  sources: readonly BlockBackend[],
  progress: Progress,
  terminal: Terminal,
): Promise<void> {
  const totalBytes = sources.reduce((sum, source) => sum + source.lengthBytes, 0);
  const [first] = sources;
  if (words.bitmaps && first !== undefined) refuseBitmaps(first, "Source lacks bitmap support");
  const target = await openTarget(words, totalBytes, terminal);
  if (target.backend.lengthBytes < totalBytes) {
    await target.abandon(); // nothing was written yet
    throw new BlockError("EINVAL", "output file is smaller than input file");
  }
  try {
    if (words.bitmaps) refuseBitmaps(target.backend, targetLacksBitmaps(words));
    const targetBacking = targetBackingOf(words, target.backend);
    const { rateLimitBytesPerSecond } = words;
    await convertImage({
      sources,
      target: target.backend,
      compressed: words.compressed,
      copyRange: words.copyRange,
      sparseSizeBytes: words.sparseSizeBytes,
      parallel: words.parallel,
      outOfOrder: words.outOfOrder,
      salvage: words.salvage,
      targetIsZero: words.targetIsZero || target.isKnownZero,
      onProgress: progress.update,
      onUnreadable: ({ offset, lengthBytes, cause }) => {
        const range = `${lengthBytes} bytes at offset ${offset}`;
        const why = cause === undefined ? "" : ` (${describeError(cause)})`;
        terminal.err(`${terminal.programName}: warning: ${range} could not be read${why}\n`);
      },
      signal: terminal.signal,
      ...(targetBacking === undefined ? {} : { targetBacking }),
      ...(rateLimitBytesPerSecond === undefined ? {} : { rateLimitBytesPerSecond }),
    });
    if (words.bitmaps) await copyBitmapsTo(words, sources, target.backend, terminal);
    await target.complete();
  } catch (error) {
    const fate = await target.abandon();
    const what =
      fate === "removed"
        ? `the incomplete '${words.target}' was removed`
        : `'${words.target}' is incomplete`;
    const why = hasCode(error, "ECANCELED") ? "convert was interrupted" : reasonOf(error);
    throw new BlockError("EIO", `${why}; ${what}`, { cause: error });
  }
}

/** An image of a version without bitmaps is refused, also when there is no bitmap: before anything is copied. */
function refuseBitmaps({ bitmaps }: BlockBackend, message: string): void {
  if (bitmaps?.canStore !== true) throw new UnsupportedError(message, { op: "convert" });
}

function targetLacksBitmaps({ targetFormat }: Pick<ConvertWords, "targetFormat">): string {
  return `Format driver '${targetFormat}' does not support bitmaps`;
}

/**
 * Stored before the target counts as whole. A snapshot has no bitmaps of its own: as in qemu-img those of its image
 * are copied, also when the image's disk has got another length since.
 */
async function copyBitmapsTo(
  { sources: [name], open, skipBrokenBitmaps: skipBroken }: ConvertWords,
  [source]: readonly BlockBackend[],
  target: BlockBackend,
  terminal: Terminal,
): Promise<void> {
  if (source === undefined || name === undefined) return;
  const onSkipped = (bitmap: string): void => {
    terminal.err(`${terminal.programName}: warning: Skipping inconsistent bitmap '${bitmap}'\n`);
  };
  const { snapshot, ...openImageItself } = open;
  const image = snapshot === undefined ? source : await openSource(name, openImageItself);
  try {
    const anyLength = image !== source && source.lengthBytes === target.lengthBytes;
    await copyBitmaps(image, target, { skipBroken, onSkipped, anyLength });
  } finally {
    if (image !== source) await image.close();
  }
}

/** What went wrong, without the engine's remark that the target is incomplete: its fate is told here. */
function reasonOf(error: unknown): string {
  const isRemark =
    error instanceof BlockError && error.op === "convert" && error.cause !== undefined;
  return describeError(isRemark ? error.cause : error);
}

async function openTarget(
  words: ConvertWords,
  totalBytes: number,
  terminal: Terminal,
): Promise<ConvertTarget> {
  const cache = words.targetCache;
  const { target, compressionLevel } = words;
  const node =
    compressionLevel === undefined
      ? {}
      : { nodeOptions: { "compression-level": compressionLevel } };
  if (words.noCreate) {
    const options: ExistingTargetOptions = {
      drivers: DRIVERS,
      cache,
      imageOpts: words.targetImageOpts,
      signal: terminal.signal,
      ...node,
      ...(words.targetImageOpts ? {} : { format: words.targetFormat }),
    };
    return await whileOpening(target, () => ConvertTarget.existing(target, options));
  }
  refuseFormat(words);
  const options: NewTargetOptions = {
    drivers: DRIVERS,
    filename: target,
    format: words.targetFormat,
    sizeBytes: targetSize(words, totalBytes),
    options: withoutSize(words.createOptions),
    cache,
    signal: terminal.signal,
    ...node,
    ...(words.backing === undefined ? {} : { backing: words.backing }),
  };
  const what = `error while converting ${words.targetFormat}: `;
  return await whileMaking(target, what, () => ConvertTarget.create(options));
}

/** Said before anything is made. Of the formats here only qcow2 has compressed clusters and bitmaps. */
function refuseFormat({ bitmaps, compressed, targetFormat, createOptions }: ConvertWords): void {
  if (!DRIVERS.some(({ name }) => name === targetFormat)) {
    throw new UsageError(`Unknown file format '${targetFormat}'`);
  }
  if (bitmaps && targetFormat !== "qcow2") {
    throw new UsageError(targetLacksBitmaps({ targetFormat }));
  }
  if (compressed && targetFormat !== "qcow2") {
    throw new UsageError("Compression not supported for this file format");
  }
  if (compressed && (createOptions["preallocation"] ?? "off") !== "off") {
    throw new UsageError("Compression and preallocation not supported at the same time");
  }
}

function targetSize({ createOptions }: ConvertWords, totalBytes: number): number {
  const asked = createOptions["size"];
  if (asked === undefined) return totalBytes;
  const bytes = sizeWord(asked);
  if (bytes >= totalBytes) return bytes;
  throw new UsageError(`size=${asked} is smaller than the input's ${totalBytes} bytes`);
}

function withoutSize(options: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const { size: _, ...rest } = options;
  return rest;
}

function targetBackingOf(words: ConvertWords, target: BlockBackend): TargetBacking | undefined {
  if (words.backing === undefined) return undefined;
  return { lengthBytes: target.root.backing?.lengthBytes ?? 0 };
}
