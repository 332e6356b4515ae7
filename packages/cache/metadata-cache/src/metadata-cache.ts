/**
 * A cache of fixed-size tables of one file, with write-back and write ordering.
 *
 * Above: L2Cache and RefcountCache, the qcow2 driver. Below: WriteOrder, LruList, a TableStore.
 *
 * Invariants:
 * 1. Memory is bounded: cached, loading and spare tables together are at most `maxTables`.
 * 2. A pinned table is never evicted. A table is visible to `peek()` only when all of it was read.
 * 3. No dirty table is written while an edge stands or a sync is owed (C4, C5): `write()` settles
 *    these first. An edge goes away only when the other side is durable.
 * 4. A table stops being dirty when its write begins and is dirty again if that fails, or if a sync
 *    fails that would have made it durable (C17).
 *
 * Locking: one lock of the caller (the image lock) around every call that may wait or changes
 * something. `peek()` may run at any time.
 */
import {
  andThen,
  assert,
  AssertionError,
  hex,
  isPowerOfTwo,
  type MaybePromise,
  viewOf,
} from "@blocklayer/bytes";
import { attempt } from "./attempt.js";
import { LruList } from "./lru-list.js";
import type { Flushable, TableStore } from "./store.js";
import { SyncGroup } from "./sync-group.js";
import { Slot, type Table, type TableMemory } from "./table.js";
import { WriteOrder } from "./write-order.js";
import { type BeforeWrite, writeSlots } from "./write-slots.js";

/** The table size when none is given: the smallest unit that the L2 cache of a large disk is cut into. */
const DEFAULT_TABLE_SIZE_BYTES = 4096;
/** The smallest table: a sector. */
const MIN_TABLE_SIZE_BYTES = 512;

/** What a cache is made of. */
export interface MetadataCacheOptions {
  /** For messages: `L2 cache`. */
  readonly name: string;
  /** Bytes of a table, a power of two from 512; 4096 when left out. Host offsets are multiples of it. */
  readonly tableSizeBytes?: number;
  /** How many tables memory may hold; at least as many as are ever pinned at once. */
  readonly maxTables: number;
  readonly store: TableStore;
  /** Sees every range before it is written; what it throws stops the writing (C16). */
  readonly beforeWrite?: BeforeWrite;
  /** Hears of every read of a table, and may have it wait. */
  readonly beforeRead?: () => MaybePromise<void>;
}

/** Counters since the cache was made. */
export interface CacheStats {
  /** Lookups by `peek()`, `get()` and `getEmpty()` that found their table. */
  readonly hits: number;
  /** `get()` and `getEmpty()` that did not. */
  readonly misses: number;
  /** Tables handed to the store. */
  readonly writes: number;
  readonly evictions: number;
}

/**
 * The cache.
 *
 * @example
 * const table = await cache.get(0x50000);
 * table.view.setUint32(0, 1);
 * cache.markDirty(table);
 * cache.release(table);
 * await cache.flush();
 */
export class MetadataCache implements Flushable {
  readonly name: string;
  readonly tableSizeBytes: number;
  readonly maxTables: number;
  readonly #store: TableStore;
  readonly #beforeWrite: BeforeWrite | undefined;
  readonly #beforeRead: (() => MaybePromise<void>) | undefined;
  /** Exact, since the table size is a power of two. Small integers are the faster keys. */
  readonly #tablesPerByte: number;
  readonly #slots = new Map<number, Slot>();
  readonly #lru = new LruList();
  readonly #dirty = new Set<Slot>();
  /** Written since the last sync that succeeded, and still cached. */
  readonly #unsynced = new Set<Slot>();
  readonly #loading = new Set<number>();
  readonly #spare: TableMemory[] = [];
  #memoryCount = 0;
  /** A table left the cache after its write and before a sync: it cannot be written again. */
  #evictedUnsynced = false;
  readonly #group: SyncGroup;
  readonly #order: WriteOrder;
  readonly #stats = { hits: 0, misses: 0, writes: 0, evictions: 0 };

  constructor(options: MetadataCacheOptions) {
    const tableSizeBytes = options.tableSizeBytes ?? DEFAULT_TABLE_SIZE_BYTES;
    assert(
      isPowerOfTwo(tableSizeBytes) && tableSizeBytes >= MIN_TABLE_SIZE_BYTES,
      `${options.name}: table size ${tableSizeBytes} is a power of two from 512`,
    );
    assert(
      Number.isSafeInteger(options.maxTables) && options.maxTables >= 1,
      `${options.name}: maxTables ${options.maxTables} is at least 1`,
    );
    this.name = options.name;
    this.tableSizeBytes = tableSizeBytes;
    this.maxTables = options.maxTables;
    this.#store = options.store;
    this.#beforeWrite = options.beforeWrite;
    this.#beforeRead = options.beforeRead;
    this.#tablesPerByte = 1 / tableSizeBytes;
    this.#group = SyncGroup.of(options.store);
    this.#group.join({ synced: () => this.#synced(), syncFailed: () => this.#syncFailed() });
    this.#order = new WriteOrder(this, this.#group);
  }

