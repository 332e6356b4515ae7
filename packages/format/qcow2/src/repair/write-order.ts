/**
 * Which changes of a plan wait for which others.
 *
 * Above: planned-file.ts. Below: nothing.
 *
 * A cluster that is a table and guest data at once is copied for the guest, and then the table is changed where it lies. Until
 * the entry that names the copy is durable, the guest still reads the cluster: the entry goes first [C1].
 *
 * 1. A sector waits for every entry that named its cluster, but not for itself: a sector is written whole or not at all.
 * 2. Two tables that name each other as data wait for each other, and a hostile image may make the chain as long as it
 *    likes: after MAX_STEPS, or when nothing can go first, the rest is written at once.
 */
import { SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { HostOffset } from "../geometry.js";

/** Syncs that one commit may take. */
const MAX_STEPS = 16;

export class WriteOrder {
  readonly #clusterSize: number;
  /** By cluster: the sectors of the entries that named it. */
  readonly #entries = new Map<number, Set<number>>();

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize;
  }

  /** A cluster is read as data until the entry at `entryAt` is durable. */
  keepUntil(entryAt: HostOffset, cluster: number): void {
    let sectors = this.#entries.get(cluster);
    if (sectors === undefined) this.#entries.set(cluster, (sectors = new Set()));
    sectors.add(Math.floor(entryAt / SECTOR_SIZE_BYTES));
  }

  /** Puts sectors into steps, each of which is to be durable before the next. */
  stepsFor(sectors: Iterable<number>): Set<number>[] {
    const steps: Set<number>[] = [];
    const left = new Set(sectors);
    while (left.size > 0) {
      const ready = steps.length < MAX_STEPS - 1 ? this.#readyOf(left) : new Set<number>();
      const step = ready.size > 0 ? ready : new Set(left);
      for (const sector of step) left.delete(sector);
      steps.push(step);
    }
    return steps;
  }

  #readyOf(left: ReadonlySet<number>): Set<number> {
    const ready = new Set<number>();
    const pending = new Map<number, readonly number[]>();
    for (const sector of left) {
      const cluster = this.#clusterOf(sector * SECTOR_SIZE_BYTES);
      let entries = pending.get(cluster);
      if (entries === undefined) {
        entries = [...(this.#entries.get(cluster) ?? [])].filter((entry) => left.has(entry));
        pending.set(cluster, entries);
      }
      if (entries.length === 0 || (entries.length === 1 && entries[0] === sector)) {
        ready.add(sector);
      }
    }
    return ready;
  }

  #clusterOf(hostOffset: HostOffset): number {
    return Math.floor(hostOffset / this.#clusterSize);
  }
}
