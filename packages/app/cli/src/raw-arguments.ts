/**
 * The words of the command line, also those that are no UTF-8.
 *
 * Node replaces what it cannot decode, so that a name would be that of another file. Linux keeps the bytes.
 */
import { readFileSync } from "node:fs";
import { decodeName } from "@blocklayer/bytes";

const REPLACEMENT = "\ufffd";

/** The words behind the program's name. A word that Node spoilt and the system does not keep stays as it is. */
export function rawArguments(): readonly string[] {
  const words = process.argv.slice(2);
  if (!words.some((word) => word.includes(REPLACEMENT))) return words;
  try {
    const all = readFileSync("/proc/self/cmdline").toString("latin1").split("\0").slice(0, -1);
    return all.slice(-words.length).map((word) => decodeName(Buffer.from(word, "latin1")));
  } catch {
    return words;
  }
}
