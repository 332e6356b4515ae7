/** `open`, `close`, `reopen`. */
import type { IoCommand } from "./command.js";
import { usageOf } from "./command.js";
import type { CommandWords } from "./command-words.js";
import { CommandError, ReportedError, storyOf } from "./errors.js";
import { type CacheMode, parseCacheMode } from "@blocklayer/image";
import { parseImageOptions } from "@blocklayer/block-graph";
import type { IoSession } from "./session.js";

const UNLIMITED = Number.POSITIVE_INFINITY;

const OPEN: IoCommand = {
  name: "open",
  alias: "o",
  args: "[-rsnU] [-t cache] [-d discard] [-o options] [path]",
  help: "open an image",
  letters: "rsnUt:d:o:Cki:",
  leastWords: 1,
  mostWords: UNLIMITED,
  isGlobal: true,
  async run(words, session) {
    refuseMissing(words);
    const cache = words.value("t") ?? (words.has("n") ? "none" : undefined);
    if (cache !== undefined) cacheModeOf(cache);
    const ignoresDiscard = ignoresDiscardOf(words.value("d"));
    const [path, more] = words.operands;
    const options = parseImageOptions(words.value("o") ?? "");
    if (more !== undefined || (path === undefined && !words.has("o")))
      throw new CommandError(usageOf(OPEN));
    if (session.isOpen) throw new ReportedError("file open already, try 'help close'", true);
    const { driver, ...rest } = options;
    await openOrReport(session, path ?? "", {
      ...(path === undefined
        ? { source: options, format: undefined, nodeOptions: {} }
        : { source: path, format: driver, nodeOptions: rest }),
      imageOpts: false,
      readOnly: words.has("r"),
      snapshot: words.has("s"),
      cache,
      ignoresDiscard,
      forceShare: words.has("U"),
    });
    return true;
  },
};

const CLOSE: IoCommand = {
  name: "close",
  alias: "c",
  args: "",
  help: "close the image",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  async run(_, session) {
    // Nothing is open any more, whatever becomes of the close: without one to close this throws.
    session.image.release();
    try {
      await session.close();
    } catch (error) {
      throw new ReportedError(storyOf(error), true);
    }
    return true;
  },
};

const REOPEN: IoCommand = {
  name: "reopen",
  args: "[(-r|-w)] [-c cache] [-o options]",
  help: "change how the image is open",
  letters: "c:o:rw",
  leastWords: 0,
  mostWords: UNLIMITED,
  async run(words, session) {
    if (words.operands.length > 0) throw new CommandError(usageOf(REOPEN));
    if (words.has("r") && words.has("w")) {
      throw new ReportedError("Only one -r/-w option may be given", true);
    }
    const { image } = session;
    const cache = words.value("c");
    const mode = cache === undefined ? undefined : cacheModeOf(cache);
    if (mode !== undefined && (mode.direct || mode.noFlush)) {
      throw new ReportedError(
        `reopen -c ${cache} is not supported by this version: close, and open -t ${cache}`,
        true,
      );
    }
    const options = parseImageOptions(words.value("o") ?? "");
    try {
      await image.reopen({
        options: options as Readonly<Record<string, unknown>>,
        ...(words.has("r") || words.has("w") ? { readOnly: words.has("r") } : {}),
      });
    } catch (error) {
      throw new ReportedError(storyOf(error), true);
    }
    if (mode !== undefined) image.writethrough = mode.writethrough;
    return true;
  },
};

export const OPEN_COMMANDS: readonly IoCommand[] = [OPEN, CLOSE, REOPEN];

/** Opens the session's image, or says in one line why not. */
export async function openOrReport(
  session: IoSession,
  name: string,
  options: Parameters<IoSession["open"]>[0],
): Promise<void> {
  try {
    await session.open(options);
  } catch (error) {
    const what = typeof options.source === "string" && !options.imageOpts ? ` device ${name}` : "";
    throw new ReportedError(`can't open${what}: ${storyOf(error)}`, true);
  }
}

/** @throws ReportedError for a word that is no cache mode */
export function cacheModeOf(word: string): CacheMode {
  try {
    return parseCacheMode(word);
  } catch {
    throw new ReportedError(`Invalid cache option: ${word}`, true);
  }
}

/** Whether a word of `-d` says that discards do nothing. @throws ReportedError for one that is none */
export function ignoresDiscardOf(word: string | undefined): boolean {
  if (word === undefined || word === "unmap" || word === "on") return false;
  if (word === "ignore" || word === "off") return true;
  throw new ReportedError(`Invalid discard option: ${word}`, true);
}

/** @throws ReportedError */
function refuseMissing(words: CommandWords): void {
  for (const letter of ["C", "k", "i"]) {
    if (!words.has(letter)) continue;
    throw new ReportedError(`open -${letter} is not supported by this version`, true);
  }
}
