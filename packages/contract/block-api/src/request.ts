/** What may go with a request. */

/** Options of every request. */
export interface RequestOptions {
  /** Aborting rejects with `ECANCELED`. What was already written stays written. */
  readonly signal?: AbortSignal;
  /**
   * At the node that gets the request, no other request that overlaps runs beside it: it waits for older ones, and
   * younger ones wait for it. For who reads in order to write back. The graph does this; drivers ignore it.
   */
  readonly serialising?: boolean;
}

/** Options of a write. */
export interface WriteOptions extends RequestOptions {
  /** The bytes are on stable storage before the write resolves. */
  readonly fua?: boolean;
  /** Store the bytes compressed. Needs `capabilities.compressedWrite`, whole clusters or the end of the disk. */
  readonly compressed?: boolean;
}

/** Options of `writeZeroes`. */
export interface WriteZeroesOptions extends RequestOptions {
  readonly fua?: boolean;
  /** Space may be given back, as long as the range reads as zeroes. */
  readonly mayUnmap?: boolean;
  /** Fail with `ENOTSUP` rather than write zeroes byte by byte. */
  readonly noFallback?: boolean;
}

/** How to ask for a block status. */
export interface BlockStatusOptions extends RequestOptions {
  /** `true`: find zeroes as exactly as possible. `false`: only allocation matters; be quick. */
  readonly wantZero?: boolean;
  /**
   * Of a child that a graph gave: `zero` as a reader of the child finds it, also where a layer below shows through.
   * A driver is never asked so, and a child outside of a graph tells of its own layer alone.
   */
  readonly throughChain?: boolean;
}

/** How space is set aside when a file grows or is made. */
export type PreallocationMode = "off" | "metadata" | "falloc" | "full";

/** Options of `truncate`. */
export interface TruncateOptions extends RequestOptions {
  readonly preallocation?: PreallocationMode;
  /** The new part must read as zeroes, even where a backing file is longer. */
  readonly zeroWrite?: boolean;
}
