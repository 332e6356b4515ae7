/** Zeroes in a byte store, also in one that has no quicker way than to write them. */
import type { BlockChild, WriteZeroesOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import type { HostOffset } from "./geometry.js";

/** Zeroes written at a time where a store has no quicker way. */
const ZERO_CHUNK_BYTES = 2 ** 20;

/** Makes a range of the file read as zeroes. */
export async function writeHostZeroes(
  file: BlockChild,
  offset: HostOffset,
  lengthBytes: number,
  options: WriteZeroesOptions,
): Promise<void> {
  if (lengthBytes === 0) return;
  if (file.capabilities.writeZeroes) {
    await file.writeZeroes(offset, lengthBytes, options);
    return;
  }
  const { signal } = options;
  const zeroes = IoVector.allocate(Math.min(ZERO_CHUNK_BYTES, lengthBytes));
  for (let done = 0; done < lengthBytes; done += ZERO_CHUNK_BYTES) {
    const part = zeroes.slice(0, Math.min(ZERO_CHUNK_BYTES, lengthBytes - done));
    await file.writev(offset + done, part, signal === undefined ? {} : { signal });
  }
}
