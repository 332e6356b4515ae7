/**
 * A table in the cache: its bytes, and what the cache knows of it.
 *
 * Above: the caches hand out `Table`. Below: nothing.
 *
 * 1. A slot belongs to one host offset for its whole life; a table that is loaded again gets a new
 *    slot, so a reference that outlived its table is noticed. Only the memory is used again.
 * 2. A slot with pins is never evicted, dropped or given away.
 */

/** A table as its users see it. From `get()` it is pinned; from `peek()` it is valid until the next await. */
export interface Table {
  /** Where the table starts in the file, in bytes. */
  readonly hostOffset: number;
  /** The whole table. Who changes it calls `markDirty()`. */
  readonly bytes: Uint8Array;
  /** The same bytes. */
  readonly view: DataView;
}

/** The memory of one table. */
export interface TableMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** A table, its pins, its state, and its place in the LRU list. */
export class Slot implements Table {
  readonly hostOffset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** The cache that it belongs to, compared by identity; undefined once it was forgotten. */
  owner: object | undefined;
  pins = 0;
  dirty = false;
  /** Zero-filled by `getEmpty()` and not marked dirty since: its bytes are not those of the file. */
  fresh = false;
  newer: Slot = this;
  older: Slot = this;

  constructor(hostOffset: number, memory: TableMemory, owner: object | undefined) {
    this.hostOffset = hostOffset;
    this.bytes = memory.bytes;
    this.view = memory.view;
    this.owner = owner;
  }
}
