/** Sizes in bytes, and the way qemu-img reads and writes them. */
import { BlockError } from "./errors.js";

export const KiB = 1024;
export const MiB: number = 1024 * KiB;
export const GiB: number = 1024 * MiB;
export const TiB: number = 1024 * GiB;
export const PiB: number = 1024 * TiB;

/** The traditional unit of disks; qcow2 and qemu-img still round image sizes up to it. */
export const SECTOR_SIZE_BYTES = 512;

const SUFFIX_EXPONENT: Readonly<Record<string, number>> = {
  b: 0,
  k: 1,
  m: 2,
  g: 3,
  t: 4,
  p: 5,
  e: 6,
};
const SIZE_PATTERN = /^(\d+(?:\.\d+)?|\.\d+|0x[0-9a-f]+)([bkmgtpe])?$/i;

/**
 * Reads a size as qemu-img does: a number of bytes, with an optional binary suffix
 * (`b k m g t p e`, either case) and an optional fraction (`1.5G`).
 *
 * @param text - the user's words
 * @returns the size in bytes, a safe integer; fractions of a byte are cut off
 * @throws BlockError `EINVAL` when the text is no size; `ERANGE` when it is above 2^53 - 1
 * @example parseSize("64k") // 65536
 */
export function parseSize(text: string): number {
  const match = SIZE_PATTERN.exec(text.trim());
  if (match === null) throw new BlockError("EINVAL", `'${text}' is not a size`);
  const exponent = SUFFIX_EXPONENT[(match[2] ?? "b").toLowerCase()] ?? 0;
  const bytes = Math.floor(Number(match[1]) * 1024 ** exponent);
  if (!Number.isSafeInteger(bytes)) {
    throw new BlockError("ERANGE", `size '${text}' is above 2^53 - 1 bytes`);
  }
  return bytes;
}

/**
 * A size for people, in three significant digits: `64 KiB`, `1.5 GiB`, `196 KiB`.
 *
 * @param bytes - a size in bytes, not negative
 * @example formatSize(1.5 * GiB) // "1.5 GiB"
 */
export function formatSize(bytes: number): string {
  const suffixes = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let exponent = 0;
  let value = bytes;
  while (value >= 1000 && exponent < suffixes.length - 1) {
    value /= 1024;
    exponent++;
  }
  return `${Number(value.toPrecision(3))} ${suffixes[exponent]}`;
}
