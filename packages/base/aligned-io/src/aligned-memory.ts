/**
 * Which memory is known to be aligned. JavaScript shows no addresses; but a WebAssembly memory starts at a
 * page of the operating system, and stays where it is while it grows. So an offset in such a buffer tells
 * the alignment of the address, up to a page.
 *
 * A buffer that reached a worker is another object there and is not known: requests on it are bounced.
 */
import type { IoVector } from "@blocklayer/bytes";

/** The alignment that the start of a WebAssembly memory has on every system. */
export const PAGE_BYTES = 4096;

const pageAlignedBuffers = new WeakSet<ArrayBufferLike>();

/** Notes that a buffer starts at a page. Every growth of a shared memory makes a new buffer object. */
export function markPageAligned(buffer: ArrayBufferLike): void {
  pageAlignedBuffers.add(buffer);
}

/**
 * Whether bytes are known to start at an address that is a multiple of `alignment`.
 *
 * @param bytes - any bytes; only those of an arena can be known
 * @param alignment - a power of two
 * @returns always `true` for alignment 1; always `false` above a page
 */
export function isMemoryAligned(bytes: Uint8Array, alignment: number): boolean {
  if (alignment === 1) return true;
  return (
    alignment <= PAGE_BYTES &&
    (bytes.byteOffset & (alignment - 1)) === 0 &&
    pageAlignedBuffers.has(bytes.buffer)
  );
}

/**
 * Whether a device can move a vector as it is: every part starts aligned, and where there are several,
 * each is a whole number of blocks, as direct I/O demands of every element of an iovec.
 */
export function isVectorAligned(
  vector: IoVector,
  memoryAlignment: number,
  requestAlignment: number,
): boolean {
  if (memoryAlignment === 1) return true;
  const { parts } = vector;
  const lengthMask = parts.length === 1 ? 0 : requestAlignment - 1;
  for (const part of parts) {
    if ((part.length & lengthMask) !== 0 || !isMemoryAligned(part, memoryAlignment)) return false;
  }
  return true;
}
