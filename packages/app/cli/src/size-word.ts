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

/**
 * A size as a named parameter, which qemu-img reads more strictly: a fraction needs a unit. A plus in front is allowed.
 *
 * @throws UsageError in qemu-img's words
 */
export function sizeOptionWord(text: string, name: string): number {
  const plain = text.startsWith("+") ? text.slice(1) : text;
  try {
    if (!/^\d*\.\d+$/.test(plain)) return parseSize(plain);
  } catch (error) {
    if (error instanceof BlockError && error.code === "ERANGE") {
      throw new UsageError(`Parameter '${name}': '${text}' is more than 8 PiB - 1`);
    }
  }
  throw new UsageError(
    `Parameter '${name}' expects a non-negative number below 2^64. Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta- and exabytes, respectively.`,
  );
}
