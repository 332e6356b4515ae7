// Contents of disks, out of a seed: noise, text and nothing, in runs of all lengths.
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

/** A small generator of numbers (mulberry32): the same ones for the same seed, everywhere. */
export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to limit − 1; the limit is at most 2^32. */
  below(limit) {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let word = this.#state;
    word = Math.imul(word ^ (word >>> 15), word | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return Math.floor((((word ^ (word >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  pick(values) {
    return values[this.below(values.length)];
  }

  bytes(length) {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.below(2 ** 32);
    return new Uint8Array(words.buffer, 0, length);
  }
}

/** Noise is made once, and cut from at random places. */
const NOISE = new Random(42).bytes(2 ** 21);

/**
 * A disk's bytes, in runs of up to `runBytes`: half of them zeroes, the others noise or text.
 *
 * @param {number} lengthBytes
 * @param {number} runBytes
 * @param {number} seed
 */
export function diskContent(lengthBytes, runBytes, seed) {
  const random = new Random(seed);
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; ) {
    const length = Math.min(lengthBytes - at, 1 + random.below(runBytes));
    const run = bytes.subarray(at, at + length);
    const kind = random.below(4);
    if (kind === 0) run.set(noise(random, length));
    else if (kind === 1) {
      const [factor, modulus] = [3 + random.below(9), 17 + random.below(9)];
      const text = Uint8Array.from({ length: modulus }, (_, i) => 97 + ((i * factor) % modulus));
      Buffer.from(run.buffer, run.byteOffset, length).fill(text);
    }
    at += length;
  }
  return bytes;
}

function noise(random, length) {
  if (length > NOISE.length / 2) return random.bytes(length);
  const start = random.below(NOISE.length - length);
  return NOISE.subarray(start, start + length);
}

/** Writes bytes to a new file; blocks of 4 KiB that are all zero stay holes. */
export function writeSparse(path, bytes) {
  const file = openSync(path, "w");
  const zeroes = Buffer.alloc(4096);
  try {
    ftruncateSync(file, bytes.length);
    for (let at = 0; at < bytes.length; at += 4096) {
      const block = bytes.subarray(at, at + 4096);
      if (zeroes.compare(block, 0, block.length, 0, block.length) !== 0) {
        writeSync(file, block, 0, block.length, at);
      }
    }
  } finally {
    closeSync(file);
  }
}
