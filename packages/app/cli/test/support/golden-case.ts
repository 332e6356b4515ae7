/** One command line of the golden table, and what may differ. */

/** Where blk's answer is not qemu-img's on purpose. */
export interface Difference {
  /** The reason, for whoever reads the table. */
  readonly why: string;
  /** blk's exit status, where that differs as well. */
  readonly status?: number;
  /** What blk's message holds. */
  readonly stderr?: RegExp;
  /** What blk prints. */
  readonly stdout?: RegExp;
}

export interface GoldenCase {
  readonly words: readonly string[];
  readonly differs?: Difference;
  /** The file that the command makes; both programs' must hold the same: every byte, or the same disk. */
  readonly makes?: string;
  readonly alike?: "bytes" | "disk";
  /** Dates and durations in the output need not be the same. */
  readonly hidesDates?: boolean;
}

/** `line("info -f qcow2 a")`: words that hold no blanks. */
export function line(words: string, more: Omit<GoldenCase, "words"> = {}): GoldenCase {
  return { words: words.split(" "), ...more };
}
