/** What a command may touch of the outside: three streams, a name, and a signal to stop. Tests give their own. */
export interface Terminal {
  /** The name that the program was called by: `blk`, or `qemu-img` through a link. */
  readonly programName: string;
  out(text: string): void;
  err(text: string): void;
  /** The lines of the standard input, as they come. */
  lines(): AsyncIterable<string>;
  /** Aborted by Ctrl-C and its like. */
  readonly signal: AbortSignal;
}

/** One command of the tool. Resolves to the exit status. */
export type Command = (args: readonly string[], terminal: Terminal) => Promise<number>;
