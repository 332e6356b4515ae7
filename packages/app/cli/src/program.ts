/**
 * From words to a command, and from a failure to one line and an exit status.
 *
 * Commands load when they are called: `blk info` does not pay for the copy engine.
 */
import { describeError } from "./describe-error.js";
import { HELP_HINT, helpText } from "./help.js";
import { UsageError } from "./command-line.js";
import type { Command, Terminal } from "./terminal.js";
import { VERSION } from "./version.js";

const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  amend: async () => (await import("./commands/amend.js")).amend,
  bench: async () => (await import("./commands/bench.js")).bench,
  bitmap: async () => (await import("./commands/bitmap.js")).bitmap,
  check: async () => (await import("./commands/check.js")).check,
  commit: async () => (await import("./commands/commit.js")).commit,
  compare: async () => (await import("./commands/compare.js")).compare,
  convert: async () => (await import("./commands/convert.js")).convert,
  create: async () => (await import("./commands/create.js")).create,
  info: async () => (await import("./commands/info.js")).info,
  io: async () => (await import("./commands/io.js")).io,
  map: async () => (await import("./commands/map.js")).map,
  snapshot: async () => (await import("./commands/snapshot.js")).snapshot,
  measure: async () => (await import("./commands/measure.js")).measure,
  rebase: async () => (await import("./commands/rebase.js")).rebase,
  resize: async () => (await import("./commands/resize.js")).resize,
};

/** qemu-img's words that this version does not know: said so, rather than "not found". */
const LATER = ["dd"] as const;

/**
 * Runs one command line.
 *
 * @param words - without the program's own name
 * @returns the exit status
 */
export async function run(words: readonly string[], terminal: Terminal): Promise<number> {
  try {
    return await dispatch(words, terminal);
  } catch (error) {
    const { programName } = terminal;
    if (error instanceof UsageError) {
      terminal.err(`${programName}: ${error.message}\n`);
      if (error.hint) terminal.err(`${HELP_HINT(programName)}\n`);
      return 1;
    }
    terminal.err(`${programName}: ${describeError(error)}\n`);
    return 1;
  }
}

async function dispatch(words: readonly string[], terminal: Terminal): Promise<number> {
  const [name, ...args] = words;
  if (name === undefined) throw new UsageError("Not enough arguments", true);
  if (name === "-h" || name === "--help") {
    terminal.out(helpText(terminal.programName));
    return 0;
  }
  if (name === "-V" || name === "--version") {
    terminal.out(`${terminal.programName} version ${VERSION} (blocklayer)\n`);
    return 0;
  }
  if (name.startsWith("-")) throw new UsageError(`unrecognized option '${name}'`, true);
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) {
    const later = (LATER as readonly string[]).includes(name);
    throw new UsageError(
      later ? `Command '${name}' is not supported by this version` : `Command not found: ${name}`,
      true,
    );
  }
  if (args.includes("--help") || args.includes("-h")) {
    terminal.out(helpText(terminal.programName));
    return 0;
  }
  const command = await load();
  return command(args, terminal);
}
