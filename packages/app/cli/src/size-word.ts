/** A size as a word of the command line. */
import { BlockError, parseSize } from "@blocklayer/bytes";
import { UsageError } from "./command-line.js";

/**
 * @param what - what the size is of, for the message
 * @throws UsageError in qemu-img's words
 */
export function sizeWord(text: string, what = "image size"): number {
  try {
    return parseSize(text);
  } catch (error) {
    if (error instanceof BlockError && error.code === "ERANGE") {
      throw new UsageError(`Invalid ${what} specified: '${text}' is more than 8 PiB - 1`);
    }
    throw new UsageError(
      `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.`,
    );
  }
}
