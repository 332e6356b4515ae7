/**
 * What a SeqCache must do, told byte by byte: no entries and no queue, only what is known of each byte.
 * Around it a file, an allocator of host bytes that obeys D1 and D4, and writes that end in any order.
 */
import { firstNonZero } from "@blocklayer/bytes";
import { SeqCache, type SeqFlush, writeLength } from "../../src/index.js";
import { equal } from "./equal.js";
import { PoisonPool } from "./pool.js";

const ALIGNMENT = 4;

/** A handout that is not settled. */
interface Outgoing {
  readonly flush: SeqFlush;
  readonly snapshot: Uint8Array;
  readonly cluster: number;
  dropped: boolean;
}

export class Model {
  readonly pool = new PoisonPool();
  readonly cache: SeqCache;
  readonly #size: number;
  readonly #clusters: number;
  /** The file as it is now, and every byte as it was last written: 0 is none. */
  readonly #file: Uint8Array;
  readonly #wanted: Uint8Array;
  readonly #cached: boolean[];
  /** By cluster: when its entry was begun. */
  readonly #birth: number[];
  readonly #owned: boolean[];
  #clock = 1;
  #tail: number | undefined;
  #cursor = 0;
  #outgoing: Outgoing[] = [];
  #fill = 0;

  constructor(clusterSize: number, clusters: number) {
    this.#size = clusterSize;
    this.#clusters = clusters;
    this.cache = new SeqCache({ clusterSize, allocator: this.pool });
    const length = clusterSize * clusters;
    this.#file = new Uint8Array(length);
    this.#wanted = new Uint8Array(length);
    this.#cached = Array.from({ length: length }, () => false);
    this.#birth = Array.from({ length: clusters }, () => 0);
    this.#owned = Array.from({ length: clusters }, () => false);
  }

