/**
 * The overlap check: no write lands on metadata that it is not itself writing [C16].
 *
 * Above: image.ts and the caches ask before every write. Below: nothing.
 *
 * Structures of many clusters (header, L1 tables, refcount table, snapshot table) are few intervals;
 * L2 tables and refcount blocks, one cluster each, are a map from cluster to kinds. A check costs one
 * look into the map for each cluster written, and a binary search among the intervals.
 *
 * 1. Empty until `build` of overlap-scan.ts fills it, before the first write.
 * 2. A cluster that two structures claim keeps both kinds, so that neither can write over the other.
 * 3. The levels are QEMU's: `constant` is what never moves while the image is used; `cached` adds what
 *    is known without reading; `all` adds the L2 tables of snapshots. Each kind can be set by itself.
 *
 * Source: QEMU's option `overlap-check`.
 */
import { hex } from "@blocklayer/bytes";
import type { ClusterIndex, HostOffset } from "../geometry.js";
import { DamageError } from "./damage.js";

/** Kinds of structure, as bits. */
export const OVERLAP = {
  header: 1,
  activeL1: 2,
  refcountTable: 4,
  snapshotTable: 8,
  activeL2: 16,
  refcountBlock: 32,
  inactiveL1: 64,
  inactiveL2: 128,
  bitmapDirectory: 256,
} as const;

export const OVERLAP_LEVELS = ["none", "constant", "cached", "all"] as const;
export type OverlapLevel = (typeof OVERLAP_LEVELS)[number];

const CONSTANT_KINDS =
  OVERLAP.header |
  OVERLAP.activeL1 |
  OVERLAP.refcountTable |
  OVERLAP.snapshotTable |
  OVERLAP.bitmapDirectory;
const CACHED_KINDS = CONSTANT_KINDS | OVERLAP.activeL2 | OVERLAP.refcountBlock | OVERLAP.inactiveL1;

const LEVEL_KINDS: Readonly<Record<OverlapLevel, number>> = {
  none: 0,
  constant: CONSTANT_KINDS,
  cached: CACHED_KINDS,
  all: CACHED_KINDS | OVERLAP.inactiveL2,
};

/** The kinds that a level looks at, as bits of OVERLAP. */
export function kindsOfLevel(level: OverlapLevel): number {
  return LEVEL_KINDS[level];
}

const KIND_NAMES: readonly (readonly [number, string])[] = [
  [OVERLAP.header, "qcow2 header"],
  [OVERLAP.activeL1, "active L1 table"],
  [OVERLAP.refcountTable, "refcount table"],
  [OVERLAP.snapshotTable, "snapshot table"],
  [OVERLAP.activeL2, "active L2 table"],
  [OVERLAP.refcountBlock, "refcount block"],
  [OVERLAP.inactiveL1, "inactive L1 table"],
  [OVERLAP.inactiveL2, "inactive L2 table"],
  [OVERLAP.bitmapDirectory, "bitmap directory"],
];

/** Kinds that are one cluster each. */
const CLUSTER_KINDS = OVERLAP.activeL2 | OVERLAP.refcountBlock | OVERLAP.inactiveL2;

interface Interval {
  readonly kind: number;
  readonly start: HostOffset;
  readonly end: HostOffset;
  /** The largest end of this interval and all that begin before it. */
  reach: HostOffset;
}

export class OverlapIndex {
  readonly #perCluster: number;
  #kinds: number;
  #intervals: Interval[] = [];
  #sorted = true;
  #clusters = new Map<ClusterIndex, number>();

  /** @param kinds - of OVERLAP: what is looked at */
  constructor(clusterSize: number, kinds: number) {
    this.#perCluster = 1 / clusterSize;
    this.#kinds = kinds;
  }

  /** What is looked at, as bits of OVERLAP. */
  get kinds(): number {
    return this.#kinds;
  }

