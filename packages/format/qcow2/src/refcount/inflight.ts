/**
 * Host clusters that requests in flight may still touch [D1].
 *
 * Above: image.ts reports every guest read and write of the file; refcount/free.ts reports every
 * cluster whose refcount fell to 0; the allocator asks before it takes a cluster.
 *
 * Instead of counting each cluster on each request, requests are counted by *epoch*: a cluster that
 * is freed ends the current epoch, and it stays out of the allocator's reach until every request of
 * that epoch, and of all before it, has ended. Who began later cannot have found the cluster in a
 * table. A read so costs one increment, and nothing at all when the child answers at once.
 *
 * 1. Epochs end in order: `#oldest` is the only one whose clusters may be let go.
 * 2. A cluster cools in at most one epoch, since it must be free and taken again to be freed again.
 * 3. Nothing here waits.
 */
import { assert } from "@blocklayer/bytes";
import type { ClusterIndex } from "../geometry.js";

/** The requests that began between two frees. */
export class Epoch {
  active = 0;
  next: Epoch | undefined;
  readonly cooling: ClusterIndex[] = [];
  /** Ends one request. Made once, so that a request needs no closure of its own. */
  readonly settle: () => void;

  constructor(ended: () => void) {
    this.settle = () => {
      this.active--;
      assert(this.active >= 0, "a request in flight ends once");
      if (this.active === 0) ended();
    };
  }
}

export class HostInFlight {
  readonly #cooled: (cluster: ClusterIndex) => void;
  readonly #cooling = new Set<ClusterIndex>();
  readonly #advance = (): void => this.#letGo();
  #oldest: Epoch = new Epoch(this.#advance);
  #current: Epoch = this.#oldest;

  /** @param cooled - told of each cluster that the allocator may take again */
  constructor(cooled: (cluster: ClusterIndex) => void) {
    this.#cooled = cooled;
  }

  /** How many free clusters wait for requests to end. */
  get coolingCount(): number {
    return this.#cooling.size;
  }

  /** How many requests may still touch clusters that are freed from now on. */
  get activeCount(): number {
    let count = 0;
    for (let one: Epoch | undefined = this.#oldest; one !== undefined; one = one.next) {
      count += one.active;
    }
    return count;
  }

  /** Counts a request to the file until its promise settles. */
  track(request: Promise<unknown>): void {
    const epoch = this.enter();
    request.then(epoch.settle, epoch.settle);
  }

  /** Counts a request by hand, from a lookup to the moment its I/O is tracked: call `settle` once. */
  enter(): Epoch {
    let epoch = this.#current;
    if (epoch.cooling.length > 0) {
      // Later requests count elsewhere, so a steady stream of them does not keep the clusters.
      epoch = new Epoch(this.#advance);
      this.#current.next = epoch;
      this.#current = epoch;
    }
    epoch.active++;
    return epoch;
  }

  /** Whether requests in flight may still touch this free cluster. */
  isCooling(cluster: ClusterIndex): boolean {
    return this.#cooling.size > 0 && this.#cooling.has(cluster);
  }

  /**
   * A cluster's refcount is 0 now. Tells `cooled` at once when nothing is in flight, else when all
   * that is in flight has ended.
   */
  freed(cluster: ClusterIndex): void {
    if (this.#current.active === 0 && this.#oldest === this.#current) {
      this.#cooled(cluster);
      return;
    }
    this.#current.cooling.push(cluster);
    this.#cooling.add(cluster);
  }

  #letGo(): void {
    while (this.#oldest.active === 0) {
      const epoch = this.#oldest;
      for (const cluster of epoch.cooling) {
        this.#cooling.delete(cluster);
        this.#cooled(cluster);
      }
      epoch.cooling.length = 0;
      if (epoch.next === undefined) return;
      this.#oldest = epoch.next;
    }
  }
}
