/**
 * The refcount table in memory: where each refcount block lies.
 *
 * Above: allocate, free, grow, overlap. Below: nothing.
 *
 * An entry in memory changes only after the file has it.
 *
 * Source: the qcow2 specification, "Refcount table entry".
 */
import { CorruptImageError, hex, viewOf, writeU64 } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry, type HostOffset } from "../geometry.js";

const TWO_POW_32 = 2 ** 32;

export class RefcountTable {
  readonly hostOffset: HostOffset;
  /** Entry `i` is at `2 * i` (bits 32 to 63) and `2 * i + 1` (bits 0 to 31). */
  readonly #halves: Uint32Array;
  readonly entryCount: number;
  readonly #geometry: Geometry;

  constructor(hostOffset: HostOffset, halves: Uint32Array, geometry: Geometry) {
    this.hostOffset = hostOffset;
    this.#halves = halves;
    this.entryCount = halves.length / 2;
    this.#geometry = geometry;
  }

  /** Decodes a table as stored. */
  static decode(hostOffset: HostOffset, bytes: Uint8Array, geometry: Geometry): RefcountTable {
    const view = viewOf(bytes);
    const halves = new Uint32Array(bytes.length / 4);
    for (let i = 0; i < halves.length; i++) halves[i] = view.getUint32(i * 4);
    return new RefcountTable(hostOffset, halves, geometry);
  }

  /**
   * Where a refcount block lies; 0 when there is none, also past the end of the table.
   *
   * @throws CorruptImageError when the entry names no place for a block
   */
  blockOffset(index: number): HostOffset {
    if (index >= this.entryCount) return 0;
    const offset = this.rawOffset(index);
    if (offset % this.#geometry.clusterSize !== 0 || offset > this.#geometry.maxHostOffset) {
      throw new CorruptImageError({
        structure: "refcount table",
        hostOffset: this.hostOffset + index * ENTRY_BYTES,
        rule: `entry ${index} is ${hex(offset)}: not the offset of a cluster`,
      });
    }
    return offset;
  }

  /** Bits 9 to 63 of an entry, unchecked. */
  rawOffset(index: number): HostOffset {
    const low = ((this.#halves[2 * index + 1] as number) & 0xffff_fe00) >>> 0;
    return (this.#halves[2 * index] as number) * TWO_POW_32 + low;
  }

  set(index: number, blockOffset: HostOffset): void {
    this.#halves[2 * index] = Math.floor(blockOffset / TWO_POW_32);
    this.#halves[2 * index + 1] = blockOffset % TWO_POW_32;
  }

  /** One past the last entry that names a block. */
  usedEntries(): number {
    let used = this.entryCount;
    while (used > 0 && this.rawOffset(used - 1) === 0) used--;
    return used;
  }

  /** A longer table at another place, with the same entries so far. */
  grown(hostOffset: HostOffset, entryCount: number): RefcountTable {
    const halves = new Uint32Array(entryCount * 2);
    halves.set(this.#halves.subarray(0, this.usedEntries() * 2));
    return new RefcountTable(hostOffset, halves, this.#geometry);
  }

  /** One entry as stored. */
  static encodeEntry(blockOffset: HostOffset): Uint8Array {
    const bytes = new Uint8Array(ENTRY_BYTES);
    writeU64(viewOf(bytes), 0, blockOffset);
    return bytes;
  }

  /** The whole table as stored. */
  encode(): Uint8Array {
    const bytes = new Uint8Array(this.entryCount * ENTRY_BYTES);
    const view = viewOf(bytes);
    for (let i = 0; i < this.#halves.length; i++) view.setUint32(i * 4, this.#halves[i] as number);
    return bytes;
  }
}