  /** Whether structures of a kind are looked at. */
  wants(kind: number): boolean {
    return (this.#kinds & kind) !== 0;
  }

  /** A structure lies at a place from now on. */
  add(kind: number, start: HostOffset, lengthBytes: number): void {
    if (!this.wants(kind) || lengthBytes === 0) return;
    if ((kind & CLUSTER_KINDS) !== 0) {
      const cluster = Math.floor(start * this.#perCluster);
      this.#clusters.set(cluster, (this.#clusters.get(cluster) ?? 0) | kind);
      return;
    }
    this.#intervals.push({ kind, start, end: start + lengthBytes, reach: 0 });
    this.#sorted = false;
  }

  /** A structure of many clusters is no longer there. */
  remove(kind: number, start: HostOffset): void {
    this.#intervals = this.#intervals.filter((one) => one.kind !== kind || one.start !== start);
    this.#sorted = false;
  }

  /** A cluster is free: no structure of one cluster lies there. */
  removeCluster(cluster: ClusterIndex): void {
    this.#clusters.delete(cluster);
  }

  /** Forgets everything, for a new scan, maybe of other kinds. */
  reset(kinds: number = this.#kinds): void {
    this.#kinds = kinds;
    this.#intervals = [];
    this.#clusters = new Map();
  }

  /**
   * Refuses a write that touches metadata.
   *
   * @param own - kinds that the writer is about to write there
   * @throws DamageError
   */
  check(start: HostOffset, lengthBytes: number, own: number): void {
    const kinds = this.#foreignKinds(start, lengthBytes, own);
    if (kinds !== 0) throw overlapError(start, lengthBytes, kinds);
  }

  /** The name of a structure that lies in a range and is not of the kinds `own`. */
  structureAt(start: HostOffset, lengthBytes: number, own: number): string | undefined {
    const kinds = this.#foreignKinds(start, lengthBytes, own);
    return kinds === 0 ? undefined : nameOf(kinds);
  }

  #foreignKinds(start: HostOffset, lengthBytes: number, own: number): number {
    const end = start + lengthBytes;
    const interval = this.#foreignInterval(start, end, own);
    if (interval !== undefined) return interval.kind;
    if (this.#clusters.size === 0) return 0;
    const last = Math.floor((end - 1) * this.#perCluster);
    for (let cluster = Math.floor(start * this.#perCluster); cluster <= last; cluster++) {
      const foreign = (this.#clusters.get(cluster) ?? 0) & ~own;
      if (foreign !== 0) return foreign;
    }
    return 0;
  }

  /** An interval that shares a byte with `[start, end)` and is not the writer's own. */
  #foreignInterval(start: HostOffset, end: HostOffset, own: number): Interval | undefined {
    if (!this.#sorted) this.#sort();
    const intervals = this.#intervals;
    let below = 0;
    for (let above = intervals.length; below < above; ) {
      const middle = (below + above) >>> 1;
      if ((intervals[middle] as Interval).start < end) below = middle + 1;
      else above = middle;
    }
    for (let i = below - 1; i >= 0; i--) {
      const one = intervals[i] as Interval;
      if (one.reach <= start) return undefined;
      if (one.end > start && (one.kind & own) === 0) return one;
    }
    return undefined;
  }

  #sort(): void {
    this.#intervals.sort((a, b) => a.start - b.start);
    let reach = 0;
    for (const one of this.#intervals) {
      reach = Math.max(reach, one.end);
      one.reach = reach;
    }
    this.#sorted = true;
  }
}

function nameOf(kinds: number): string {
  return KIND_NAMES.find(([kind]) => (kind & kinds) !== 0)?.[1] ?? "metadata";
}

function overlapError(start: HostOffset, lengthBytes: number, kinds: number): DamageError {
  return new DamageError({
    structure: nameOf(kinds),
    hostOffset: start,
    rule: `a write of ${lengthBytes} bytes to ${hex(start)} would overwrite it`,
    op: "write",
    length: lengthBytes,
  });
}
