/**
 * Big-endian integers, as qcow2 and most image formats store them.
 *
 * A 64-bit field narrows to a JavaScript number here and nowhere else: a value past 2^53 - 1 in an
 * image is a corrupt image. Where the top bits are flags, read the two halves.
 */
import { assert, CorruptImageError, hex } from "./errors.js";

const TWO_POW_32 = 2 ** 32;

/** A DataView over the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Joins the halves of a 64-bit number.
 *
 * @returns the number, or -1 when it is past 2^53 - 1
 */
export function joinU64(high: number, low: number): number {
  return high > 0x1fffff ? -1 : high * TWO_POW_32 + low;
}

/**
 * Reads an unsigned 64-bit field of an image.
 *
 * @param view - the structure's bytes
 * @param position - of the field, in bytes from the view's start
 * @param field - its name, for the error: `header: refcount_table_offset`
 * @param structureOffset - host offset of the view's first byte, for the error
 * @throws CorruptImageError when the value is past 2^53 - 1
 */
export function readU64(
  view: DataView,
  position: number,
  field: string,
  structureOffset = 0,
): number {
  const value = joinU64(view.getUint32(position), view.getUint32(position + 4));
  if (value < 0) {
    const raw = view.getBigUint64(position);
    throw new CorruptImageError({
      structure: field,
      hostOffset: structureOffset + position,
      rule: `value 0x${raw.toString(16)} is above 2^53 - 1`,
    });
  }
  return value;
}

/**
 * Writes an unsigned 64-bit field.
 *
 * Requires: `value` is a safe integer, not negative.
 */
export function writeU64(view: DataView, position: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${hex(value)} fits a 64-bit field`);
  view.setUint32(position, Math.floor(value / TWO_POW_32));
  view.setUint32(position + 4, value % TWO_POW_32);
}