  /** How many tables are waiting to be written. */
  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Whether anything in here may not be durable yet: unwritten, or written and not synced. */
  get dirty(): boolean {
    return this.#dirty.size > 0 || this.#unsynced.size > 0 || this.#evictedUnsynced;
  }

  /** Memory of all tables, spare ones included. It only grows, up to `maxTables` tables. */
  get memoryBytes(): number {
    return this.#memoryCount * this.tableSizeBytes;
  }

  get stats(): CacheStats {
    return this.#stats;
  }

  /**
   * The table, if it is in memory. It is not pinned: it is valid until the next await.
   *
   * @param hostOffset - in bytes, a multiple of the table size
   */
  peek(hostOffset: number): Table | undefined {
    const slot = this.#slots.get(hostOffset * this.#tablesPerByte);
    if (slot === undefined) {
      this.#keyOf(hostOffset);
      return undefined;
    }
    this.#stats.hits++;
    this.#lru.touch(slot);
    return slot;
  }

  /**
   * The table, read from the file if need be, with one more pin: `release()` it.
   *
   * Holds: the image lock. Suspends: unless the table is in memory.
   *
   * @param hostOffset - in bytes, a multiple of the table size
   * @throws what the store throws when the read fails, or the write that has to make room
   */
  get(hostOffset: number): MaybePromise<Table> {
    const slot = this.#slots.get(hostOffset * this.#tablesPerByte);
    if (slot !== undefined) return this.#pin(slot);
    return this.#load(hostOffset, (memory) => this.#read(hostOffset, memory.bytes));
  }

  /**
   * A table of zeroes with one more pin, without reading: for a table that was just allocated.
   * Unless it is marked dirty while it is pinned it is forgotten again.
   *
   * Holds: the image lock. Suspends: when room has to be made.
   *
   * Requires: nobody else has the table pinned.
   */
  getEmpty(hostOffset: number): MaybePromise<Table> {
    const slot = this.#slots.get(hostOffset * this.#tablesPerByte);
    if (slot !== undefined) {
      this.#check(slot.pins === 0, hostOffset, "an emptied table is not in use");
      slot.bytes.fill(0);
      slot.fresh = !slot.dirty;
      return this.#pin(slot);
    }
    const table = this.#load(hostOffset, (memory) => void memory.bytes.fill(0));
    return andThen(table, (loaded) => {
      (loaded as Slot).fresh = true;
      return loaded;
    });
  }

  /** Says that the bytes of a cached table changed. Holds: the image lock. */
  markDirty(table: Table): void {
    const slot = this.#own(table);
    slot.fresh = false;
    if (slot.dirty) return;
    slot.dirty = true;
    this.#dirty.add(slot);
  }

  /** Gives a pin back. Holds: the image lock. */
  release(table: Table): void {
    const slot = this.#own(table);
    this.#check(slot.pins > 0, slot.hostOffset, "a released table is pinned");
    slot.pins--;
    if (slot.pins === 0 && slot.fresh) this.#forget(slot);
  }

  /**
   * From here on, no dirty table of this cache is written before everything in `other` is durable
   * (C4). Flushes first what would make a chain or a cycle with the new edge.
   *
   * Holds: the image lock. Suspends: only in that case.
   *
   * **After failure:** the edge was not added.
   */
  dependsOn(other: Flushable): MaybePromise<void> {
    return this.#order.dependOn(other);
  }

  /** One sync of the store comes before the next write of a table (C5). Holds: the image lock. */
  dependsOnSync(): void {
    this.#order.oweSync();
  }

  /**
   * Writes every dirty table, in ascending order, after what they depend on is durable.
   * Does not sync what it wrote.
   *
   * Holds: the image lock. Suspends: when a table is dirty.
   *
   * **After failure:** what could not be written is dirty, and edges stand unless they were met.
   */
  write(): MaybePromise<void> {
    if (this.#dirty.size > 0) return this.#writeDirty();
  }

  /**
   * Writes every dirty table and syncs the store.
   *
   * Holds: the image lock. Suspends: yes.
   *
   * **After failure:** as for `write()`; a flush succeeds only once all is on the disk (C17).
   */
  async flush(): Promise<void> {
    await this.write();
    await this.#group.sync();
  }

  /**
   * Forgets the tables of a range without writing them: they were freed.
   *
   * Holds: the image lock.
   *
   * Requires: the range consists of whole tables, none of them pinned.
   */
  drop(hostOffset: number, lengthBytes: number): void {
    const first = this.#keyOf(hostOffset);
    const end = this.#keyOf(hostOffset + lengthBytes);
    if (end - first <= this.#slots.size) {
      for (let key = first; key < end; key++) this.#dropKey(key);
      return;
    }
    for (const key of this.#slots.keys()) if (key >= first && key < end) this.#dropKey(key);
  }

  /**
   * Flushes, then forgets every table.
   *
   * Holds: the image lock. Suspends: yes.
   *
   * Requires: no table is pinned.
   */
  async empty(): Promise<void> {
    await this.flush();
    for (const slot of this.#slots.values()) {
      this.#check(slot.pins === 0, slot.hostOffset, "an emptied cache has no pins");
      this.#forget(slot);
    }
  }

  /** Like assert(), but makes the message only when it is needed: this is on the way of each hit. */
  #check(condition: boolean, hostOffset: number, rule: string): void {
    if (condition) return;
    throw new AssertionError(`${this.name}: table at host offset ${hex(hostOffset)}: ${rule}`);
  }

  #keyOf(hostOffset: number): number {
    const key = hostOffset * this.#tablesPerByte;
    const valid = Number.isSafeInteger(key) && Number.isSafeInteger(hostOffset) && key >= 0;
    this.#check(valid, hostOffset, "is at a multiple of the table size");
    return key;
  }

