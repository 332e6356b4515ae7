/**
 * Reads the words of one command, with node:util's parser and qemu-img's messages.
 *
 * Short options may be joined (`-cWp`), take their value with or without a space (`-m 16`, `-m16`), and stand
 * before, between or after the file names; `--` ends them.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** The command line makes no sense. `hint`: a second line tells where the help is. */
export class UsageError extends Error {
  readonly hint: boolean;

  constructor(message: string, hint = false) {
    super(message);
    this.name = "UsageError";
    this.hint = hint;
  }
}

type OptionsConfig = NonNullable<ParseArgsConfig["options"]>;
type Parsed<O extends OptionsConfig> = ReturnType<
  typeof parseArgs<{ args: string[]; options: O; allowPositionals: true; strict: true }>
>;

/**
 * @param args - what follows the command's name
 * @param options - as node:util's parseArgs takes them
 * @throws UsageError in qemu-img's words
 */
export function parseWords<O extends OptionsConfig>(
  args: readonly string[],
  options: O,
): Parsed<O> {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw usageErrorOf(error, options);
  }
}

function usageErrorOf(error: unknown, options: OptionsConfig): unknown {
  if (!(error instanceof Error) || !("code" in error)) return error;
  const [, named = ""] = /'([^']*)'/.exec(error.message) ?? [];
  if (error.code === "ERR_PARSE_ARGS_UNKNOWN_OPTION") {
    return new UsageError(`unrecognized option '${named}'`, true);
  }
  if (error.code === "ERR_PARSE_ARGS_INVALID_OPTION_VALUE") {
    // Node says "-f, --format <value>"; the user said one of the two.
    const short = /^-\w\b/.exec(named)?.[0];
    const long = /--[\w-]+/.exec(named)?.[0] ?? named;
    const takesValue = options[long.slice(2)]?.type === "string";
    if (takesValue) return new UsageError(`missing argument for option '${short ?? long}'`, true);
    return new UsageError(`option '${long}' does not take an argument`, true);
  }
  return error;
}

/** Options that several commands share; `object` is read so that the refusal can say why. */
export const COMMON_OPTIONS = {
  help: { type: "boolean", short: "h" },
  format: { type: "string", short: "f" },
  object: { type: "string", multiple: true },
  "image-opts": { type: "boolean" },
  quiet: { type: "boolean", short: "q" },
  "force-share": { type: "boolean", short: "U" },
} as const;

/** `--output=human|json`. */
export function outputFormat(value: string | undefined): "human" | "json" {
  if (value === undefined || value === "human") return "human";
  if (value === "json") return "json";
  throw new UsageError("--output must be used with human or json as argument.");
}

/**
 * Reads a number of a bounded range.
 *
 * @param message - what to say when it is not one
 */
export function boundedNumber(
  text: string,
  minimum: number,
  maximum: number,
  message: string,
): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum)) throw new UsageError(message);
  return value;
}

/** The one file name that a command takes. */
export function oneFilename(positionals: readonly string[]): string {
  const [filename, ...rest] = positionals;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError("Expecting one image file name", true);
  }
  return filename;
}
