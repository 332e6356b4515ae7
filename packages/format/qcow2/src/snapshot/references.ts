/**
 * The references that an L1 table makes: how often it names each host cluster, through its L2 tables.
 *
 * Above: create, apply, delete, vm-state, which raise or lower refcounts by them. Below: the L2 cache.
 *
 * 1. A table of the image may be a lie. What names no cluster, or lies behind the end of the file by a cluster or more,
 *    is a CorruptImageError, and nothing was changed yet.
 * 2. An L2 table that several entries name is read once and counts as often as it is named; so the time is bounded by
 *    the length of the file. Memory: two numbers for each L1 entry, and counters.ts.
 *
 * Locking: the image lock is held throughout.
 *
 * Source: the qcow2 specification, "Cluster mapping", "Snapshots".
 */
import { BlockError, CorruptImageError, hex } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import { Counters } from "../check/counters.js";
import {
  COMPRESSED_HIGH,
  compressedLengthOf,
  compressedOffsetOf,
  type HostOffset,
  hostOffsetOf,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { L1Table } from "../mapping/l1-table.js";
import { badEntry } from "../mapping/lookup.js";

/** How often each host cluster is named. */
export class References {
  readonly counters: Counters;
  readonly #image: Qcow2Image;
  readonly #op: string;
  /** No reference may end behind this. */
  readonly #end: HostOffset;

  constructor(image: Qcow2Image, op: string) {
    this.#image = image;
    this.#op = op;
    this.counters = new Counters(image.geometry, op);
    const { clusterSize, maxHostOffset } = image.geometry;
    this.#end = Math.min(image.file.lengthBytes + clusterSize - 1, maxHostOffset);
  }

  /** Whether a range lies in the file, or runs out of it by less than a cluster. */
  contains(hostOffset: HostOffset, lengthBytes: number): boolean {
    return hostOffset + lengthBytes <= this.#end;
  }

  /**
   * Counts `times` references to every cluster that a range touches.
   *
   * Requires: `contains` said yes.
   *
   * @throws BlockError `EINVAL` when so many do not fit into a refcount
   */
  add(hostOffset: HostOffset, lengthBytes: number, times = 1): void {
    if (lengthBytes === 0) return;
    const { perCluster } = this.#image;
    const last = Math.floor((hostOffset + lengthBytes - 1) * perCluster);
    for (let cluster = Math.floor(hostOffset * perCluster); cluster <= last; cluster++) {
      if (!this.counters.tryAdd(cluster, times)) throw refcountFull(this.#image, cluster, this.#op);
    }
  }
}

/** The error of a refcount that has no room. */
export function refcountFull(image: Qcow2Image, cluster: number, op: string): BlockError {
  const { refcountBits, maxRefcount, clusterSize } = image.geometry;
  const at = hex(cluster * clusterSize);
  return new BlockError(
    "EINVAL",
    `the refcount of the cluster at host offset ${at} would go above ${maxRefcount}, the most that ` +
      `refcount_bits=${refcountBits} holds: delete snapshots, or convert to an image with wider refcounts`,
    { op, node: image.nodeName, offset: cluster * clusterSize },
  );
}

/**
 * Adds what entries of an L1 table refer to: L2 tables, and through them data.
 *
 * Tables are read through the cache, so what it has not written yet counts. Requires: compressed data is in the file.
 *
 * @param first - index of the first entry that counts
 * @throws CorruptImageError
 */
export async function addReferences(
  image: Qcow2Image,
  references: References,
  l1: L1Table,
  first = 0,
): Promise<void> {
  await eachL2Table(image, l1, first, async (tableOffset, times) => {
    if (!references.contains(tableOffset, image.geometry.clusterSize)) {
      throw badL2Table(l1, tableOffset, "lies behind the end of the file");
    }
    references.add(tableOffset, image.geometry.clusterSize, times);
    await eachSlice(image, tableOffset, (slice) => {
      for (let i = 0; i < image.l2.entriesPerTable; i++) {
        addEntry(image, references, slice, i, times);
      }
    });
  });
}

/**
 * Visits each L2 table that entries of an L1 table name, in the order of the file.
 *
 * @param visit - hears where the table lies, and how many entries name it
 * @throws CorruptImageError when an entry names no place for a table
 */
export async function eachL2Table(
  image: Qcow2Image,
  l1: L1Table,
  first: number,
  visit: (tableOffset: HostOffset, times: number) => Promise<void>,
): Promise<void> {
  const offsets = new Float64Array(Math.max(0, l1.entryCount - first));
  let count = 0;
  for (let i = first; i < l1.entryCount; i++) {
    const offset = l1.l2Offset(i);
    if (offset === 0) continue;
    if (image.badClusterOffset(offset)) throw badL2Table(l1, offset, "is not that of a cluster");
    offsets[count++] = offset;
  }
  const sorted = offsets.subarray(0, count).sort();
  for (let start = 0; start < count; ) {
    let end = start + 1;
    while (end < count && sorted[end] === sorted[start]) end++;
    await visit(sorted[start] as number, end - start);
    start = end;
  }
}

/** Visits each slice of an L2 table, pinned. */
export async function eachSlice(
  image: Qcow2Image,
  tableOffset: HostOffset,
  visit: (slice: Table) => void | Promise<void>,
): Promise<void> {
  const { l2, geometry } = image;
  for (let at = 0; at < geometry.clusterSize; at += l2.tableSizeBytes) {
    const slice = await l2.get(tableOffset + at);
    try {
      const visited = visit(slice);
      if (visited instanceof Promise) await visited;
    } finally {
      l2.release(slice);
    }
  }
}

function addEntry(
  image: Qcow2Image,
  references: References,
  slice: Table,
  index: number,
  times: number,
): void {
  const { l2, geometry } = image;
  const high = l2.entryHigh(slice, index);
  const low = l2.entryLow(slice, index);
  if (high === 0 && low === 0) return;
  let offset: HostOffset;
  let length: number;
  if ((high & COMPRESSED_HIGH) !== 0) {
    offset = compressedOffsetOf(geometry, high, low);
    length = compressedLengthOf(geometry, high, low);
  } else {
    offset = hostOffsetOf(high, low);
    length = geometry.clusterSize;
    if (offset === 0) return;
    if (image.badClusterOffset(offset)) {
      throw badEntry(image, slice.hostOffset, index, `${hex(offset)}: no cluster`);
    }
  }
  if (!references.contains(offset, length)) {
    throw badEntry(image, slice.hostOffset, index, `${hex(offset)}: behind the end of the file`);
  }
  references.add(offset, length, times);
}

function badL2Table(l1: L1Table, offset: HostOffset, what: string): CorruptImageError {
  return new CorruptImageError({
    structure: "L1 table",
    hostOffset: l1.hostOffset,
    rule: `it names ${hex(offset)} as an L2 table, which ${what}`,
  });
}
