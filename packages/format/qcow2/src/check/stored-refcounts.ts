/**
 * The refcounts that an image stores.
 *
 * Above: compare.ts, the walks (for the COPIED flag). Below: counters.ts, table-reader.ts.
 *
 * 1. Only blocks that count clusters of the file are read; each block once, whoever names it. What
 *    lies further out counts as free.
 * 2. A block whose table entry is unusable leaves its refcounts unknown, which is not zero.
 *
 * Source: the qcow2 specification, "Host cluster management".
 */
import { divideRoundUp, firstNonZero, joinU64, viewOf } from "@blocklayer/bytes";
import { readRefcount } from "@blocklayer/metadata-cache";
import {
  ENTRY_BYTES,
  type Geometry,
  MAX_REFCOUNT_TABLE_BYTES,
  REFCOUNT_TABLE_RESERVED_LOW,
} from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import { Counters } from "./counters.js";
import type { TableReader } from "./table-reader.js";

/** One entry of the refcount table. */
export interface BlockEntry {
  readonly index: number;
  /** Beyond 2^53 - 1 only roughly right; such a block is never read. */
  readonly hostOffset: number;
  readonly hasReservedBits: boolean;
  readonly isAligned: boolean;
}

export class StoredRefcounts {
  readonly counters: Counters;
  /** The table's entries that are not zero. */
  readonly entries: readonly BlockEntry[];
  readonly #geometry: Geometry;
  readonly #unknown = new Set<number>();

  private constructor(geometry: Geometry, entries: readonly BlockEntry[]) {
    this.#geometry = geometry;
    this.counters = new Counters(geometry);
    this.entries = entries;
  }

  /** Reads the refcount table, and the blocks for the first `clusterCount` clusters. */
  static async load(
    header: Qcow2Header,
    geometry: Geometry,
    reader: TableReader,
    clusterCount: number,
  ): Promise<StoredRefcounts> {
    const lengthBytes = header.refcountTableClusters * geometry.clusterSize;
    const what = "refcount table";
    const table = await reader.read(
      what,
      header.refcountTableOffset,
      Math.min(lengthBytes, MAX_REFCOUNT_TABLE_BYTES),
    );
    const stored = new StoredRefcounts(geometry, entriesOf(table ?? new Uint8Array(0), geometry));
    await stored.#loadBlocks(reader, divideRoundUp(clusterCount, geometry.refcountBlockEntries));
    return stored;
  }

  /** The refcount of a cluster; `undefined` when its block cannot be found. Beyond all blocks: 0. */
  get(cluster: number): number | undefined {
    if (this.#unknown.size > 0) {
      const block = Math.floor(cluster / this.#geometry.refcountBlockEntries);
      if (this.#unknown.has(block)) return undefined;
    }
    return this.counters.get(cluster);
  }

  /** Whether the block with this index, and so each of its refcounts, is unknown. */
  isUnknown(blockIndex: number): boolean {
    return this.#unknown.has(blockIndex);
  }

  /** Indices of the blocks that are unknown, in no order. */
  get unknownBlocks(): Iterable<number> {
    return this.#unknown;
  }

  async #loadBlocks(reader: TableReader, blockCount: number): Promise<void> {
    const { clusterSize } = this.#geometry;
    const indices = new Map<number, number[]>();
    for (const { index, hostOffset, isAligned } of this.entries) {
      if (hostOffset === 0) continue;
      if (!isAligned || hostOffset >= 2 ** 63) this.#unknown.add(index);
      else if (index < blockCount && hostOffset < reader.fileLengthBytes) {
        const list = indices.get(hostOffset);
        if (list === undefined) indices.set(hostOffset, [index]);
        else list.push(index);
      }
    }
    const offsets = [...indices.keys()].sort((a, b) => a - b);
    const arrived = new Set<number>();
    await reader.readMany("refcount block", offsets, clusterSize, (offset, bytes) => {
      arrived.add(offset);
      for (const index of indices.get(offset) ?? []) this.#decode(index, bytes);
    });
    for (const offset of offsets) {
      if (arrived.has(offset)) continue;
      for (const index of indices.get(offset) ?? []) this.#unknown.add(index);
    }
  }

  #decode(index: number, bytes: Uint8Array): void {
    const { refcountBits, refcountBlockEntries } = this.#geometry;
    const first = index * refcountBlockEntries;
    // A block of narrow refcounts has half a million of them, nearly all of them zero: the tail is skipped at once.
    const used = Math.ceil((lengthWithoutZeroes(bytes) * 8) / refcountBits);
    const count = Math.min(used, refcountBlockEntries);
    const { counters } = this;
    let at = Math.floor((firstNonZero(bytes) * 8) / refcountBits);
    if (refcountBits === 16) {
      for (; at < count; at++) {
        const value = ((bytes[at * 2] as number) << 8) | (bytes[at * 2 + 1] as number);
        if (value !== 0) counters.set(first + at, value);
      }
    } else if (refcountBits === 64) {
      const view = viewOf(bytes);
      for (; at < count; at++) {
        const high = view.getUint32(at * ENTRY_BYTES);
        const value = joinU64(high, view.getUint32(at * ENTRY_BYTES + 4));
        if (value !== 0) counters.set(first + at, value < 0 ? counters.max : value);
      }
    } else {
      for (; at < count; at++) {
        const value = readRefcount(bytes, refcountBits, at);
        if (value !== 0) counters.set(first + at, value);
      }
    }
  }
}

/** The bytes up to the last that is not zero. */
function lengthWithoutZeroes(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
}

function entriesOf(table: Uint8Array, { clusterSize }: Geometry): BlockEntry[] {
  const view = viewOf(table);
  const entries: BlockEntry[] = [];
  let at = firstNonZero(table);
  at -= at % ENTRY_BYTES;
  for (; at + ENTRY_BYTES <= table.length; at += ENTRY_BYTES) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) continue;
    const reserved = low & REFCOUNT_TABLE_RESERVED_LOW;
    entries.push({
      index: at / ENTRY_BYTES,
      hostOffset: high * 2 ** 32 + (low - reserved),
      hasReservedBits: reserved !== 0,
      isAligned: (low - reserved) % clusterSize === 0,
    });
  }
  return entries;
}
