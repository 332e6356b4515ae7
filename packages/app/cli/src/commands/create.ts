/** `blk create`: an empty image. */
import {
  createImage,
  type CreateImageOptions,
  type CreatePlan,
  parseOptionString,
} from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileMaking } from "../naming.js";
import { optionHelp } from "../option-help.js";
import { sizeWord } from "../size-word.js";
import { DRIVERS } from "../registry.js";
import type { Terminal } from "../terminal.js";

export async function create(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    help: COMMON_OPTIONS.help,
    object: COMMON_OPTIONS.object,
    format: COMMON_OPTIONS.format,
    quiet: COMMON_OPTIONS.quiet,
    options: { type: "string", short: "o", multiple: true },
    backing: { type: "string", short: "b" },
    "backing-format": { type: "string", short: "F" },
    "unsafe-backing": { type: "boolean", short: "u" },
  });
  const format = values.format ?? "raw";
  const options = parseOptionString(values.options ?? []);
  if ("help" in options) {
    terminal.out(optionHelp(format, positionals[0]));
    return 0;
  }
  const [filename, size, ...rest] = positionals;
  if (filename === undefined) throw new UsageError("Expecting image file name", true);
  if (rest[0] !== undefined) throw new UsageError(`Unexpected argument: ${rest[0]}`, true);
  const backingFile = values.backing ?? options["backing_file"];
  const backingFormat = values["backing-format"] ?? options["backing_fmt"];
  if (backingFile === undefined && backingFormat !== undefined) {
    throw new UsageError(`${filename}: Backing format cannot be used without backing file`);
  }
  const sizeBytes = size === undefined ? undefined : sizeWord(size);
  const plan: CreateImageOptions = {
    drivers: DRIVERS,
    filename,
    format,
    options,
    unsafeNoBackingCheck: values["unsafe-backing"] === true,
    signal: terminal.signal,
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(backingFile === undefined
      ? {}
      : {
          backing: {
            filename: backingFile,
            ...(backingFormat === undefined ? {} : { format: backingFormat }),
          },
        }),
    onFormatting: (plan) => {
      if (values.quiet !== true) terminal.out(formattingLine(plan));
    },
  };
  await whileMaking(filename, "", () => createImage(plan));
  return 0;
}

/** `Formatting 'disk.qcow2', fmt=qcow2 cluster_size=65536 …`. Numbers are bytes, switches are on or off. */
function formattingLine(plan: CreatePlan): string {
  const words = plan.options.map(([name, value]) => {
    if (typeof value === "boolean") return `${name}=${value ? "on" : "off"}`;
    return `${name}=${String(value).replaceAll(",", ",,")}`;
  });
  return `Formatting '${plan.filename}', fmt=${plan.format} ${words.join(" ")}\n`;
}
