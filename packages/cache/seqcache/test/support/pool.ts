import type { SeqCacheAllocator } from "../../src/index.js";

/** What a buffer holds that is nobody's: shows up wherever it leaks. */
export const POISON = 0xee;

/** Lends the buffer that came back last, full of poison. */
export class PoisonPool implements SeqCacheAllocator {
  readonly #spare: Uint8Array[] = [];
  readonly lent = new Set<Uint8Array>();
  refuse = false;

  allocate(lengthBytes: number): Uint8Array {
    if (this.refuse) throw new Error("out of memory");
    const buffer = this.#spare.pop() ?? new Uint8Array(lengthBytes).fill(POISON);
    this.lent.add(buffer);
    return buffer;
  }

  release(buffer: Uint8Array): void {
    if (!this.lent.delete(buffer)) throw new Error("released twice, or not lent");
    buffer.fill(POISON);
    this.#spare.push(buffer);
  }
}

/** Bytes that tell where they belong: `first`, `first + 1`, … without zero and the poison. */
export function bytesOf(first: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => 1 + ((first + i) % 200));
}
