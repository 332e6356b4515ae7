/** What the common options say about opening an image. */
import { type OpenImageOptions, parseCacheMode } from "@blocklayer/image";
import { UsageError } from "./command-line.js";
import { DRIVERS } from "./registry.js";
import type { Terminal } from "./terminal.js";

interface OpenWords {
  readonly format?: string | undefined;
  readonly object?: string[] | undefined;
  readonly "image-opts"?: boolean | undefined;
  readonly "force-share"?: boolean | undefined;
  readonly "source-cache"?: string | undefined;
}

/** @throws UsageError for what this version refuses, and in qemu-img's words for what makes no sense */
export function openOptions(words: OpenWords, terminal: Terminal): OpenImageOptions {
  if (words.object !== undefined) {
    throw new UsageError("--object is not supported by this version: it knows no encryption");
  }
  const imageOpts = words["image-opts"] === true;
  if (imageOpts && words.format !== undefined) {
    throw new UsageError("--image-opts and --format are mutually exclusive");
  }
  const cache = words["source-cache"];
  return {
    drivers: DRIVERS,
    imageOpts,
    forceShare: words["force-share"] === true,
    signal: terminal.signal,
    ...(words.format === undefined ? {} : { format: words.format }),
    ...(cache === undefined ? {} : { cache: cacheMode(cache, "source cache") }),
  };
}

/** As `openOptions`, for an image that is to be changed: a guest's raw disk gets qemu-img's warning. */
export function writeOptions(
  words: OpenWords & { readonly cache?: string | undefined },
  terminal: Terminal,
): OpenImageOptions {
  return {
    ...openOptions(words, terminal),
    readOnly: false,
    ...(words.cache === undefined ? {} : { cache: cacheMode(words.cache, "cache") }),
    onProbedRaw: (filename) => terminal.err(probedRawWarning(filename)),
  };
}

function probedRawWarning(filename: string): string {
  return (
    `WARNING: Image format was not specified for '${filename}' and probing guessed raw.\n` +
    "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n" +
    "         Specify the 'raw' format explicitly to remove the restrictions.\n"
  );
}

/** A cache mode as a word of the command line. */
export function cacheMode(word: string, what: string): NonNullable<OpenImageOptions["cache"]> {
  try {
    return parseCacheMode(word);
  } catch {
    throw new UsageError(`Invalid ${what} option: ${word}`);
  }
}
