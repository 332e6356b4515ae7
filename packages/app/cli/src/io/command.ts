/** What a command of `blk io` is. */
import type { CommandWords, OptionLetters } from "./command-words.js";
import type { IoSession } from "./session.js";

export interface IoCommand {
  readonly name: string;
  readonly alias?: string;
  /** The words it takes, for the help. */
  readonly args: string;
  /** What it does, in one line. */
  readonly help: string;
  /** For getopt. */
  readonly letters: OptionLetters;
  /** How many words it takes, options among them. */
  readonly leastWords: number;
  readonly mostWords: number;
  /** It works without an image. */
  readonly isGlobal?: boolean;
  /** It is refused when the image is read-only. */
  readonly isChange?: boolean;
  /** @returns whether it went well */
  readonly run: (words: CommandWords, session: IoSession) => boolean | Promise<boolean>;
}

/** `read [-CPq] off len -- what it does`. */
export function usageOf({ name, args, help }: IoCommand): string {
  return `${name} ${args} -- ${help}`;
}
