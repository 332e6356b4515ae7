/**
 * A write cache that makes small sequential writes into whole, aligned clusters.
 *
 * Above: the driver, which allocates the bytes, writes what is handed out and reads the gaps.
 * Below: Entry, FlushQueue, overlay.ts, the driver's allocator. No I/O, no waiting, no clock.
 *
 *   empty ─write─▶ unfinished ─full, or a write elsewhere─▶ finished ─nextFlush─▶ handed out ─discard─▶ gone
 *
 * Invariants:
 * 1. A cluster has at most one entry; a write where one is, and that does not append, is a bug of the
 *    caller [S1]. At most one entry is unfinished, and it is the newest.
 * 2. An unfinished entry has room: whichever write fills its cluster finishes it [S2].
 * 3. What is cached is never evicted and never changes; it leaves by `discard()` and `drop()` alone [S3].
 * 4. A read gets every cached byte of its span [S4].
 * 5. The queue holds, oldest first, the finished entries with bytes that nobody was handed [S5].
 * 6. A handout's buffer lives until its own token is settled, whatever becomes of the entry [S5, S14].
 *    Behind its data it is zero when handed out [S6].
 * 7. A handout of an entry starts at its first byte that is not known to be in the file, and settling it
 *    moves that byte to the handout's end: what was appended meanwhile stays [S7].
 * 8. `handedOutCount` counts the writes that a flush has to wait for [S8], `flushableCount` what it has
 *    to hand out [S9]; both at this moment.
 *
 * Locking: none, every call is done when it returns. `write()` belongs into the critical section that
 * allocated the bytes [S10]; the others may be called at any time.
 */
import { assert, hex, isPowerOfTwo } from "@blocklayer/bytes";
import { Entry } from "./entry.js";
import { FlushQueue } from "./flush-queue.js";
import { type FlushToken, Handout, type SeqFlush } from "./flush.js";
import type { SeqCacheAllocator, SeqCacheOptions, SeqCacheStats } from "./options.js";
import { type ReadResult, readOverlay } from "./overlay.js";

/** Clusters in memory above which a cache calls itself full, when the caller names no other number. */
const DEFAULT_MAX_CLUSTERS = 64;

/**
 * The cache.
 *
 * @example
 * cache.write(0x50000, bytes);
 * const flush = cache.nextFlush({ unfinished: true });
 * if (flush !== undefined) {
 *   await file.write(flush.offset, flush.buffer.subarray(0, writeLength(flush, 4096)));
 *   cache.discard(flush.token);
 * }
 */