  /** Appends at the cursor, over as many clusters as are free there. */
  append(length: number): void {
    const start = this.#cursor;
    let end = Math.min(start + length, this.#file.length);
    for (let at = start; at < end; at++) {
      const cluster = this.#clusterOf(at);
      if (at % this.#size !== 0 && at === start && this.#owned[cluster]) continue;
      if (at % this.#size !== 0 && at !== start) continue;
      if (!this.#isFree(cluster)) end = at;
    }
    if (end <= start) return this.seek(this.#clusterOf(start) + 1, 0);
    const bytes = new Uint8Array(end - start);
    for (let i = 0; i < bytes.length; i++) bytes[i] = 1 + (this.#fill++ % 200);
    this.cache.write(start, bytes);
    this.#wanted.set(bytes, start);
    for (let at = start; at < end; at++) this.#noteWritten(at);
    bytes.fill(0);
    this.#cursor = end;
    if (end % this.#size === 0) this.seek(this.#clusterOf(end - 1) + 1, 0);
  }

  #noteWritten(at: number): void {
    const cluster = this.#clusterOf(at);
    if (!this.#hasCached(cluster)) this.#birth[cluster] = this.#clock++;
    this.#owned[cluster] = true;
    this.#cached[at] = true;
    this.#tail = (at + 1) % this.#size === 0 ? undefined : cluster;
  }

  /** Moves the cursor to a free cluster, the first from `from` on. */
  seek(from: number, position: number): void {
    for (let i = 0; i < this.#clusters; i++) {
      const cluster = (from + i) % this.#clusters;
      if (!this.#isFree(cluster)) continue;
      this.#cursor = cluster * this.#size + (position % this.#size);
      return;
    }
    this.#cursor = this.#file.length;
  }

  nextFlush(unfinished: boolean): void {
    const unsent = this.#unsentClusters();
    const finished = unsent.filter((cluster) => cluster !== this.#tail);
    let expected = finished[0];
    const isTail = expected === undefined;
    if (isTail && unfinished && unsent.length > 0) expected = this.#tail;
    const flush = this.cache.nextFlush({ unfinished });
    if (expected === undefined) return equal(flush, undefined, "nothing to hand out");
    if (flush === undefined) throw new Error("nothing was handed out");
    const base = expected * this.#size;
    let start = base;
    while (!this.#cached[start]) start++;
    let end = start;
    while (end < base + this.#size && this.#cached[end]) end++;
    equal([flush.offset, flush.length], [start, end - start], "range handed out");
    equal(flush.finished, !isTail, "finished");
    equal(flush.buffer.length, base + this.#size - start, "buffer length");
    const snapshot = flush.buffer.slice();
    equal(
      snapshot.subarray(0, flush.length),
      this.#wanted.subarray(start, end),
      "bytes handed out",
    );
    equal(firstNonZero(snapshot, flush.length), snapshot.length, "zeroes behind the data");
    this.#outgoing.push({ flush, snapshot, cluster: expected, dropped: false });
  }

  /** Ends the write of a handout: it reached the file, or failed. */
  settle(which: number, ok: boolean): void {
    const [out] = this.#outgoing.splice(which % Math.max(1, this.#outgoing.length), 1);
    if (out === undefined) return;
    const { flush, snapshot } = out;
    const length = writeLength(flush, ALIGNMENT);
    const sure = flush.finished ? flush.buffer.length : flush.length;
    equal(flush.buffer.subarray(0, sure), snapshot.subarray(0, sure), "buffer while handed out");
    if (!ok) {
      // Half of it may be there.
      this.#file.set(snapshot.subarray(0, flush.length >> 1), flush.offset);
      this.cache.putBack(flush.token);
      return;
    }
    this.#file.set(snapshot.subarray(0, length), flush.offset);
    this.cache.discard(flush.token);
    if (out.dropped) return;
    this.#cached.fill(false, flush.offset, flush.offset + flush.length);
    if (!this.#hasCached(out.cluster) && this.#tail === out.cluster) this.#tail = undefined;
  }

  /** Frees a cluster: its bytes are nobody's now. */
  drop(which: number): void {
    const cluster = which % this.#clusters;
    equal(this.cache.drop(cluster * this.#size), this.#hasCached(cluster), "drop");
    const base = cluster * this.#size;
    this.#cached.fill(false, base, base + this.#size);
    this.#wanted.fill(0, base, base + this.#size);
    this.#owned[cluster] = false;
    if (this.#tail === cluster) this.#tail = undefined;
    for (const out of this.#outgoing) if (out.cluster === cluster) out.dropped = true;
    if (this.#clusterOf(this.#cursor) === cluster) this.seek(cluster + 1, 0);
  }

  read(offset: number, length: number): void {
    const from = offset % this.#file.length;
    const to = Math.min(this.#file.length, from + length);
    const target = new Uint8Array(to - from).fill(0xdd);
    const result = this.cache.read(from, target);
    const missing = new Uint8Array(to - from).fill(result === "miss" ? 1 : 0);
    if (typeof result !== "string") {
      for (const gap of result) {
        equal(gap.length > 0, true, "a gap has bytes");
        missing.fill(1, gap.position, gap.position + gap.length);
      }
    }
    for (let at = from; at < to; at++) {
      equal(missing[at - from], this.#cached[at] ? 0 : 1, `gap at ${at}`);
      const wanted = this.#wanted[at] as number;
      if (missing[at - from] === 1) equal(target[at - from], 0xdd, `byte of a gap at ${at}`);
      const got = missing[at - from] === 1 ? this.#file[at] : target[at - from];
      if (wanted !== 0) equal(got, wanted, `byte at ${at}`);
    }
  }

  /** What must be true between any two calls. */
  check(): void {
    const { cache } = this;
    const unsent = this.#unsentClusters();
    let live = 0;
    for (let i = 0; i < this.#clusters; i++) {
      if (this.#hasCached(i)) live++;
      const out = this.#outgoing.some((one) => one.cluster === i);
      equal(cache.isHandedOut(i * this.#size), out, "isHandedOut");
    }
    equal(cache.clusterCount, live, "clusterCount");
    equal(cache.cachedBytes, this.#cached.filter(Boolean).length, "cachedBytes");
    equal(cache.flushableCount, unsent.length, "flushableCount");
    equal(cache.finishedCount, unsent.filter((one) => one !== this.#tail).length, "finishedCount");
    equal(cache.handedOutCount, this.#outgoing.length, "handedOutCount");
    equal(cache.bufferCount, this.pool.lent.size, "bufferCount");
    const { writtenBytes, flushedBytes, droppedBytes } = cache.stats;
    equal(writtenBytes, flushedBytes + droppedBytes + cache.cachedBytes, "writtenBytes");
  }

  /** Writes everything out. All bytes that are owned must be in the file then. */
  finish(): void {
    while (this.#outgoing.length > 0) this.settle(0, true);
    while (this.cache.flushableCount > 0) {
      this.nextFlush(true);
      this.settle(0, true);
    }
    this.cache.free();
    equal(this.pool.lent.size, 0, "buffers lent");
    for (let at = 0; at < this.#file.length; at++) {
      if (this.#wanted[at] !== 0) equal(this.#file[at], this.#wanted[at], `file at ${at}`);
    }
  }

  #clusterOf(at: number): number {
    return Math.floor(at / this.#size);
  }

  #hasCached(cluster: number): boolean {
    const base = cluster * this.#size;
    return this.#cached.slice(base, base + this.#size).includes(true);
  }

  /** D1: free, and no write under way. */
  #isFree(cluster: number): boolean {
    if (cluster >= this.#clusters || this.#owned[cluster]) return false;
    return !this.#outgoing.some((one) => one.cluster === cluster);
  }

  /** Clusters with a cached byte that no handout carries, by age. */
  #unsentClusters(): number[] {
    const carried = new Set<number>();
    for (const { flush, dropped } of this.#outgoing) {
      if (dropped) continue;
      for (let i = 0; i < flush.length; i++) carried.add(flush.offset + i);
    }
    const found = new Set<number>();
    this.#cached.forEach((cached, at) => {
      if (cached && !carried.has(at)) found.add(this.#clusterOf(at));
    });
    return [...found].toSorted((a, b) => (this.#birth[a] as number) - (this.#birth[b] as number));
  }
}
