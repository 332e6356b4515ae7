/** Numbers as `blk io` reads and prints them, which is as qemu-io does. */
import { BlockError, parseSize } from "@blocklayer/bytes";
import { fixedText } from "../output/percent.js";
import { CommandError } from "./errors.js";

/** The longest request of one command: the largest number of whole sectors below 2 GiB. */
export const MAX_REQUEST_BYTES: number = 2 ** 31 - 512;

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] as const;

/** A size or an offset: `512`, `64k`, `1.5M`, `0x200`. */
export function sizeOf(word: string): number {
  try {
    if (word.startsWith(".")) throw new BlockError("EINVAL", `'${word}' begins with no digit`);
    return parseSize(word);
  } catch (error) {
    if (error instanceof BlockError && error.code === "ERANGE") {
      throw new CommandError(`Parsing error: argument too large -- ${word}`);
    }
    throw new CommandError(
      `Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${word}`,
    );
  }
}

/** The length of one request. */
export function requestLengthOf(word: string, hint = ""): number {
  const length = sizeOf(word);
  if (length <= MAX_REQUEST_BYTES) return length;
  throw new CommandError(`length cannot exceed ${MAX_REQUEST_BYTES}${hint}, given ${word}`);
}

/** A byte: decimal, `0x` and hexadecimal, or `0` and octal. */
export function patternOf(word: string): number {
  const value = /^0[0-7]+$/.test(word)
    ? Number.parseInt(word, 8)
    : /^(?:0|[1-9]\d*|0[xX][0-9a-fA-F]+)$/.test(word)
      ? Number(word)
      : Number.NaN;
  if (value >= 0 && value <= 0xff) return value;
  throw new CommandError(`${word} is not a valid pattern byte`);
}

/** `64 KiB`, `1.500 MiB`, `512 bytes`: three digits behind the point, or none. */
export function sizeText(value: number): string {
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit++;
  }
  const digits = unit === 0 ? scaled.toFixed(6) : fixedText(scaled, 3);
  return `${digits.replace(/\.0+$/, "")} ${UNITS[unit]}`;
}
