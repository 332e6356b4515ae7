/** How a command of `blk io` says that it failed. */
import { BlockError, ERRNO_TEXT, errnoText } from "@blocklayer/bytes";
import { describeError } from "../describe-error.js";

/** A command cannot be carried out as it was written. `message` goes to the output, as one line. */
export class CommandError extends Error {
  /** A line for the error stream, before the message. */
  readonly complaint: string | undefined;

  constructor(message: string, complaint?: string) {
    super(message);
    this.name = "CommandError";
    this.complaint = complaint;
  }
}

/** The same, for the error stream. */
export class ReportedError extends Error {
  /** The program's name goes before it. */
  readonly isNamed: boolean;

  constructor(message: string, isNamed = false) {
    super(message);
    this.name = "ReportedError";
    this.isNamed = isNamed;
  }
}

/**
 * The reason of a failed request: the C library's words for an errno, and our own where there is none, as for
 * broken metadata.
 *
 * @throws what is no failure of a request: an interruption, a bug of ours
 */
export function reasonOf(error: unknown): string {
  if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
  return Object.hasOwn(ERRNO_TEXT, error.code) ? errnoText(error.code) : describeError(error);
}

/** The whole story in one line, where qemu-io tells it too: opening, reopening, setting the length. */
export function storyOf(error: unknown): string {
  if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
  return describeError(error);
}
