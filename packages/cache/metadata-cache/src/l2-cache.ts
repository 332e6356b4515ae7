/**
 * The cache of L2 tables, in slices: 64-bit entries, or 128-bit ones of extended L2.
 *
 * Above: the mapping of the qcow2 driver. Below: MetadataCache.
 *
 * An entry is read and written as two 32-bit halves: its top bits are flags, and a number would lose
 * them. The slice of a table that holds an entry starts at
 * `tableOffset + floor(entryIndex / entriesPerTable) * tableSizeBytes`.
 *
 * Source: qcow2 specification, "Cluster mapping" and "Extended L2 Entries".
 */
import { assert } from "@blocklayer/bytes";
import { MetadataCache, type MetadataCacheOptions } from "./metadata-cache.js";
import type { Table } from "./table.js";

/** What an L2 cache is made of. */
export interface L2CacheOptions extends MetadataCacheOptions {
  /** 8, or 16 where each entry has a subcluster bitmap behind it. */
  readonly entrySizeBytes?: 8 | 16;
}

export class L2Cache extends MetadataCache {
  readonly entrySizeBytes: 8 | 16;
  /** Entries in one slice. */
  readonly entriesPerTable: number;

  constructor(options: L2CacheOptions) {
    super(options);
    this.entrySizeBytes = options.entrySizeBytes ?? 8;
    this.entriesPerTable = this.tableSizeBytes / this.entrySizeBytes;
  }

  /** Bits 32 to 63 of an entry: the flags and the top of the offset. */
  entryHigh(table: Table, index: number): number {
    return table.view.getUint32(index * this.entrySizeBytes);
  }

  /** Bits 0 to 31 of an entry. */
  entryLow(table: Table, index: number): number {
    return table.view.getUint32(index * this.entrySizeBytes + 4);
  }

  /** Changes an entry and marks the table dirty. Holds: the image lock. */
  setEntry(table: Table, index: number, high: number, low: number): void {
    this.#setHalves(table, index, 0, high, low);
  }

  /** Bits 32 to 63 of a subcluster bitmap: which subclusters read as zero. */
  bitmapHigh(table: Table, index: number): number {
    return table.view.getUint32(this.#bitmapAt(index));
  }

  /** Bits 0 to 31 of a subcluster bitmap: which subclusters are allocated. */
  bitmapLow(table: Table, index: number): number {
    return table.view.getUint32(this.#bitmapAt(index) + 4);
  }

  /** Changes a subcluster bitmap and marks the table dirty. Holds: the image lock. */
  setBitmap(table: Table, index: number, high: number, low: number): void {
    assert(this.entrySizeBytes === 16, "the entries have subcluster bitmaps");
    this.#setHalves(table, index, 8, high, low);
  }

  #bitmapAt(index: number): number {
    assert(this.entrySizeBytes === 16, "the entries have subcluster bitmaps");
    return index * 16 + 8;
  }

  #setHalves(table: Table, index: number, at: number, high: number, low: number): void {
    assert(index >= 0 && index < this.entriesPerTable, "the entry lies in its slice");
    // First: it refuses tables of others before anything is changed.
    this.markDirty(table);
    const position = index * this.entrySizeBytes + at;
    table.view.setUint32(position, high);
    table.view.setUint32(position + 4, low);
  }
}
