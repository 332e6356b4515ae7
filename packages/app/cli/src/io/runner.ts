/**
 * Runs the commands of `blk io`, one after the other.
 *
 * Above: commands/io.ts. Below: the commands.
 *
 * 1. A command that fails is told, and the next one runs. The exit status tells whether one failed.
 * 2. Between two commands the event loop turns, so that requests beside them go on.
 * 3. A command whose own request is parked waits until it is interrupted, as with qemu-io: nobody can resume it.
 */
import { splitWords, readOptions } from "./command-words.js";
import { BREAK_COMMANDS } from "./breakpoints.js";
import { type IoCommand, usageOf } from "./command.js";
import { DISK_COMMANDS } from "./disk.js";
import { CommandError, ReportedError } from "./errors.js";
import { OPEN_COMMANDS } from "./opening.js";
import { programCommands, QUIT } from "./program-commands.js";
import { READ_COMMANDS } from "./reading.js";
import type { IoSession } from "./session.js";
import { WRITE_COMMANDS } from "./writing.js";

const COMMANDS: readonly IoCommand[] = [
  ...READ_COMMANDS,
  ...WRITE_COMMANDS,
  ...DISK_COMMANDS,
  ...OPEN_COMMANDS,
  ...BREAK_COMMANDS,
  ...programCommands(() => COMMANDS),
];

/** A timer that only keeps the process from ending while a request is parked. */
const KEEP_ALIVE_MS = 2 ** 30;

/** What became of one line. */
export type LineResult = "done" | "failed" | "quit";

/**
 * Runs one line.
 *
 * @throws what is no failure of a command: an interruption, a bug of ours
 */
export async function runLine(line: string, session: IoSession): Promise<LineResult> {
  const words = splitWords(line);
  const [name, ...args] = words;
  if (name === undefined) return "done";
  const keepAlive = setInterval(() => undefined, KEEP_ALIVE_MS);
  const release = (): void => {
    if (session.isOpen) session.image.release();
  };
  const { signal } = session.terminal;
  signal.addEventListener("abort", release);
  try {
    const isRight = await runCommand(name, args, session);
    await new Promise((resolve) => setImmediate(resolve));
    session.throwFailed();
    if (isQuit(name)) return "quit";
    return isRight ? "done" : "failed";
  } finally {
    signal.removeEventListener("abort", release);
    clearInterval(keepAlive);
  }
}

async function runCommand(
  name: string,
  args: readonly string[],
  session: IoSession,
): Promise<boolean> {
  const { terminal } = session;
  try {
    const command = COMMANDS.find((one) => one.name === name || one.alias === name);
    if (command === undefined) throw new ReportedError(`command "${name}" not found`);
    checkCall(command, args.length, session);
    const words = readOptions(command.name, args, command.letters, usageOf(command));
    return await command.run(words, session);
  } catch (error) {
    if (error instanceof CommandError) {
      if (error.complaint !== undefined) terminal.err(`${error.complaint}\n`);
      terminal.out(`${error.message}\n`);
      return false;
    }
    if (error instanceof ReportedError) {
      terminal.err(`${error.isNamed ? `${terminal.programName}: ` : ""}${error.message}\n`);
      return false;
    }
    throw error;
  }
}

/** @throws ReportedError */
function checkCall(command: IoCommand, count: number, session: IoSession): void {
  if (command.isGlobal !== true) void session.image;
  const { name, leastWords, mostWords } = command;
  if (count < leastWords || count > mostWords) {
    const range =
      mostWords === Number.POSITIVE_INFINITY
        ? `at least ${leastWords}`
        : leastWords === mostWords
          ? String(leastWords)
          : `between ${leastWords} and ${mostWords}`;
    throw new ReportedError(`bad argument count ${count} to ${name}, expected ${range} arguments`);
  }
  if (command.isChange === true && session.image.backend.readOnly) {
    throw new ReportedError("Block node is read-only", true);
  }
}

function isQuit(name: string): boolean {
  return name === QUIT.name || name === QUIT.alias;
}
