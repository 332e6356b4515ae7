/** `blk resize`: a longer or a shorter disk. */
import type { PreallocationMode } from "@blocklayer/block-api";
import { openImage, resizeImage } from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileOpening } from "../naming.js";
import { writeOptions } from "../open-options.js";
import { sizeOptionWord } from "../size-word.js";
import type { Terminal } from "../terminal.js";

const MODES: readonly PreallocationMode[] = ["off", "metadata", "falloc", "full"];

export async function resize(args: readonly string[], terminal: Terminal): Promise<number> {
  const { help, format, object, "image-opts": imageOpts, quiet } = COMMON_OPTIONS;
  // The size comes last, and may begin with a minus: it is taken before options are looked for.
  const sizeText = args.at(-1);
  if (sizeText === undefined || args.length < 2) throw new UsageError("Not enough arguments", true);
  const { values, positionals } = parseWords(args.slice(0, -1), {
    help,
    format,
    object,
    "image-opts": imageOpts,
    quiet,
    preallocation: { type: "string" },
    shrink: { type: "boolean" },
  });
  const preallocation = modeOf(values.preallocation);
  const [filename, ...rest] = positionals;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError("Expecting image file name and size", true);
  }
  const change = sizeChange(sizeText);
  const options = writeOptions(values, terminal);
  await using disk = await whileOpening(filename, () => openImage(filename, options));
  const lengthBytes = change(disk.lengthBytes);
  if (
    lengthBytes > 0 &&
    lengthBytes < disk.lengthBytes &&
    preallocation === "off" &&
    !values.shrink
  ) {
    const { programName } = terminal;
    terminal.err(
      `${programName}: Use the --shrink option to perform a shrink operation.\n` +
        `${programName}: warning: Shrinking an image will delete all data beyond the shrunken image's end. ` +
        "Before performing such an operation, make sure there is no important data there.\n",
    );
    return 1;
  }
  await resizeImage(disk, {
    lengthBytes,
    preallocation,
    shrink: values.shrink === true,
    signal: terminal.signal,
  });
  if (values.quiet !== true) terminal.out("Image resized.\n");
  return 0;
}

function modeOf(word: string | undefined): PreallocationMode {
  if (word === undefined) return "off";
  const mode = MODES.find((one) => one === word);
  if (mode !== undefined) return mode;
  throw new UsageError(`Invalid preallocation mode '${word}'`);
}

/** `20G`, `+1G` or `-1G`: the new length, or what is added to the old one, or taken away. */
function sizeChange(text: string): (oldBytes: number) => number {
  const isRelative = text.startsWith("+") || text.startsWith("-");
  const bytes = sizeOptionWord(isRelative ? text.slice(1) : text, "size");
  if (!isRelative) return () => bytes;
  return (oldBytes) => (text.startsWith("+") ? oldBytes + bytes : oldBytes - bytes);
}
