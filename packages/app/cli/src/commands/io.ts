/** `blk io`: reads, writes, and breaks into the work on an image, in qemu-io's words. */
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { describeError } from "../describe-error.js";
import { ReportedError } from "../io/errors.js";
import { cacheModeOf, ignoresDiscardOf, openOrReport } from "../io/opening.js";
import { runLine } from "../io/runner.js";
import { IoSession } from "../io/session.js";
import type { Terminal } from "../terminal.js";

const OPTIONS = {
  help: COMMON_OPTIONS.help,
  format: COMMON_OPTIONS.format,
  object: COMMON_OPTIONS.object,
  "image-opts": COMMON_OPTIONS["image-opts"],
  "force-share": COMMON_OPTIONS["force-share"],
  cmd: { type: "string", short: "c", multiple: true },
  "read-only": { type: "boolean", short: "r" },
  snapshot: { type: "boolean", short: "s" },
  nocache: { type: "boolean", short: "n" },
  cache: { type: "string", short: "t" },
  discard: { type: "string", short: "d" },
  "copy-on-read": { type: "boolean", short: "C" },
  misalign: { type: "boolean", short: "m" },
  "native-aio": { type: "boolean", short: "k" },
  aio: { type: "string", short: "i" },
  trace: { type: "string", short: "T" },
} as const;

type Values = ReturnType<typeof parseWords<typeof OPTIONS>>["values"];

export async function io(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, OPTIONS);
  refuseMissing(values);
  const [name, ...more] = positionals;
  if (more.length > 0) throw new UsageError("Expecting one image file name", true);
  const session = new IoSession(terminal);
  let isFailed = false;
  try {
    if (name !== undefined) await openFirst(session, name, values);
    for await (const line of linesOf(values.cmd, terminal)) {
      if (terminal.signal.aborted) break;
      const result = await runLine(line, session);
      if (result === "failed") isFailed = true;
      if (result === "quit") break;
    }
  } finally {
    isFailed = !(await closed(session)) || isFailed;
  }
  return isFailed || terminal.signal.aborted ? 1 : 0;
}

async function openFirst(session: IoSession, name: string, values: Values): Promise<void> {
  const imageOpts = values["image-opts"] === true;
  if (imageOpts && values.format !== undefined) {
    throw new UsageError("--image-opts and -f are mutually exclusive");
  }
  const cache = values.cache ?? (values.nocache === true ? "none" : undefined);
  try {
    if (cache !== undefined) cacheModeOf(cache);
    const ignoresDiscard = ignoresDiscardOf(values.discard);
    await openOrReport(session, name, {
      source: name,
      imageOpts,
      format: values.format,
      readOnly: values["read-only"] === true,
      snapshot: values.snapshot === true,
      cache,
      ignoresDiscard,
      forceShare: values["force-share"] === true,
      nodeOptions: {},
    });
  } catch (error) {
    throw error instanceof ReportedError ? new UsageError(error.message) : error;
  }
}

/** What the user wants run: each `-c`, or the lines of the standard input behind a prompt. */
async function* linesOf(
  commands: readonly string[] | undefined,
  terminal: Terminal,
): AsyncGenerator<string> {
  if (commands !== undefined) {
    yield* commands;
    return;
  }
  const prompt = `${terminal.programName}> `;
  terminal.out(prompt);
  for await (const line of terminal.lines()) {
    yield line;
    terminal.out(prompt);
  }
}

/** Closes what is open. A failure is told. @returns whether there was none */
async function closed(session: IoSession): Promise<boolean> {
  const { terminal } = session;
  try {
    await session.close();
    return true;
  } catch (error) {
    terminal.err(`${terminal.programName}: ${describeError(error)}\n`);
    return false;
  }
}

/** @throws UsageError for what this version does not do */
function refuseMissing(values: Values): void {
  const missing = {
    "--object": values.object,
    "-C": values["copy-on-read"],
    "-m": values.misalign,
    "-k": values["native-aio"],
    "-i": values.aio,
    "-T": values.trace,
  };
  for (const [option, value] of Object.entries(missing)) {
    if (value !== undefined) {
      throw new UsageError(`io: ${option} is not supported by this version`);
    }
  }
}
