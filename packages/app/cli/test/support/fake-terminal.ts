/** A terminal that keeps what it is told. */
import { run } from "../../src/program.js";
import type { Terminal } from "../../src/terminal.js";

export interface Transcript {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line in this process, as `blk`. */
export async function blk(
  words: readonly string[],
  given: Partial<Terminal> = {},
): Promise<Transcript> {
  let stdout = "";
  let stderr = "";
  const terminal: Terminal = {
    programName: "blk",
    out: (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
    lines: async function* () {},
    signal: new AbortController().signal,
    ...given,
  };
  const status = await run(words, terminal);
  return { status, stdout, stderr };
}
