/**
 * Reference counts as a refcount block stores them: 1, 2, 4, 8, 16, 32 or 64 bits each.
 *
 * Above: RefcountCache, and the check that builds its own blocks. Below: plain bytes.
 *
 * Counts narrower than a byte fill it from the least significant bit up; wider ones are big-endian.
 *
 * Source: qcow2 specification, "Host cluster management".
 */
import { assert, CorruptImageError, joinU64 } from "@blocklayer/bytes";

/** The widths that an image may choose, in bits. */
export type RefcountBits = 1 | 2 | 4 | 8 | 16 | 32 | 64;

const WIDTHS: readonly number[] = [1, 2, 4, 8, 16, 32, 64];

/** Whether a number of bits is one of the seven widths. */
export function isRefcountBits(bits: number): bits is RefcountBits {
  return WIDTHS.includes(bits);
}

/** The largest count that a width holds; 2^53 - 1 for 64 bits, since a count is a number here. */
export function maxRefcount(bits: RefcountBits): number {
  return bits === 64 ? Number.MAX_SAFE_INTEGER : 2 ** bits - 1;
}

/**
 * Reads a count.
 *
 * @param bytes - a refcount block, or a part of one
 * @param bits - the width of a count
 * @param index - of the count, from the start of `bytes`
 * @param hostOffset - of `bytes` in the file, for the error
 * @throws CorruptImageError when a 64-bit count is past 2^53 - 1
 * @example readRefcount(Uint8Array.of(0b1101_1000), 2, 1) // 0b10
 */
export function readRefcount(
  bytes: Uint8Array,
  bits: RefcountBits,
  index: number,
  hostOffset?: number,
): number {
  if (bits === 16) {
    return (byteAt(bytes, index * 2) << 8) | byteAt(bytes, index * 2 + 1);
  }
  if (bits < 8) {
    const perByte = 8 / bits;
    const shift = (index % perByte) * bits;
    return (byteAt(bytes, Math.floor(index / perByte)) >>> shift) & ((1 << bits) - 1);
  }
  if (bits === 8) return byteAt(bytes, index);
  if (bits === 32) return u32At(bytes, index * 4);
  const value = joinU64(u32At(bytes, index * 8), u32At(bytes, index * 8 + 4));
  if (value < 0) {
    throw new CorruptImageError({
      structure: "refcount block",
      ...(hostOffset === undefined ? {} : { hostOffset }),
      rule: `refcount of entry ${index} is above 2^53 - 1`,
    });
  }
  return value;
}

/**
 * Writes a count.
 *
 * Requires: `0 <= value <= maxRefcount(bits)`, and the entry lies in `bytes`.
 */
export function writeRefcount(
  bytes: Uint8Array,
  bits: RefcountBits,
  index: number,
  value: number,
): void {
  assert(
    Number.isSafeInteger(value) && value >= 0 && value <= maxRefcount(bits),
    "the refcount fits its width",
  );
  const last = Math.floor(((index + 1) * bits - 1) / 8);
  assert(index >= 0 && last < bytes.length, "the refcount entry lies in its block");
  if (bits < 8) {
    const perByte = 8 / bits;
    const shift = (index % perByte) * bits;
    const at = Math.floor(index / perByte);
    const mask = ((1 << bits) - 1) << shift;
    bytes[at] = (byteAt(bytes, at) & ~mask) | (value << shift);
    return;
  }
  let rest = value;
  for (let at = last; at > last - bits / 8; at--) {
    bytes[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}

function byteAt(bytes: Uint8Array, at: number): number {
  const byte = bytes[at];
  assert(byte !== undefined, "the refcount entry lies in its block");
  return byte;
}

function u32At(bytes: Uint8Array, at: number): number {
  const high = (byteAt(bytes, at) << 8) | byteAt(bytes, at + 1);
  const low = (byteAt(bytes, at + 2) << 8) | byteAt(bytes, at + 3);
  return high * 65536 + low;
}
