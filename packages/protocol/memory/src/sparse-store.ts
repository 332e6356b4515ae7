/**
 * Bytes by offset, of which only what was written takes memory.
 *
 * Stands below MemoryDriver; knows nothing of requests. No locking: every method ends before it returns.
 *
 * 1. A chunk that is not in the map reads as zeroes.
 * 2. A byte of a chunk past `lengthBytes` is zero, so that growing needs no work.
 */
import { alignDown, assert, BlockError } from "@blocklayer/bytes";

/** One allocation. Small enough that a sparse image stays small, large enough that the map does. */
export const CHUNK_BYTES = 65536;

/** A run of bytes that are all stored, or all holes. */
export interface StoredExtent {
  readonly lengthBytes: number;
  readonly stored: boolean;
}

/** A growing array of bytes with holes. */
export class SparseStore {
  readonly #chunks = new Map<number, Uint8Array>();
  #lengthBytes: number;

  constructor(lengthBytes = 0) {
    this.#lengthBytes = lengthBytes;
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** Memory in use, in bytes. */
  get storedBytes(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  /** Fills `target` from `offset` on; zeroes where nothing is stored and past the end. */
  read(offset: number, target: Uint8Array): void {
    let done = 0;
    while (done < target.length) {
      const within = (offset + done) % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - within, target.length - done);
      const chunk = this.#chunks.get((offset + done - within) / CHUNK_BYTES);
      if (chunk === undefined) target.fill(0, done, done + length);
      else target.set(chunk.subarray(within, within + length), done);
      done += length;
    }
  }

  /**
   * Stores `source` at `offset`, and grows when it ends past the end.
   *
   * @throws BlockError `ENOMEM`. After failure: what lies before the chunk that found no room is written.
   */
  write(offset: number, source: Uint8Array): void {
    let done = 0;
    while (done < source.length) {
      const at = offset + done;
      const within = at % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - within, source.length - done);
      this.#chunkAt((at - within) / CHUNK_BYTES).set(source.subarray(done, done + length), within);
      done += length;
      if (at + length > this.#lengthBytes) this.#lengthBytes = at + length;
    }
  }

  /** Makes `[offset, offset + lengthBytes)` read as zeroes, grows, and frees every chunk that lies in it. */
  zero(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    if (end > this.#lengthBytes) this.#lengthBytes = end;
    // A chunk whose rest lies past the end of the store holds nothing but zeroes there (invariant 2).
    const freeEnd = end === this.#lengthBytes ? Number.POSITIVE_INFINITY : end;
    this.#forStored(offset, end, (index, chunk) => {
      const start = index * CHUNK_BYTES;
      if (start >= offset && start + CHUNK_BYTES <= freeEnd) this.#chunks.delete(index);
      else chunk.fill(0, Math.max(offset - start, 0), Math.min(end - start, CHUNK_BYTES));
    });
  }

  /** Frees every chunk that lies wholly in the range; the bytes at its edges stay. Never grows. */
  discard(offset: number, lengthBytes: number): void {
    const end = Math.min(offset + lengthBytes, this.#lengthBytes);
    const freeEnd = end === this.#lengthBytes ? Number.POSITIVE_INFINITY : end;
    this.#forStored(offset, end, (index) => {
      const start = index * CHUNK_BYTES;
      if (start >= offset && start + CHUNK_BYTES <= freeEnd) this.#chunks.delete(index);
    });
  }

  /** Sets the length. What is cut off is freed, what is new reads as zeroes. */
  truncate(lengthBytes: number): void {
    const before = this.#lengthBytes;
    if (lengthBytes < before) this.zero(lengthBytes, before - lengthBytes);
    this.#lengthBytes = lengthBytes;
  }

  /** The run that starts at `offset`, at most `lengthBytes` long. Requires: `lengthBytes > 0`. */
  extent(offset: number, lengthBytes: number): StoredExtent {
    assert(lengthBytes > 0, "an extent of no bytes was asked for");
    const end = offset + lengthBytes;
    const first = alignDown(offset, CHUNK_BYTES) / CHUNK_BYTES;
    const last = alignDown(end - 1, CHUNK_BYTES) / CHUNK_BYTES;
    const stored = this.#chunks.has(first);
    let index = first + 1;
    if (stored) while (index <= last && this.#chunks.has(index)) index++;
    else index = this.#nextStored(index, last);
    return { stored, lengthBytes: Math.min(index * CHUNK_BYTES, end) - offset };
  }

  /** The first chunk in `[index, last]`, or `last + 1`. Looks at no more than twice what is stored. */
  #nextStored(index: number, last: number): number {
    const stop = Math.min(last, index + this.#chunks.size);
    for (let i = index; i <= stop; i++) if (this.#chunks.has(i)) return i;
    let nearest = last + 1;
    for (const key of this.#chunks.keys()) if (key >= index && key < nearest) nearest = key;
    return nearest;
  }

  /** Visits the stored chunks that touch `[offset, end)`, by index or by map, whichever is shorter. */
  #forStored(offset: number, end: number, visit: (index: number, chunk: Uint8Array) => void): void {
    if (end <= offset) return;
    const first = alignDown(offset, CHUNK_BYTES) / CHUNK_BYTES;
    const last = alignDown(end - 1, CHUNK_BYTES) / CHUNK_BYTES;
    if (last - first < this.#chunks.size) {
      for (let index = first; index <= last; index++) {
        const chunk = this.#chunks.get(index);
        if (chunk !== undefined) visit(index, chunk);
      }
    } else {
      for (const [index, chunk] of this.#chunks) {
        if (index >= first && index <= last) visit(index, chunk);
      }
    }
  }

  #chunkAt(index: number): Uint8Array {
    const found = this.#chunks.get(index);
    if (found !== undefined) return found;
    const fresh = allocateChunk();
    this.#chunks.set(index, fresh);
    return fresh;
  }
}

function allocateChunk(): Uint8Array {
  try {
    return new Uint8Array(CHUNK_BYTES);
  } catch (cause) {
    throw new BlockError("ENOMEM", `memory store: no room for ${CHUNK_BYTES} bytes more`, {
      op: "write",
      cause,
    });
  }
}
