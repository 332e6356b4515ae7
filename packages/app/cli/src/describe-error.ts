/** An error as one line for people. A bug of ours keeps its stack, since whoever reports it needs it. */
import { AssertionError, BlockError, errnoText } from "@blocklayer/bytes";
import { UsageError } from "./command-line.js";

/**
 * @param error - whatever was thrown
 * @returns one line, except for a bug of ours
 */
export function describeError(error: unknown): string {
  if (error instanceof UsageError) return error.message;
  if (error instanceof BlockError) return oneLine(error.message);
  // Closing failed as well, after what is to be told.
  if (error instanceof Error && "suppressed" in error) return describeError(error.suppressed);
  if (error instanceof AggregateError) return error.errors.map(describeError).join("; ");
  if (error instanceof Error && !(error instanceof AssertionError)) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== undefined && errnoText(code) !== code) return oneLine(error.message);
    if (error.name === "AbortError") return "interrupted";
  }
  const bug = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `internal error; please report it with this text:\n${bug}`;
}

function oneLine(message: string): string {
  return message.replaceAll(/([^\s.;:])\s*\n\s*/g, "$1. ").replaceAll(/\s*\n\s*/g, " ");
}
