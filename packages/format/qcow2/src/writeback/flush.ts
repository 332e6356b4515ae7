/**
 * Handing everything dirty down to the operating system [C7].
 *
 * Above: driver.ts (`flushToOs`, `reopen`, `close`). Below: the caches, order.ts through them, refcount/free.ts.
 *
 * The walk:
 *   1. the compressed cache: data that L2 entries name already;
 *   2. the L2 cache: first what it waits for (compressed data, refcounts, data), then the tables;
 *   3. the freed clusters: their drop is made durable, their refcounts are lowered;
 *   4. the refcount cache, unless refcounts are lazy: then the dirty bit says that they are stale [C8];
 *   5. discards of clusters whose drop is durable.
 * The graph then flushes the children, which syncs the file.
 *
 * A step that fails does not keep the next ones from trying: what must not go before it is held back by
 * the edges, not by the walk. All that failed is reported. What is not written stays dirty, and the next
 * flush tries again [C17]. A flush covers the requests that ended before it began.
 */
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { DamageError } from "../refcount/damage.js";
import { lowerFreed, passDiscards } from "../refcount/free.js";

/**
 * Writes all that is dirty. Returns plainly when there is nothing, and nobody holds the lock: whoever holds
 * it may be writing tables, which no longer count as dirty and are not in the file yet.
 */
export function flushToOs(image: Qcow2Image): MaybePromise<void> {
  if (image.frozen) image.refuseFailed();
  const { l2, refcounts, frees, lock, compressedCache, externalData } = image;
  if (
    lock.locked ||
    l2.dirtyCount > 0 ||
    (refcounts.dirtyCount > 0 && !image.lazyRefcounts) ||
    !frees.empty ||
    externalData?.settled === false ||
    compressedCache?.dirty === true
  ) {
    return flushLocked(image);
  }
  image.refuseFailed();
}

/** The walk, under the lock. Requires: the caller does not hold it. */
export async function flushLocked(image: Qcow2Image): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    await writeDown(image);
  } finally {
    lease.release();
  }
}

/** The walk itself. Holds: the image lock. Requires: no table is pinned. */
export async function writeDown(image: Qcow2Image): Promise<void> {
  const walk = new BestEffort(image.nodeName);
  await walk.attempt("compressed cache", () => image.compressedCache?.writeToStore());
  await walk.attempt("L2 cache", () => image.l2.write());
  await walk.attempt("freed clusters", () => lowerFreed(image));
  if (!image.lazyRefcounts) await walk.attempt("refcount cache", () => image.refcounts.write());
  walk.end();
  image.refuseFailed();
  await passDiscards(image);
  await image.externalData?.passDiscards(image);
}

/** Steps that are all tried. `end()` throws the first failure; when there are others, its cause names all. */
export class BestEffort {
  readonly #nodeName: string;
  readonly #failures: { readonly step: string; readonly error: unknown }[] = [];

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  async attempt(step: string, work: () => MaybePromise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#failures.push({ step, error });
    }
  }

  get succeeded(): boolean {
    return this.#failures.length === 0;
  }

  end(): void {
    const [first, ...others] = this.#failures;
    if (first === undefined) return;
    // Damage decides what becomes of the image: whoever catches must see it for what it is [C16].
    const damage = this.#failures.find(({ error }) => error instanceof DamageError);
    if (damage !== undefined) throw damage.error;
    if (others.length === 0 || !(first.error instanceof BlockError)) throw first.error;
    const list = this.#failures.map(({ step, error }) => `${step}: ${messageOf(error)}`).join("; ");
    const all = this.#failures.map(({ error }) => error);
    throw new BlockError(first.error.code, `${this.#nodeName}: ${first.error.message}`, {
      ...(first.error.op === undefined ? {} : { op: first.error.op }),
      node: this.#nodeName,
      cause: new AggregateError(all, list),
    });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
