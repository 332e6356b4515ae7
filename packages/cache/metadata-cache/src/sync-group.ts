/**
 * The caches that share one store, and so share the outcome of its syncs.
 *
 * Above: MetadataCache, WriteOrder. Below: TableStore.
 *
 * 1. A sync that succeeded made durable what any cache of the group had written before.
 * 2. The operating system reports a failed sync once and may throw the pages away: so every cache of
 *    the group writes again what was not known to be durable (C17).
 * 3. When that includes a table that is no longer in memory, data may be lost: from then on every
 *    sync throws the first cause (C17).
 */
import type { TableStore } from "./store.js";

/** What a cache learns from the group. */
export interface SyncMember {
  /** What was written before is durable. */
  synced(): void;
  /** It is not. Returns whether all of it can be written again. */
  syncFailed(): boolean;
}

const groups = new WeakMap<TableStore, SyncGroup>();

export class SyncGroup {
  readonly #store: TableStore;
  readonly #members: SyncMember[] = [];
  #lost: { readonly cause: unknown } | undefined;

  private constructor(store: TableStore) {
    this.#store = store;
  }

  /** The group of a store. */
  static of(store: TableStore): SyncGroup {
    const group = groups.get(store) ?? new SyncGroup(store);
    groups.set(store, group);
    return group;
  }

  /** Adds a cache. It stays for as long as the store lives. */
  join(member: SyncMember): void {
    this.#members.push(member);
  }

  async sync(): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost.cause;
    try {
      await this.#store.sync();
    } catch (error) {
      for (const member of this.#members) {
        if (!member.syncFailed()) this.#lost = { cause: error };
      }
      throw error;
    }
    for (const member of this.#members) member.synced();
  }
}
