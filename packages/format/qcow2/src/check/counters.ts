/**
 * A number for each host cluster: the references that were found, or the refcounts that are stored.
 *
 * Above: references.ts, stored-refcounts.ts, compare.ts, snapshot/references.ts. Below: nothing.
 *
 * 1. Memory is taken in chunks, and only where a number is not zero: a sparse file of many
 *    terabytes costs what it holds.
 * 2. It is bounded by MAX_COUNTER_BYTES, whatever an image says.
 * 3. Clusters below NEAR_CLUSTERS are found with 32-bit shifts, in an array. A file can have 2^44 of them: those
 *    beyond are found in a map.
 */
import { BlockError } from "@blocklayer/bytes";
import type { Geometry } from "../geometry.js";

const CHUNK_BITS = 12;
/** Counters in one chunk. */
export const CHUNK_LENGTH: number = 2 ** CHUNK_BITS;
/** The low 12 bits, which `&` leaves exact for every safe integer. */
const CHUNK_MASK: number = CHUNK_LENGTH - 1;

/** Below this a cluster is a 31-bit integer. */
const NEAR_CLUSTERS = 2 ** 31;
/** The most memory of one set of counters: enough for 16 TiB of 64 KiB clusters at 16 bits. */
export const MAX_COUNTER_BYTES: number = 2 ** 29;

/** Counters of one width. */
export type CounterChunk = Uint8Array | Uint16Array | Float64Array;

export class Counters {
  /** No counter goes above this. */
  readonly max: number;
  readonly #bits: number;
  readonly #op: string;
  readonly #near: (CounterChunk | undefined)[] = [];
  readonly #far = new Map<number, CounterChunk>();
  /** Indices of the chunks that were taken, in that order. */
  readonly #taken: number[] = [];
  #bytes = 0;

  /** @param op - what counts, for the message when memory does not do */
  constructor(geometry: Pick<Geometry, "refcountBits" | "maxRefcount">, op = "check") {
    this.#op = op;
    this.#bits = geometry.refcountBits;
    this.max = geometry.maxRefcount;
  }

  /** The chunks that are not all zero, and maybe some that became so: their indices, ascending. */
  chunkIndices(): readonly number[] {
    return [...this.#taken].sort((a, b) => a - b);
  }

  /** The number of a cluster. */
  get(cluster: number): number {
    return this.#find(cluster)?.[cluster & CHUNK_MASK] ?? 0;
  }

  /** Sets the number of a cluster. Requires: it is within `max`. */
  set(cluster: number, value: number): void {
    const chunk = this.#find(cluster);
    if (value === 0 && chunk === undefined) return;
    (chunk ?? this.#take(cluster))[cluster & CHUNK_MASK] = value;
  }

  /**
   * Raises the number of a cluster.
   *
   * @returns how much of `times` is beyond `max`, and was not added
   */
  add(cluster: number, times: number): number {
    const chunk = this.#find(cluster) ?? this.#take(cluster);
    const at = cluster & CHUNK_MASK;
    const sum = (chunk[at] as number) + times;
    if (sum <= this.max) {
      chunk[at] = sum;
      return 0;
    }
    chunk[at] = this.max;
    return sum - this.max;
  }

  /** Raises the number of a cluster, unless that would go above `max`; then `false`. */
  tryAdd(cluster: number, times: number): boolean {
    const chunk = this.#find(cluster) ?? this.#take(cluster);
    const at = cluster & CHUNK_MASK;
    const sum = (chunk[at] as number) + times;
    if (sum > this.max) return false;
    chunk[at] = sum;
    return true;
  }

  /** The chunk with this index, or `undefined` when all of it is zero. */
  chunk(index: number): CounterChunk | undefined {
    return this.#find(index * CHUNK_LENGTH);
  }

  #find(cluster: number): CounterChunk | undefined {
    if (cluster < NEAR_CLUSTERS) return this.#near[cluster >>> CHUNK_BITS];
    return this.#far.get(Math.floor(cluster / CHUNK_LENGTH));
  }

  /** A chunk for a cluster that has none. */
  #take(cluster: number): CounterChunk {
    const chunk = this.#newChunk();
    this.#bytes += chunk.byteLength;
    if (this.#bytes > MAX_COUNTER_BYTES) {
      throw new BlockError(
        "ENOMEM",
        `${this.#op}: more than ${MAX_COUNTER_BYTES} bytes of refcounts`,
      );
    }
    const index = Math.floor(cluster / CHUNK_LENGTH);
    if (cluster < NEAR_CLUSTERS) this.#near[index] = chunk;
    else this.#far.set(index, chunk);
    this.#taken.push(index);
    return chunk;
  }

  #newChunk(): CounterChunk {
    if (this.#bits <= 8) return new Uint8Array(CHUNK_LENGTH);
    if (this.#bits === 16) return new Uint16Array(CHUNK_LENGTH);
    // Counts of the wide refcounts can pass 2^32, since one look can stand for many references.
    return new Float64Array(CHUNK_LENGTH);
  }
}
