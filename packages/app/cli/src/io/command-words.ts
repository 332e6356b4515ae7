/**
 * Reads one command of `blk io`: words between blanks, and options as C's getopt finds them.
 *
 * Above: runner.ts and the commands. Below: nothing.
 *
 * 1. Words are separated by blanks and nothing else: there are no quotes, and a tab is a character.
 * 2. Options stand anywhere, may be joined (`-zf`), and take their value with or without a blank. `--` ends them.
 */
import { CommandError } from "./errors.js";

/** Which letters a command knows; one with a colon behind it takes a value, as for getopt: `CqP:`. */
export type OptionLetters = string;

/** The words of one command, sorted out. */
export class CommandWords {
  readonly operands: readonly string[];
  readonly #flags: ReadonlySet<string>;
  readonly #values: ReadonlyMap<string, string>;

  constructor(
    operands: readonly string[],
    flags: ReadonlySet<string>,
    values: ReadonlyMap<string, string>,
  ) {
    this.operands = operands;
    this.#flags = flags;
    this.#values = values;
  }

  /** Whether the option was given. */
  has(letter: string): boolean {
    return this.#flags.has(letter) || this.#values.has(letter);
  }

  /** The option's value, the last one given. */
  value(letter: string): string | undefined {
    return this.#values.get(letter);
  }
}

/** The words of a line. */
export function splitWords(line: string): readonly string[] {
  return line.split(" ").filter((word) => word !== "");
}

/**
 * Sorts out the options of a command.
 *
 * @param usage - the command's line of help, for the message
 * @throws CommandError for a letter that the command does not know, or a value that is missing
 */
export function readOptions(
  name: string,
  words: readonly string[],
  letters: OptionLetters,
  usage: string,
): CommandWords {
  const operands: string[] = [];
  const flags = new Set<string>();
  const values = new Map<string, string>();
  const queue = [...words];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    if (word === "--") {
      operands.push(...queue);
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      operands.push(word);
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word.charAt(at);
      const known = letter === ":" ? -1 : letters.indexOf(letter);
      if (known < 0) throw new CommandError(usage, `${name}: invalid option -- '${letter}'`);
      if (letters.charAt(known + 1) !== ":") {
        flags.add(letter);
        continue;
      }
      const value = at + 1 < word.length ? word.slice(at + 1) : queue.shift();
      if (value === undefined) {
        throw new CommandError(usage, `${name}: option requires an argument -- '${letter}'`);
      }
      values.set(letter, value);
      break;
    }
  }
  return new CommandWords(operands, flags, values);
}