export class SeqCache {
  readonly clusterSize: number;
  readonly maxClusters: number;
  readonly #allocator: SeqCacheAllocator;
  readonly #entries = new Map<number, Entry>();
  readonly #queue = new FlushQueue();
  /** By cluster: handouts that are not settled. */
  readonly #outgoing = new Map<number, number>();
  /** Clusters that were dropped while handed out, until that is settled. */
  readonly #closed = new Set<number>();
  #unfinished: Entry | undefined;
  #handedOutCount = 0;
  #bufferCount = 0;
  #cachedBytes = 0;
  #freed = false;
  readonly #stats = {
    writtenBytes: 0,
    flushedBytes: 0,
    droppedBytes: 0,
    entries: 0,
    handouts: 0,
    putBacks: 0,
    hits: 0,
    partialHits: 0,
    misses: 0,
  };

  constructor(options: SeqCacheOptions) {
    const { clusterSize, maxClusters = DEFAULT_MAX_CLUSTERS } = options;
    assert(isPowerOfTwo(clusterSize), "the cluster size is a power of two");
    assert(Number.isInteger(maxClusters) && maxClusters > 0, "at least one cluster fits");
    this.clusterSize = clusterSize;
    this.maxClusters = maxClusters;
    this.#allocator = options.allocator;
  }

  /** Entries, handed out or not. */
  get clusterCount(): number {
    return this.#entries.size;
  }

  /** Bytes that a read would find. */
  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  /** Finished entries that `nextFlush()` has yet to hand out. */
  get finishedCount(): number {
    return this.#queue.length;
  }

  /** Where in the file the next finished entry goes: whoever has room for a neighbour in one write looks here. */
  get nextOffset(): number | undefined {
    const oldest = this.#queue.oldest;
    return oldest === undefined ? undefined : oldest.clusterOffset + oldest.start;
  }

  /** What `nextFlush({ unfinished: true })` would hand out, one after the other, from now on [S9]. */
  get flushableCount(): number {
    return this.#queue.length + (this.#unfinished?.hasUnsent === true ? 1 : 0);
  }

  /** Handouts that are not settled [S8]. */
  get handedOutCount(): number {
    return this.#handedOutCount;
  }

  /** Buffers that the allocator has lent: those of the entries, and of what left while handed out. */
  get bufferCount(): number {
    return this.#bufferCount;
  }

  /**
   * Whether `maxClusters` buffers are in use. `write()` takes bytes all the same [S1]: who finds the
   * cache full writes something out, or waits for those who do, **before** it allocates.
   */
  get full(): boolean {
    return this.#bufferCount >= this.maxClusters;
  }

  get stats(): SeqCacheStats {
    return this.#stats;
  }

  /**
   * Takes bytes for the file [S1, S2]. Never waits, never refuses.
   *
   * Requires: the range was just allocated [S10]. Bytes that follow the last ones are appended; any others
   * begin where no entry is, and not in a cluster that was dropped and is still being written.
   *
   * **After failure** (an assertion, or the allocator): the clusters before the failing one are cached.
   *
   * @param offset - any byte of the file
   * @param bytes - any number; they are copied
   */
  write(offset: number, bytes: Uint8Array): void {
    const { length } = bytes;
    assert(!this.#freed, "the cache is in use");
    assert(offset >= 0 && Number.isSafeInteger(offset + length), `${offset} is a host offset`);
    if (length === 0) return;
    let room = this.clusterSize - this.#positionOf(offset);
    if (length <= room) {
      this.#put(offset, bytes);
      return;
    }
    for (let at = 0; at < length; room = this.clusterSize) {
      const piece = bytes.subarray(at, at + room);
      this.#put(offset + at, piece);
      at += piece.length;
    }
  }

  /**
   * Fills what is cached of a range [S4].
   *
   * Ask the cache **first**, and then the file for the gaps and nothing else. The other way round, bytes
   * may be written and discarded in between, and be read from neither.
   *
   * @param offset - any byte of the file
   * @param target - as long as the range; filled where bytes are cached, untouched elsewhere
   */
  read(offset: number, target: Uint8Array): ReadResult {
    const result = readOverlay(this.#entries, this.clusterSize, offset, target);
    if (result === "miss") this.#stats.misses++;
    else if (result === "hit") this.#stats.hits++;
    else this.#stats.partialHits++;
    return result;
  }

  /**
   * Hands out the oldest finished entry that was not handed out, else, if wanted, the unfinished one
   * when it has bytes that were not [S5]. The unfinished entry stays unfinished, and is handed out again,
   * from its start, when it has grown.
   *
   * Every handout is settled once: `discard()` after its write ended, `putBack()` if it failed.
   */
  nextFlush(options?: { readonly unfinished?: boolean }): SeqFlush | undefined {
    let entry = this.#queue.shift();
    if (
      entry === undefined &&
      options?.unfinished === true &&
      this.#unfinished?.hasUnsent === true
    ) {
      entry = this.#unfinished;
    }
    return entry === undefined ? undefined : this.#handOut(entry);
  }

  /**
   * Forgets the bytes of a handout, which are in the file now [S7]. What was appended since stays.
   *
   * @throws AssertionError when the token was settled before, or is another cache's
   */
  discard(token: FlushToken): void {
    const handout = this.#settle(token);
    const { entry, end } = handout;
    if (entry.cached && end > entry.start) {
      this.#stats.flushedBytes += end - entry.start;
      this.#cachedBytes -= end - entry.start;
      entry.start = end;
      entry.sentEnd = Math.max(entry.sentEnd, end);
      if (entry.start === entry.end) this.#remove(entry);
    }
    this.#letGo(entry);
  }

  /**
   * Takes a handout back whose write failed. Its bytes are still cached, and are handed out again, in
   * their old place in the order. If the entry was dropped meanwhile, this is the same as `discard()`.
   *
   * @throws AssertionError when the token was settled before, or is another cache's
   */
  putBack(token: FlushToken): void {
    const handout = this.#settle(token);
    const { entry, end } = handout;
    this.#stats.putBacks++;
    // A later handout that is still out, or was written, has these bytes too.
    if (entry.cached && end === entry.sentEnd) {
      entry.sentEnd = entry.start;
      if (entry.finished && !entry.queued) this.#queue.add(entry);
    }
    this.#letGo(entry);
  }

  /**
   * Forgets the entry of a cluster that is free now [S14].
   *
   * One that is handed out is forgotten too: reads no longer see it, its token stays to be settled, and
   * until then nothing may be written into the cluster, by this cache (an assertion) or by others (D1: see
   * `isHandedOut()`).
   *
   * @param clusterOffset - host offset of the cluster's first byte
   * @returns whether there was one
   */
  drop(clusterOffset: number): boolean {
    assert(
      this.#positionOf(clusterOffset) === 0,
      `${hex(clusterOffset)} is a cluster's first byte`,
    );
    const index = clusterOffset / this.clusterSize;
    if (this.#outgoing.has(index)) this.#closed.add(index);
    const entry = this.#entries.get(index);
    if (entry === undefined) return false;
    this.#stats.droppedBytes += entry.end - entry.start;
    this.#cachedBytes -= entry.end - entry.start;
    this.#remove(entry);
    if (entry.handoutCount === 0) this.#releaseBuffer(entry);
    return true;
  }

  /** Forgets everything, for a node that failed and is to be closed. Returns how many bytes are lost. */
  dropAll(): number {
    const lost = this.#cachedBytes;
    for (const entry of this.#entries.values()) this.drop(entry.clusterOffset);
    return lost;
  }

  /** Whether a write into the cluster is under way: a handout of it is not settled. */
  isHandedOut(clusterOffset: number): boolean {
    return this.#outgoing.has(Math.floor(clusterOffset / this.clusterSize));
  }

  /**
   * Ends the use of the cache [S15].
   *
   * @throws AssertionError when anything is cached or handed out: it would be lost
   */
  free(): void {
    assert(this.#entries.size === 0, "a cache is empty when it is freed");
    assert(this.#handedOutCount === 0, "every handout is settled when the cache is freed");
    assert(this.#bufferCount === 0, "every buffer is given back when the cache is freed");
    this.#freed = true;
  }

  /** The same as `free()`. */
  [Symbol.dispose](): void {
    this.free();
  }

  /** Stores a piece that lies in one cluster. */
  #put(offset: number, piece: Uint8Array): void {
    let entry = this.#unfinished;
    if (entry === undefined || entry.endOffset !== offset) entry = this.#begin(offset);
    entry.buffer.set(piece, entry.end);
    entry.end += piece.length;
    this.#cachedBytes += piece.length;
    this.#stats.writtenBytes += piece.length;
    // Whether it was begun or appended to [S2].
    if (entry.end === this.clusterSize) this.#finish(entry);
  }

  /** Finishes the unfinished entry, even if partial, and starts a new one [S1]. */
  #begin(offset: number): Entry {
    const position = this.#positionOf(offset);
    const clusterOffset = offset - position;
    const index = clusterOffset / this.clusterSize;
    assert(!this.#entries.has(index), `no bytes are cached for the cluster of ${hex(offset)}`);
    assert(!this.#closed.has(index), `the dropped cluster of ${hex(offset)} is not being written`);
    const buffer = this.#allocator.allocate(this.clusterSize);
    assert(buffer.length === this.clusterSize, "a buffer is as long as was asked for");
    this.#bufferCount++;
    if (this.#unfinished !== undefined) this.#finish(this.#unfinished);
    const entry = new Entry(index, clusterOffset, position, buffer, this.#stats.entries++);
    this.#entries.set(index, entry);
    this.#unfinished = entry;
    return entry;
  }

  /** After this, nothing is appended. What is all handed out already needs no place in the queue. */
  #finish(entry: Entry): void {
    entry.finished = true;
    this.#unfinished = undefined;
    if (entry.hasUnsent) this.#queue.add(entry);
  }

  #handOut(entry: Entry): SeqFlush {
    if (!entry.tailIsZero) {
      entry.buffer.fill(0, entry.end);
      entry.tailIsZero = true;
    }
    entry.sentEnd = entry.end;
    entry.handoutCount++;
    this.#handedOutCount++;
    this.#stats.handouts++;
    this.#outgoing.set(entry.clusterIndex, (this.#outgoing.get(entry.clusterIndex) ?? 0) + 1);
    return new Handout(entry, this);
  }

  #settle(token: FlushToken): Handout {
    assert(
      token instanceof Handout && token.owner === this,
      "a handout is settled once, by its cache",
    );
    token.owner = undefined;
    const { entry } = token;
    entry.handoutCount--;
    this.#handedOutCount--;
    const left = (this.#outgoing.get(entry.clusterIndex) ?? 0) - 1;
    if (left > 0) {
      this.#outgoing.set(entry.clusterIndex, left);
    } else {
      this.#outgoing.delete(entry.clusterIndex);
      this.#closed.delete(entry.clusterIndex);
    }
    return token;
  }

  /** Takes an entry out of the cache. Its buffer is another matter. */
  #remove(entry: Entry): void {
    entry.cached = false;
    this.#entries.delete(entry.clusterIndex);
    if (entry.queued) this.#queue.remove(entry);
    if (this.#unfinished === entry) this.#unfinished = undefined;
  }

  /** After a handout was settled: gives the buffer back if nobody needs it. */
  #letGo(entry: Entry): void {
    if (!entry.cached && entry.handoutCount === 0) this.#releaseBuffer(entry);
  }

  #releaseBuffer(entry: Entry): void {
    this.#bufferCount--;
    this.#allocator.release(entry.buffer);
  }

  /** Where in its cluster an offset lies. Cheaper than `%` where offsets pass 2^31. */
  #positionOf(offset: number): number {
    return offset - Math.floor(offset / this.clusterSize) * this.clusterSize;
  }
}
