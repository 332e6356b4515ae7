/** Disks with runs of data and of zeroes, the same for the same seed. */
import { Random } from "@blocklayer/sim";

/** Fills a disk with runs of 512 bytes and more, about half of them zeroes. */
export function randomDisk(seed: number, lengthBytes: number, longestRun = 40_000): Uint8Array {
  const random = new Random(seed);
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; ) {
    const end = Math.min(at + 512 * (1 + random.below(Math.ceil(longestRun / 512))), lengthBytes);
    if (random.below(2) === 0) for (let i = at; i < end; i++) bytes[i] = random.below(256);
    at = end;
  }
  return bytes;
}
