/** `break`, `remove_break`, `resume`, `wait_break`: for images with a blkdebug node. */
import { BlockError } from "@blocklayer/bytes";
import { DEBUG_EVENTS, type DebugControl } from "@blocklayer/block-api";
import type { IoCommand } from "./command.js";
import { CommandError, reasonOf } from "./errors.js";
import type { IoSession } from "./session.js";

/** How often a wait looks whether it can still end well. */
const POLL_MS = 10;

const BREAK: IoCommand = {
  name: "break",
  args: "event tag",
  help: "park the next request that meets an event, under a tag",
  letters: "",
  leastWords: 2,
  mostWords: 2,
  run(words, session) {
    const [word = "", tag = ""] = words.operands;
    return attempt("Could not set breakpoint", () => {
      const control = controlOf(session);
      const event = DEBUG_EVENTS.find((one) => one === word);
      if (event === undefined) throw new BlockError("ENOENT", `event '${word}' is unknown`);
      control.breakpoint(event, tag);
    });
  },
};

const REMOVE_BREAK: IoCommand = {
  name: "remove_break",
  args: "tag",
  help: "take a breakpoint away, and let go what is parked there",
  letters: "",
  leastWords: 1,
  mostWords: 1,
  run(words, session) {
    const [tag = ""] = words.operands;
    return attempt(`Could not remove breakpoint ${tag}`, () =>
      controlOf(session).removeBreakpoint(tag),
    );
  },
};

const RESUME: IoCommand = {
  name: "resume",
  args: "tag",
  help: "let the request go on that is parked under a tag",
  letters: "",
  leastWords: 1,
  mostWords: 1,
  run(words, session) {
    const [tag = ""] = words.operands;
    return attempt("Could not resume request", () => controlOf(session).resume(tag));
  },
};

const WAIT_BREAK: IoCommand = {
  name: "wait_break",
  args: "tag",
  help: "wait until a request is parked under a tag",
  letters: "",
  leastWords: 1,
  mostWords: 1,
  async run(words, session) {
    const [tag = ""] = words.operands;
    const { signal } = session.terminal;
    const { image } = session;
    const control = image.debug;
    while (control?.isSuspended(tag) !== true) {
      if (control === undefined || image.runningCount === 0) {
        throw new CommandError(
          `Could not wait for request: no request runs that could be parked as '${tag}'`,
        );
      }
      if (signal.aborted) throw new BlockError("ECANCELED", "wait_break was interrupted");
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return true;
  },
};

export const BREAK_COMMANDS: readonly IoCommand[] = [BREAK, REMOVE_BREAK, RESUME, WAIT_BREAK];

/** @throws BlockError `ENOTSUP` when no node parks requests */
function controlOf(session: IoSession): DebugControl {
  const { debug } = session.image;
  if (debug !== undefined) return debug;
  throw new BlockError("ENOTSUP", "no node of the image parks requests");
}

function attempt(what: string, work: () => void): boolean {
  try {
    work();
  } catch (error) {
    throw new CommandError(`${what}: ${reasonOf(error)}`);
  }
  return true;
}
