/** What a SeqCache is given, and what it tells. Above: the driver, SeqCache. */

/** Where the buffers come from. */
export interface SeqCacheAllocator {
  /**
   * Lends memory, aligned as the file wants it. It may hold anything: the cache clears what shows.
   *
   * Requires: it returns at once. What it throws passes through `write()`.
   */
  allocate(lengthBytes: number): Uint8Array;
  /** Takes back what `allocate` lent. No handout refers to it any more. */
  release(buffer: Uint8Array): void;
}

/** What a cache is made of. */
export interface SeqCacheOptions {
  /** Bytes of a host cluster, a power of two. */
  readonly clusterSize: number;
  readonly allocator: SeqCacheAllocator;
  /** How many buffers make the cache `full`; 64 when left out. */
  readonly maxClusters?: number;
}

/** Counters since the cache was made. */
export interface SeqCacheStats {
  /** Bytes that came in by `write()`. */
  readonly writtenBytes: number;
  /** Bytes that left by `discard()`: they are in the file. */
  readonly flushedBytes: number;
  /** Bytes that left by `drop()` and `dropAll()`. */
  readonly droppedBytes: number;
  /** Entries begun, each with a buffer. */
  readonly entries: number;
  readonly handouts: number;
  readonly putBacks: number;
  /** Reads that were filled. */
  readonly hits: number;
  /** Reads that were filled in part. */
  readonly partialHits: number;
  readonly misses: number;
}
