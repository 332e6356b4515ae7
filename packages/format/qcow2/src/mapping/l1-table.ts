/**
 * The active L1 table in memory: two 32-bit halves for each entry.
 *
 * Above: lookup, l2-tables, truncate. Below: nothing.
 *
 * An entry in memory changes only after the file has it: a failed write leaves what memory believes.
 *
 * Source: the qcow2 specification, "L1 table entry".
 */
import { viewOf } from "@blocklayer/bytes";
import { ENTRY_BYTES, type HostOffset, hostOffsetOf } from "../geometry.js";

/** Entries are written by the sector that holds them. */
const SECTOR_ENTRIES = 512 / ENTRY_BYTES;

export class L1Table {
  /** Entry `i` is at `2 * i` (bits 32 to 63) and `2 * i + 1` (bits 0 to 31). */
  readonly halves: Uint32Array;
  readonly entryCount: number;
  /** Where the table lies in the file. */
  readonly hostOffset: HostOffset;

  constructor(hostOffset: HostOffset, halves: Uint32Array) {
    this.hostOffset = hostOffset;
    this.halves = halves;
    this.entryCount = halves.length / 2;
  }

  /** Decodes a table as stored. */
  static decode(hostOffset: HostOffset, bytes: Uint8Array): L1Table {
    const view = viewOf(bytes);
    const halves = new Uint32Array(bytes.length / 4);
    for (let i = 0; i < halves.length; i++) halves[i] = view.getUint32(i * 4);
    return new L1Table(hostOffset, halves);
  }

  high(index: number): number {
    return this.halves[2 * index] as number;
  }

  low(index: number): number {
    return this.halves[2 * index + 1] as number;
  }

  /** Where the L2 table of an entry lies; 0 when there is none. */
  l2Offset(index: number): HostOffset {
    return hostOffsetOf(this.high(index), this.low(index));
  }

  set(index: number, high: number, low: number): void {
    this.halves[2 * index] = high;
    this.halves[2 * index + 1] = low;
  }

  /** The first entry from `index` on that names an L2 table, or `end`. */
  nextAllocated(index: number, end: number): number {
    let i = index;
    while (i < end && this.l2Offset(i) === 0) i++;
    return i;
  }

  /**
   * The bytes of the sector that holds an entry, with the entry changed.
   *
   * @returns the bytes, and where in the file they belong
   */
  sectorWith(index: number, high: number, low: number): { at: HostOffset; bytes: Uint8Array } {
    const first = index - (index % SECTOR_ENTRIES);
    const end = Math.min(first + SECTOR_ENTRIES, this.entryCount);
    const bytes = this.encode(first, end);
    const view = viewOf(bytes);
    view.setUint32((index - first) * ENTRY_BYTES, high);
    view.setUint32((index - first) * ENTRY_BYTES + 4, low);
    return { at: this.hostOffset + first * ENTRY_BYTES, bytes };
  }

  /** Entries `[first, end)` as stored. */
  encode(first = 0, end: number = this.entryCount): Uint8Array {
    const bytes = new Uint8Array((end - first) * ENTRY_BYTES);
    const view = viewOf(bytes);
    for (let i = 2 * first; i < 2 * end; i++) {
      view.setUint32((i - 2 * first) * 4, this.halves[i] as number);
    }
    return bytes;
  }
}
