/**
 * What must be durable before a cache may write: its edges to others, and the sync that it owes.
 *
 * Above: MetadataCache, which settles before each write. Below: Flushable, SyncGroup.
 *
 * 1. An edge goes away only when the other side is durable (C4).
 * 2. No chains: who has edges is not the target of one. So settling recurses one level at most, and
 *    no cycle can form.
 *
 * Locking: the image lock of the caller.
 */
import { assert, type MaybePromise } from "@blocklayer/bytes";
import type { Flushable } from "./store.js";
import type { SyncGroup } from "./sync-group.js";

/** A cache as its order sees it. */
export interface OrderedCache extends Flushable {
  readonly name: string;
  /** Whether anything in it may not be durable yet. */
  readonly dirty: boolean;
  write(): MaybePromise<void>;
}

/** The orders of all caches, to see whether a Flushable has edges of its own. */
const orders = new WeakMap<Flushable, WriteOrder>();

export class WriteOrder {
  readonly #cache: OrderedCache;
  readonly #group: SyncGroup;
  readonly #edges = new Set<Flushable>();
  /** The orders of the caches that have an edge to this one. */
  readonly dependents: Set<WriteOrder> = new Set();
  #owesSync = false;

  constructor(cache: OrderedCache, group: SyncGroup) {
    this.#cache = cache;
    this.#group = group;
    orders.set(cache, this);
  }

  get hasEdges(): boolean {
    return this.#edges.size > 0;
  }

  /** Adds an edge, after flushing what would make a chain with it. */
  dependOn(other: Flushable): MaybePromise<void> {
    if (this.#edges.has(other)) return;
    assert(other !== this.#cache, `${this.#cache.name}: a cache does not depend on itself`);
    const chained = orders.get(other)?.hasEdges ?? false;
    if (chained || this.dependents.size > 0) return this.#unchain(other);
    this.#add(other);
  }

  /** One sync comes before the next write (C5). */
  oweSync(): void {
    this.#owesSync = true;
  }

  /** A sync of the group succeeded. */
  synced(): void {
    this.#owesSync = false;
  }

  /**
   * Makes durable what the cache depends on, and clears the edges. Caches of the same group are
   * written first and share one sync.
   *
   * **After failure:** all edges stand.
   */
  async settle(): Promise<void> {
    if (this.#edges.size === 0 && !this.#owesSync) return;
    const edges = [...this.#edges];
    let needsSync = this.#owesSync;
    for (const other of edges) {
      const order = orders.get(other);
      if (order !== undefined && order.#group === this.#group) {
        await order.#cache.write();
        needsSync ||= order.#cache.dirty;
      } else if (other.writeToStore !== undefined) {
        await other.writeToStore();
        needsSync = true;
      } else await other.flush();
    }
    if (needsSync) await this.#group.sync();
    for (const other of edges) {
      this.#edges.delete(other);
      orders.get(other)?.dependents.delete(this);
    }
  }

  async #unchain(other: Flushable): Promise<void> {
    await orders.get(other)?.settle();
    for (const dependent of this.dependents) await dependent.settle();
    this.#add(other);
  }

  #add(other: Flushable): void {
    this.#edges.add(other);
    orders.get(other)?.dependents.add(this);
  }
}
