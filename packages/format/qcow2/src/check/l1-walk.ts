/**
 * Checking L1 tables, and through them the L2 tables.
 *
 * Above: check.ts. Below: l2-walk.ts, table-reader.ts.
 *
 * 1. L2 tables are collected first and walked in the order of the file, so that neighbours are
 *    read together and a table that is named a million times is read once.
 * 2. At most MAX_COLLECTED tables are held; when there are more, those are walked at once.
 * 3. A table that does not start at a cluster is walked apart, as QEMU does; the reader's budget
 *    bounds what such overlapping tables can cost.
 *
 * Source: the qcow2 specification, "Cluster mapping".
 */
import { viewOf } from "@blocklayer/bytes";
import {
  ENTRY_BYTES,
  hostOffsetOf,
  isCopied,
  L1_RESERVED_HIGH,
  L1_RESERVED_LOW,
} from "../geometry.js";
import { entryText, type L2Use, walkL2, type WalkContext } from "./l2-walk.js";
import type { TableReader } from "./table-reader.js";

/** L2 tables held before they are walked. */
const MAX_COLLECTED: number = 2 ** 20;

export class L1Walk {
  readonly #context: WalkContext;
  readonly #reader: TableReader;
  readonly #collected = new Map<number, L2Use>();

  constructor(context: WalkContext, reader: TableReader) {
    this.#context = context;
    this.#reader = reader;
  }

  /**
   * Checks an L1 table, and collects the L2 tables that it names.
   *
   * @param active - the image's own table, not a snapshot's
   */
  async add(hostOffset: number, entryCount: number, active: boolean): Promise<void> {
    const lengthBytes = entryCount * ENTRY_BYTES;
    this.#context.references.add(hostOffset, lengthBytes);
    const what = "check_refcounts_l1";
    const bytes = await this.#reader.readSparse(what, hostOffset, lengthBytes, ENTRY_BYTES);
    if (bytes === undefined) return;
    const view = viewOf(bytes);
    for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if (high === 0 && low === 0) continue;
      const unaligned = this.#addEntry(high, low, at / ENTRY_BYTES, active);
      if (unaligned >= 0) await this.#walkUnaligned(unaligned, active);
      if (this.#collected.size >= MAX_COLLECTED) await this.finish();
    }
  }

  /** Walks the L2 tables that were collected. */
  async finish(): Promise<void> {
    const { clusterSize } = this.#context.geometry;
    const offsets = [...this.#collected.keys()].sort((a, b) => a - b);
    await this.#reader.readMany("check_refcounts_l2", offsets, clusterSize, (offset, bytes) => {
      const use = this.#collected.get(offset);
      if (use !== undefined) walkL2(this.#context, use, bytes);
    });
    this.#collected.clear();
  }

  /** @returns the offset of a table to be walked apart, or -1 */
  #addEntry(high: number, low: number, index: number, active: boolean): number {
    const { findings, references, geometry } = this.#context;
    if ((high & L1_RESERVED_HIGH) !== 0 || (low & L1_RESERVED_LOW) !== 0) {
      findings.corruption(
        () => `ERROR found L1 entry with reserved bits set: ${entryText(high, low)}`,
      );
    }
    const offset = hostOffsetOf(high, low);
    references.add(offset, geometry.clusterSize);
    if (active && offset !== 0) this.#checkCopied(high, low, index, offset);
    const isUnaligned = offset % geometry.clusterSize !== 0;
    if (isUnaligned) {
      const where = `l2_offset=${offset.toString(16)}`;
      findings.corruption(() => `ERROR ${where}: Table is not cluster aligned; L1 entry corrupted`);
    }
    // What lies behind the end of the file is zeroes: an L2 table without entries.
    if (!references.contains(offset)) return -1;
    if (isUnaligned) return offset;
    this.#collect(offset, active);
    return -1;
  }

  #collect(offset: number, active: boolean): void {
    let use = this.#collected.get(offset);
    if (use === undefined) {
      use = { active: 0, inactive: 0, judged: 0 };
      this.#collected.set(offset, use);
    }
    if (active) use.active++;
    else use.inactive++;
    if (active && offset !== 0) use.judged++;
  }

  #checkCopied(high: number, low: number, index: number, offset: number): void {
    const { stored, copiedFindings, geometry } = this.#context;
    const refcount = stored.get(Math.floor(offset / geometry.clusterSize));
    if (refcount === undefined || (refcount === 1) === isCopied(high)) return;
    const entry = entryText(high, low);
    copiedFindings.corruption(
      () =>
        `ERROR OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${entry} refcount=${refcount}`,
    );
  }

  async #walkUnaligned(offset: number, active: boolean): Promise<void> {
    const { clusterSize, l2EntrySize } = this.#context.geometry;
    const what = "check_refcounts_l2";
    const bytes = await this.#reader.readSparse(what, offset, clusterSize, l2EntrySize);
    const use = active
      ? { active: 1, inactive: 0, judged: 1 }
      : { active: 0, inactive: 1, judged: 0 };
    if (bytes !== undefined) walkL2(this.#context, use, bytes);
  }
}