  #own(table: Table): Slot {
    const slot = table as Slot;
    this.#check(slot.owner === this, slot.hostOffset, "is one of this cache");
    return slot;
  }

  #pin(slot: Slot): Table {
    this.#stats.hits++;
    slot.pins++;
    this.#lru.touch(slot);
    return slot;
  }

  #load(
    hostOffset: number,
    fill: (memory: TableMemory) => MaybePromise<void>,
  ): MaybePromise<Table> {
    const key = this.#keyOf(hostOffset);
    this.#check(!this.#loading.has(key), hostOffset, "loaded by one caller at a time");
    this.#stats.misses++;
    this.#loading.add(key);
    const loaded = attempt(
      () => andThen(this.#takeMemory(), (memory) => this.#fillSlot(hostOffset, memory, fill)),
      () => this.#loading.delete(key),
    );
    return andThen(loaded, (slot) => {
      this.#loading.delete(key);
      this.#slots.set(key, slot);
      this.#lru.add(slot);
      return slot;
    });
  }

  #fillSlot(
    hostOffset: number,
    memory: TableMemory,
    fill: (memory: TableMemory) => MaybePromise<void>,
  ): MaybePromise<Slot> {
    const filled = attempt(
      () => fill(memory),
      () => this.#spare.push(memory),
    );
    return andThen(filled, () => {
      const slot = new Slot(hostOffset, memory, this);
      slot.pins = 1;
      return slot;
    });
  }

  /** Memory for one more table: spare, new, or that of the table that was not used for longest. */
  #takeMemory(): MaybePromise<TableMemory> {
    const spare = this.#spare.pop();
    if (spare !== undefined) return spare;
    if (this.#memoryCount < this.maxTables) {
      this.#memoryCount++;
      const bytes = new Uint8Array(this.tableSizeBytes);
      return { bytes, view: viewOf(bytes) };
    }
    const victim = this.#lru.oldestUnpinned();
    assert(
      victim !== undefined,
      `${this.name}: fewer than maxTables (${this.maxTables}) tables are pinned at once`,
    );
    if (!victim.dirty) return this.#evict(victim);
    // All dirty tables go, not only this one: the syncs that order them are then paid once for many
    // evictions. The search begins anew, since the pins may have changed meanwhile.
    return andThen(this.#writeDirty(), () => this.#takeMemory());
  }

  #evict(slot: Slot): TableMemory {
    this.#stats.evictions++;
    if (this.#unsynced.has(slot)) this.#evictedUnsynced = true;
    return this.#remove(slot);
  }

  #dropKey(key: number): void {
    const slot = this.#slots.get(key);
    if (slot === undefined) return;
    this.#check(slot.pins === 0, slot.hostOffset, "a dropped table is not pinned");
    this.#forget(slot);
  }

  #forget(slot: Slot): void {
    this.#spare.push(this.#remove(slot));
  }

  /** Takes a table out of the cache; its memory is the caller's. */
  #remove(slot: Slot): TableMemory {
    this.#slots.delete(slot.hostOffset * this.#tablesPerByte);
    this.#lru.remove(slot);
    this.#dirty.delete(slot);
    this.#unsynced.delete(slot);
    slot.owner = undefined;
    return { bytes: slot.bytes, view: slot.view };
  }

  #read(hostOffset: number, into: Uint8Array): MaybePromise<void> {
    const held = this.#beforeRead?.();
    if (!(held instanceof Promise)) return this.#store.read(hostOffset, into);
    return held.then(() => this.#store.read(hostOffset, into));
  }

  async #writeDirty(): Promise<void> {
    await this.#order.settle();
    const slots = [...this.#dirty].sort((a, b) => a.hostOffset - b.hostOffset);
    await writeSlots(slots, this.#store, this.#beforeWrite, {
      begin: (slot) => {
        this.#stats.writes++;
        slot.pins++;
        slot.dirty = false;
        this.#dirty.delete(slot);
        this.#unsynced.add(slot);
      },
      end: (slot, failed) => {
        slot.pins--;
        if (failed) this.markDirty(slot);
      },
    });
  }

  #synced(): void {
    this.#unsynced.clear();
    this.#evictedUnsynced = false;
    this.#order.synced();
  }

  #syncFailed(): boolean {
    for (const slot of this.#unsynced) this.markDirty(slot);
    this.#unsynced.clear();
    return !this.#evictedUnsynced;
  }
}
