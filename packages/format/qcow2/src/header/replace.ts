/**
 * Putting another header in the place of the one in the file.
 *
 * Above: amend, backing/change. Below: encode.ts, the image.
 *
 * A disk writes sectors whole, and a header with feature names and a backing file is longer than one. So the file passes
 * through headers of one sector, each sound by itself [C1]:
 *   1. the old header without the table of feature names, which nobody needs to open the image;
 *   2. the new name of the backing file, beside all that is in use; sync;
 *   3. the new header without feature names, with that name: from here on the image is the new one; sync;
 *   4. the sectors behind the first one as they shall be; sync; then the first one.
 * A header that fits into one sector is written at once. Where there is no room for these steps (clusters of 1 KiB, or
 * extensions that nobody knows), the header is written at once as well, as QEMU does it.
 *
 * Locking: the image lock is held throughout. A failure leaves it unknown which header counts: the node fails.
 */
import { alignUp, SECTOR_SIZE_BYTES, viewOf, writeU64 } from "@blocklayer/bytes";
import type { HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { OVERLAP } from "../refcount/overlap.js";
import { encodeHeader, layoutOf } from "./encode.js";
import { EXTENSION, type Qcow2Header } from "./header.js";

/** Where the place and the length of the backing file's name lie. */
const NAME_OFFSET_POSITION = 8;

/**
 * Replaces the header, durably, in the file and in memory.
 *
 * @throws BlockError as `encodeHeader`, before anything is written; those of the file
 */
export async function replaceHeader(image: Qcow2Image, next: Qcow2Header): Promise<void> {
  const steps = stepsTo(image.header, next);
  try {
    for (const { at, bytes } of steps) {
      await image.writeTable(at, bytes, OVERLAP.header);
      await image.sync();
    }
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
  const { backingFileOffset, backingFileSize } = layoutOf(next);
  image.setHeader({ ...next, backingFileOffset, backingFileSize });
}

/** A write of whole sectors. */
interface Step {
  readonly at: HostOffset;
  readonly bytes: Uint8Array;
}

/** The writes, each to be durable before the next one. Pure. */
export function stepsTo(old: Qcow2Header, next: Qcow2Header): readonly Step[] {
  const whole = padded(encodeHeader(next));
  if (whole.length <= SECTOR_SIZE_BYTES) return [{ at: 0, bytes: whole }];
  const clusterSize = 2 ** next.clusterBits;
  const name = encodeName(next);
  const oldEnd = alignUp(old.backingFileOffset + old.backingFileSize, SECTOR_SIZE_BYTES);
  const nameAt = Math.max(oldEnd, whole.length);
  // A header of one sector does not look at what comes into the others.
  const isShort = layoutOf(old).lengthBytes <= SECTOR_SIZE_BYTES;
  const oldBare = isShort ? new Uint8Array() : bareSector(old, old.backingFileOffset);
  const nextBare = bareSector(next, name.length === 0 ? 0 : nameAt);
  const fits = nameAt + alignUp(name.length, SECTOR_SIZE_BYTES) <= clusterSize;
  if (!fits || oldBare === undefined || nextBare === undefined) return [{ at: 0, bytes: whole }];
  return [
    ...(isShort ? [] : [{ at: 0, bytes: oldBare }]),
    ...(name.length === 0 ? [] : [{ at: nameAt, bytes: padded(name) }]),
    { at: 0, bytes: nextBare },
    { at: SECTOR_SIZE_BYTES, bytes: whole.subarray(SECTOR_SIZE_BYTES) },
    { at: 0, bytes: whole.subarray(0, SECTOR_SIZE_BYTES) },
  ];
}

/**
 * A header in one sector: without feature names, its backing file's name elsewhere.
 *
 * @returns undefined when it does not fit in front of the name
 */
function bareSector(header: Qcow2Header, nameAt: HostOffset): Uint8Array | undefined {
  const { backingFilename: _text, backingFilenameBytes: _bytes, ...rest } = header;
  const extensions = header.extensions.filter(({ type }) => type !== EXTENSION.featureNames);
  const bytes = encodeHeader({ ...rest, extensions });
  const name = encodeName(header);
  const limit = name.length === 0 ? SECTOR_SIZE_BYTES : Math.min(nameAt, SECTOR_SIZE_BYTES);
  if (bytes.length > limit) return undefined;
  const sector = padded(bytes);
  const view = viewOf(sector);
  writeU64(view, NAME_OFFSET_POSITION, name.length === 0 ? 0 : nameAt);
  view.setUint32(NAME_OFFSET_POSITION + 8, name.length);
  // What lies in the first sector of a name that begins there stays.
  const inside = Math.max(0, SECTOR_SIZE_BYTES - nameAt);
  if (name.length > 0 && inside > 0) sector.set(name.subarray(0, inside), nameAt);
  return sector;
}

function encodeName(header: Qcow2Header): Uint8Array {
  const { backingFilenameBytes, backingFilename = "" } = header;
  return backingFilenameBytes ?? new TextEncoder().encode(backingFilename);
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(alignUp(bytes.length, SECTOR_SIZE_BYTES));
  whole.set(bytes);
  return whole;
}
