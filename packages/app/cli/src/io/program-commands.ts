/** Commands that are about `blk io` itself: `help`, `quit`, `sleep`. */
import { BlockError } from "@blocklayer/bytes";
import { type IoCommand, usageOf } from "./command.js";
import { CommandError } from "./errors.js";

const MAX_SLEEP_MS = 2 ** 31 - 1;

/** @param commands - all there are, these among them */
export function programCommands(commands: () => readonly IoCommand[]): readonly IoCommand[] {
  const help: IoCommand = {
    name: "help",
    alias: "?",
    args: "[command]",
    help: "print what the commands do",
    letters: "",
    leastWords: 0,
    mostWords: 1,
    isGlobal: true,
    run(words, session) {
      const [name] = words.operands;
      if (name === undefined) {
        const lines = commands().map(usageOf).toSorted();
        session.print(`${lines.join("\n")}\n\nUse 'help commandname' for one of them.\n`);
        return true;
      }
      const command = commands().find((one) => one.name === name || one.alias === name);
      if (command === undefined) throw new CommandError(`command ${name} not found`);
      session.print(`${usageOf(command)}\n`);
      return true;
    },
  };
  return [QUIT, SLEEP, help];
}

/** The runner ends after it. */
export const QUIT: IoCommand = {
  name: "quit",
  alias: "q",
  args: "",
  help: "end the program",
  letters: "",
  leastWords: 0,
  mostWords: Number.POSITIVE_INFINITY,
  isGlobal: true,
  run: () => true,
};

const SLEEP: IoCommand = {
  name: "sleep",
  args: "milliseconds",
  help: "wait, while requests go on beside",
  letters: "",
  leastWords: 1,
  mostWords: 1,
  isGlobal: true,
  async run(words, { terminal }) {
    const [word = ""] = words.operands;
    const milliseconds = /^\d+$/.test(word) ? Number(word) : Number.NaN;
    if (!(milliseconds <= MAX_SLEEP_MS)) throw new CommandError(`${word} is not a valid number`);
    const { signal } = terminal;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener("abort", end);
    });
    if (terminal.signal.aborted) throw new BlockError("ECANCELED", "sleep was interrupted");
    return true;
  },
};
