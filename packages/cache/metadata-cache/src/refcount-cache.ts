/**
 * The cache of refcount blocks, or slices of them, with any width of counts.
 *
 * Above: the allocator of the qcow2 driver. Below: MetadataCache, refcount-bits.
 *
 * Source: qcow2 specification, "Host cluster management".
 */
import { assert } from "@blocklayer/bytes";
import { MetadataCache, type MetadataCacheOptions } from "./metadata-cache.js";
import {
  isRefcountBits,
  maxRefcount,
  type RefcountBits,
  readRefcount,
  writeRefcount,
} from "./refcount-bits.js";
import type { Table } from "./table.js";

/** What a refcount cache is made of. */
export interface RefcountCacheOptions extends MetadataCacheOptions {
  /** The width of a count, in bits. */
  readonly refcountBits: RefcountBits;
}

export class RefcountCache extends MetadataCache {
  readonly refcountBits: RefcountBits;
  /** The largest count that the image can hold. */
  readonly maxRefcount: number;
  /** Counts in one table. */
  readonly entriesPerTable: number;

  constructor(options: RefcountCacheOptions) {
    super(options);
    assert(isRefcountBits(options.refcountBits), "the refcount width is a power of two up to 64");
    this.refcountBits = options.refcountBits;
    this.maxRefcount = maxRefcount(options.refcountBits);
    this.entriesPerTable = (this.tableSizeBytes * 8) / options.refcountBits;
  }

  /**
   * A count of a table.
   *
   * @throws CorruptImageError when it is past 2^53 - 1
   */
  getRefcount(table: Table, index: number): number {
    return readRefcount(table.bytes, this.refcountBits, index, table.hostOffset);
  }

  /**
   * Changes a count and marks the table dirty. Holds: the image lock.
   *
   * Requires: `0 <= value <= maxRefcount`.
   */
  setRefcount(table: Table, index: number, value: number): void {
    // First: it refuses tables of others before anything is changed.
    this.markDirty(table);
    writeRefcount(table.bytes, this.refcountBits, index, value);
  }
}
