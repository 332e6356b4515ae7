/**
 * One pool of threads for all codecs of the process that want the same number of them, so that ten
 * open images do not start ten pools.
 *
 * Above: NodeCodec. Below: WorkerPool.
 */
import { assert } from "@blocklayer/bytes";
import { WorkerPool } from "./worker-pool.js";

interface Entry {
  readonly pool: WorkerPool;
  users: number;
}

const entries = new Map<number, Entry>();

/** A share in a pool. */
export class PoolLease {
  readonly pool: WorkerPool;
  readonly #entry: Entry;
  #returned = false;

  /** Makes the pool, which has no threads yet, or shares it. */
  constructor(threads: number) {
    const entry = entries.get(threads) ?? { pool: new WorkerPool(threads), users: 0 };
    entries.set(threads, entry);
    entry.users++;
    this.#entry = entry;
    this.pool = entry.pool;
  }

  /** The last one ends the threads. Requires: no job of this user is under way. */
  async return(): Promise<void> {
    assert(!this.#returned, "a pool is given back once");
    this.#returned = true;
    this.#entry.users--;
    if (this.#entry.users > 0) return;
    entries.delete(this.pool.threads);
    await this.pool.close();
  }
}
