/** What a cache needs from the outside: a file to keep its tables in, and others to wait for. */
import type { IoVector, MaybePromise } from "@blocklayer/bytes";

/**
 * The file below a cache. Caches that depend on each other and share one file must be given the
 * same object: they then share one sync.
 */
export interface TableStore {
  /** Fills `into` with the bytes at a host offset; the end of the file reads as zeroes. */
  read(hostOffset: number, into: Uint8Array): MaybePromise<void>;
  /** Writes one table. The bytes do not change until it is done. */
  write(hostOffset: number, bytes: Uint8Array): MaybePromise<void>;
  /** Writes neighbouring tables at once, in order. Without it they are written one by one. */
  writev?(hostOffset: number, tables: IoVector): MaybePromise<void>;
  /**
   * Makes everything durable that was written before the call: tables, and guest data too, also
   * where that lives in a data file of its own.
   *
   * **After failure:** the caches concerned write their tables again (C17), but the operating system
   * may have thrown other people's pages away: who owns the file must treat its node as failed.
   */
  sync(): MaybePromise<void>;
}

/** Anything that a cache can depend on. A MetadataCache is one. */
export interface Flushable {
  /** Writes all that it holds and makes it durable; holds on to what could not be written. */
  flush(): MaybePromise<void>;
  /**
   * For caches of another kind over the same store: writes all that it holds, and leaves the sync to the
   * cache that depends on it, which needs one anyway. Without it `flush` is called.
   */
  writeToStore?(): MaybePromise<void>;
}
