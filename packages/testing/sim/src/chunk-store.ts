/**
 * A growing byte array of which copies are cheap: content is kept in chunks, and `fork` shares them until
 * one side writes.
 *
 * Stands below SimDisk and the crash enumerator, which makes one fork for every state of a disk. No locking:
 * every method ends before it returns.
 *
 * 1. A chunk that is `undefined` reads as zeroes.
 * 2. A store changes only chunks that it owns; what two stores share, or was given frozen, is never written.
 * 3. Bytes of a chunk past `lengthBytes` are zero, so that growing needs no work.
 */
import { assert } from "@blocklayer/bytes";

/** Large enough that a fork of a 1 MiB disk copies 256 references, small enough that a write copies little. */
export const CHUNK_BYTES = 4096;

/** One allocation. It stays as long as one chunk of it is in use, so it must not be large. */
const SLAB_BYTES = 16 * CHUNK_BYTES;

const NONE_OWNED = new Uint8Array(0);

/** A run of bytes that are all stored, or all holes. */
export interface ChunkExtent {
  readonly lengthBytes: number;
  readonly stored: boolean;
}

/** Bytes by offset, with cheap copies. */
export class ChunkStore {
  #chunks: (Uint8Array | undefined)[];
  /** 1 where the chunk belongs to this store alone; what lies past its end is not owned. Made when needed. */
  #owned: Uint8Array;
  #lengthBytes: number;

  constructor(lengthBytes = 0) {
    this.#chunks = [];
    this.#owned = NONE_OWNED;
    this.#lengthBytes = 0;
    if (lengthBytes > 0) this.resize(lengthBytes);
  }

  /** A store with this content, copied. */
  static from(bytes: Uint8Array): ChunkStore {
    const store = new ChunkStore(bytes.length);
    store.write(0, bytes);
    return store;
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** A copy that shares every chunk; both sides stay writable. */
  fork(): ChunkStore {
    const copy = new ChunkStore();
    copy.#chunks = this.#chunks.slice();
    copy.#lengthBytes = this.#lengthBytes;
    this.#owned = NONE_OWNED;
    return copy;
  }

  /** Fills `target` from `offset` on; zeroes where nothing is stored and past the end. */
  read(offset: number, target: Uint8Array): void {
    let done = 0;
    while (done < target.length) {
      const within = (offset + done) % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - within, target.length - done);
      const chunk = this.#chunks[(offset + done - within) / CHUNK_BYTES];
      if (chunk === undefined) target.fill(0, done, done + length);
      else if (length === CHUNK_BYTES) target.set(chunk, done);
      else target.set(chunk.subarray(within, within + length), done);
      done += length;
    }
  }

  /**
   * Stores `source` at `offset`, and grows when it ends past the end.
   *
   * @param isFrozen - the source never changes: whole chunks of it are taken as they are, without a copy
   */
  write(offset: number, source: Uint8Array, isFrozen = false): void {
    if (source.length === 0) return;
    if (offset + source.length > this.#lengthBytes) this.resize(offset + source.length);
    let done = 0;
    while (done < source.length) {
      const within = (offset + done) % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - within, source.length - done);
      const index = (offset + done - within) / CHUNK_BYTES;
      const part = length === source.length ? source : source.subarray(done, done + length);
      const isWhole = length === CHUNK_BYTES;
      if (isWhole && isFrozen) {
        this.#chunks[index] = part;
        if (index < this.#owned.length) this.#owned[index] = 0;
      } else {
        this.#own(index, isWhole).set(part, within);
      }
      done += length;
    }
  }

  /** Makes `[offset, offset + lengthBytes)` read as zeroes, and grows when it ends past the end. */
  zero(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    if (end > this.#lengthBytes) this.resize(end);
    this.#clear(offset, end);
  }

  /** Sets the length. What is cut off is gone, what is new reads as zeroes. */
  resize(lengthBytes: number): void {
    assert(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0, "a length is a safe integer");
    if (lengthBytes < this.#lengthBytes) this.#clear(lengthBytes, this.#lengthBytes);
    const count = Math.ceil(lengthBytes / CHUNK_BYTES);
    if (count < this.#chunks.length) this.#chunks.length = count;
    while (this.#chunks.length < count) this.#chunks.push(undefined);
    this.#lengthBytes = lengthBytes;
  }

  /** The run that starts at `offset`, at most `lengthBytes` long; past the end nothing is stored. */
  extent(offset: number, lengthBytes: number): ChunkExtent {
    assert(lengthBytes > 0, "an extent has at least one byte");
    const end = offset + lengthBytes;
    let index = Math.floor(offset / CHUNK_BYTES);
    const stored = this.#chunks[index] !== undefined;
    do index++;
    while (index * CHUNK_BYTES < end && (this.#chunks[index] !== undefined) === stored);
    return { stored, lengthBytes: Math.min(index * CHUNK_BYTES, end) - offset };
  }

  /** The whole content, copied. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.#lengthBytes);
    this.read(0, bytes);
    return bytes;
  }

  #clear(offset: number, end: number): void {
    let at = offset;
    while (at < end) {
      const within = at % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - within, end - at);
      const index = (at - within) / CHUNK_BYTES;
      // Past the end there is nothing but zeroes (3), so a chunk that is cleared up to there is empty too.
      if (within === 0 && (length === CHUNK_BYTES || end >= this.#lengthBytes)) {
        this.#chunks[index] = undefined;
      } else if (this.#chunks[index] !== undefined) {
        this.#own(index, false).fill(0, within, within + length);
      }
      at += length;
    }
  }

  /** The chunk, for writing. `whole`: the caller overwrites all of it, so nothing needs to be copied. */
  #own(index: number, whole: boolean): Uint8Array {
    const chunk = this.#chunks[index];
    if (chunk !== undefined && this.#owned[index] === 1) return chunk;
    const fresh = allocateChunk();
    if (chunk !== undefined && !whole) fresh.set(chunk);
    this.#chunks[index] = fresh;
    if (index >= this.#owned.length) {
      const owned = new Uint8Array(Math.max(this.#chunks.length, this.#owned.length * 2));
      owned.set(this.#owned);
      this.#owned = owned;
    }
    this.#owned[index] = 1;
    return fresh;
  }
}

/** What is left of the memory that chunks are cut from. */
let slab = new ArrayBuffer(0);
let slabUsed = 0;

/** A zeroed chunk. An allocation for many at once costs a fraction of one for each. */
function allocateChunk(): Uint8Array {
  if (slabUsed + CHUNK_BYTES > slab.byteLength) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabUsed = 0;
  }
  const chunk = new Uint8Array(slab, slabUsed, CHUNK_BYTES);
  slabUsed += CHUNK_BYTES;
  return chunk;
}
