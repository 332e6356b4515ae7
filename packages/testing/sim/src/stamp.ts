/**
 * Guest data that says where it belongs: when a wrong sector is read, its stamp tells whose it is.
 *
 * Each sector begins with the magic `STMP`, the tag and the sector's number (32 bits each, big-endian) and goes
 * on with bytes that depend on both.
 */
import { assert, isAligned, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";

const MAGIC = 0x53_54_4d_50;
const HEADER_BYTES = 12;

/** What a stamped sector says. */
export interface Stamp {
  /** The number that the writer gave: which write it is. */
  readonly tag: number;
  /** The sector for which it was made. */
  readonly sector: number;
}

/**
 * Data for a write.
 *
 * @param tag - a number of the caller's, 32 bits
 * @param offset - where it will be written, a multiple of 512
 * @param lengthBytes - a multiple of 512
 */
export function stampedBytes(tag: number, offset: number, lengthBytes: number): Uint8Array {
  assert(isAligned(offset, SECTOR_SIZE_BYTES), "stamped data starts at a sector");
  assert(isAligned(lengthBytes, SECTOR_SIZE_BYTES), "stamped data is whole sectors");
  const bytes = new Uint8Array(lengthBytes);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < lengthBytes; at += SECTOR_SIZE_BYTES) {
    const sector = (offset + at) / SECTOR_SIZE_BYTES;
    bytes.fill(1 + ((tag * 31 + sector * 7) % 255), at, at + SECTOR_SIZE_BYTES);
    view.setUint32(at, MAGIC);
    view.setUint32(at + 4, tag);
    view.setUint32(at + 8, sector);
  }
  return bytes;
}

/** The stamp of a sector, or `undefined` when it has none. */
export function readStamp(sector: Uint8Array): Stamp | undefined {
  if (sector.length < HEADER_BYTES) return undefined;
  const view = new DataView(sector.buffer, sector.byteOffset, HEADER_BYTES);
  if (view.getUint32(0) !== MAGIC) return undefined;
  return { tag: view.getUint32(4), sector: view.getUint32(8) };
}
