/**
 * Where a zstd frame ends, and what its header says, without decoding it.
 *
 * Above: zstd-payload. Below: nothing; pure functions of bytes.
 *
 * Decoders refuse bytes behind the last frame, and the data of a cluster is padded up to a sector and
 * may be followed by that of its neighbours. So the frame is cut out exactly: its blocks have their
 * lengths in front.
 *
 * 1. Every step goes at least three bytes forward, and no byte behind the input is looked at: time
 *    is bounded by the input, and nothing is allocated.
 * 2. What is returned as a frame is whole: every block and the checksum lie within the input. Whether
 *    the blocks decode is for the decoder to find out.
 *
 * Source: RFC 8878, sections 3.1.1 (frames, blocks) and 3.1.2 (skippable frames).
 */
import { viewOf } from "@blocklayer/bytes";

const MAGIC = 0xfd2f_b528;
const SKIPPABLE_MAGIC = 0x184d_2a50;
const MAGIC_BYTES = 4;
const SKIPPABLE_HEADER_BYTES = 8;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
/** No block gives more. */
export const MAX_BLOCK_BYTES: number = 128 * 1024;
const MIN_WINDOW_LOG = 10;

/** Types of block. */
const BLOCK = { raw: 0, rle: 1, compressed: 2, reserved: 3 } as const;

/** A frame with content. Offsets count from the start of the input. */
export interface ZstdFrame {
  readonly kind: "frame";
  /** Where the next frame would start. */
  readonly end: number;
  /** What the header says of the content's length; undefined when it does not. Up to 2^64 − 1. */
  readonly contentBytes: number | undefined;
  /** How far back the content may reach, as the header says it. Up to 2^42. */
  readonly windowBytes: number;
  /** Where the byte of the window is; undefined where the window is as long as the content. */
  readonly windowAt: number | undefined;
}

/** A frame without content. */
export interface SkippableFrame {
  readonly kind: "skippable";
  readonly end: number;
}

/** No frame, and why. */
export interface DamagedFrame {
  readonly kind: "damaged";
  /** Goes on after "the zstd frame …". */
  readonly reason: string;
}

type Header = Omit<ZstdFrame, "end"> & {
  readonly blocksAt: number;
  readonly hasChecksum: boolean;
};

/** Reads the frame that starts at `start`. Never throws. */
export function readZstdFrame(
  bytes: Uint8Array,
  start: number,
): ZstdFrame | SkippableFrame | DamagedFrame {
  if (bytes.length - start < MAGIC_BYTES) return damaged("is cut off");
  const magic = viewOf(bytes).getUint32(start, true);
  if (magic === MAGIC) return readFrame(bytes, start + MAGIC_BYTES);
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) return readSkippable(bytes, start);
  return damaged("does not begin with a frame's magic number");
}

function damaged(reason: string): DamagedFrame {
  return { kind: "damaged", reason };
}

function readSkippable(bytes: Uint8Array, start: number): SkippableFrame | DamagedFrame {
  if (bytes.length - start < SKIPPABLE_HEADER_BYTES) return damaged("is cut off");
  const lengthBytes = viewOf(bytes).getUint32(start + MAGIC_BYTES, true);
  const end = start + SKIPPABLE_HEADER_BYTES + lengthBytes;
  return end > bytes.length ? damaged("is cut off") : { kind: "skippable", end };
}

function readFrame(bytes: Uint8Array, at: number): ZstdFrame | DamagedFrame {
  const header = readHeader(bytes, at);
  if (header.kind === "damaged") return header;
  const { blocksAt, hasChecksum, contentBytes, windowBytes, windowAt } = header;
  const blocks = endOfBlocks(bytes, blocksAt, Math.min(windowBytes, MAX_BLOCK_BYTES));
  if (typeof blocks !== "number") return blocks;
  const end = hasChecksum ? blocks + CHECKSUM_BYTES : blocks;
  if (end > bytes.length) return damaged("is cut off");
  return { kind: "frame", end, contentBytes, windowBytes, windowAt };
}

/** The frame header behind the magic: descriptor, window, dictionary, content length. */
function readHeader(bytes: Uint8Array, at: number): Header | DamagedFrame {
  const descriptor = bytes[at];
  if (descriptor === undefined) return damaged("is cut off");
  if ((descriptor & 0x08) !== 0) return damaged("sets a reserved bit");
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const windowAt = isSingleSegment ? undefined : at + 1;
  const dictionaryAt = at + (isSingleSegment ? 1 : 2);
  const dictionaryLength = [0, 1, 2, 4][descriptor & 3] as number;
  const contentAt = dictionaryAt + dictionaryLength;
  const contentLength = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
  const blocksAt = contentAt + contentLength;
  if (blocksAt > bytes.length) return damaged("is cut off");
  if (littleEndian(bytes, dictionaryAt, dictionaryLength) !== 0) {
    return damaged("needs a dictionary");
  }
  // A length of two bytes counts from where one byte ends.
  const base = contentLength === 2 ? 256 : 0;
  const contentBytes =
    contentLength === 0 ? undefined : base + littleEndian(bytes, contentAt, contentLength);
  const windowBytes =
    windowAt === undefined ? (contentBytes ?? 0) : windowOf(bytes[windowAt] as number);
  const hasChecksum = (descriptor & 0x04) !== 0;
  return { kind: "frame", contentBytes, windowBytes, windowAt, blocksAt, hasChecksum };
}

/** A number of up to eight bytes; those above 2^53 come out rounded, which is enough to refuse them. */
function littleEndian(bytes: Uint8Array, at: number, length: number): number {
  let value = 0;
  for (let i = length - 1; i >= 0; i--) value = value * 256 + (bytes[at + i] as number);
  return value;
}

/** The window that a byte of a frame header stands for: an exponent and eighths. */
function windowOf(byte: number): number {
  const base = 2 ** (MIN_WINDOW_LOG + (byte >> 3));
  return base + (base / 8) * (byte & 7);
}

/** The byte of the shortest window without eighths that is `lengthBytes` or longer. */
export function windowByteFor(lengthBytes: number): number {
  const log = Math.ceil(Math.log2(Math.max(lengthBytes, 1)));
  return Math.max(log - MIN_WINDOW_LOG, 0) << 3;
}

/** Where the last block ends: not within the input, if that is cut off in it. */
function endOfBlocks(
  bytes: Uint8Array,
  start: number,
  maxBlockBytes: number,
): number | DamagedFrame {
  let at = start;
  for (let isLast = false; !isLast; ) {
    if (at + BLOCK_HEADER_BYTES > bytes.length) return damaged("is cut off");
    const header = littleEndian(bytes, at, BLOCK_HEADER_BYTES);
    const type = (header >> 1) & 3;
    const lengthBytes = header >> 3;
    if (type === BLOCK.reserved) return damaged("has a block of a reserved type");
    if (lengthBytes > maxBlockBytes) return damaged("has a block that is too long");
    isLast = (header & 1) !== 0;
    at += BLOCK_HEADER_BYTES + (type === BLOCK.rle ? 1 : lengthBytes);
  }
  return at;
}
