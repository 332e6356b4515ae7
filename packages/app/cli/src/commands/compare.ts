/** `blk compare`: do two images hold the same disk? */
import type { BlockBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/bytes";
import {
  compareImages,
  type CompareResult,
  openImage,
  type OpenImageOptions,
} from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { describeError } from "../describe-error.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { Progress } from "../output/progress.js";
import type { Terminal } from "../terminal.js";

/** What the exit status tells, as in qemu-img's manual. */
const EXIT = { identical: 0, different: 1, cannotOpen: 2, cannotMap: 3, cannotRead: 4 } as const;

export async function compare(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    ...COMMON_OPTIONS,
    "second-format": { type: "string", short: "F" },
    "source-cache": { type: "string", short: "T" },
    progress: { type: "boolean", short: "p" },
    strict: { type: "boolean", short: "s" },
  });
  const [first, second, ...rest] = positionals;
  if (first === undefined || second === undefined || rest.length > 0) {
    throw new UsageError("Expecting two image file names", true);
  }
  let options: OpenImageOptions;
  try {
    options = openOptions(values, terminal);
  } catch (error) {
    // Status 1 would say that the images differ.
    terminal.err(`${terminal.programName}: ${describeError(error)}\n`);
    return EXIT.cannotOpen;
  }
  const { format: _, ...withoutFormat } = options;
  const secondFormat = values["second-format"];
  const secondOptions =
    secondFormat === undefined ? withoutFormat : { ...withoutFormat, format: secondFormat };
  let a: BlockBackend | undefined;
  let b: BlockBackend | undefined;
  try {
    a = await whileOpening(first, () => openImage(first, options));
    b = await whileOpening(second, () => openImage(second, secondOptions));
  } catch (error) {
    await a?.close();
    terminal.err(`${terminal.programName}: ${describeError(error)}\n`);
    return EXIT.cannotOpen;
  }
  try {
    return await compareOpen(a, b, values, terminal);
  } finally {
    await a.close();
    await b.close();
  }
}

interface CompareWords {
  readonly quiet?: boolean | undefined;
  readonly progress?: boolean | undefined;
  readonly strict?: boolean | undefined;
}

async function compareOpen(
  a: BlockBackend,
  b: BlockBackend,
  words: CompareWords,
  terminal: Terminal,
): Promise<number> {
  const quiet = words.quiet === true;
  const progress = new Progress(terminal, words.progress === true && !quiet);
  try {
    const result = await compareImages(a, b, {
      strict: words.strict === true,
      signal: terminal.signal,
      onProgress: progress.update,
    });
    if (result.kind === "identical") progress.finish();
    if (!quiet) terminal.out(sentences(result));
    progress.end();
    return result.kind === "identical" ? EXIT.identical : EXIT.different;
  } catch (error) {
    terminal.err(`${terminal.programName}: ${describeError(error)}\n`);
    const mapping = error instanceof BlockError && error.op === "block status";
    return mapping ? EXIT.cannotMap : EXIT.cannotRead;
  }
}

function sentences(result: CompareResult): string {
  switch (result.kind) {
    case "identical":
      return `${sizeWarning(result.sizesDiffer)}Images are identical.\n`;
    case "content-mismatch":
      return `${sizeWarning(result.sizesDiffer)}Content mismatch at offset ${result.offset}!\n`;
    case "size-mismatch":
      return "Strict mode: Image size mismatch!\n";
    case "allocation-mismatch":
      return `Strict mode: Offset ${result.offset} block status mismatch!\n`;
  }
}

function sizeWarning(sizesDiffer: boolean): string {
  return sizesDiffer ? "Warning: Image size mismatch!\n" : "";
}
