/**
 * The compressed cache of an image: compressed clusters on their way to the file, gathered into whole
 * host clusters, so that a file opened past the page cache sees aligned writes.
 *
 * Above: compressed/write.ts puts, compressed/read.ts reads, the flush walk and the L2 cache's edge write
 * all, refcount/free.ts drops. Below: seqcache, the aligned arena, `Qcow2Image.writeHost`.
 *
 * 1. Bytes enter under the image lock, in the critical section that allocated them [S10]; from then on
 *    readers find them here [S4], and the L2 cache waits for them [S11].
 * 2. At most MAX_CLUSTERS host clusters are in memory: who wants to put waits for `room()` first.
 * 3. A write that puts carries what it finished to the file, and fails when that fails. It needs no lock
 *    for that, so a flush that holds the lock may wait for it [S8]; and it may take what a flush has found
 *    and not yet come to, so a flush looks for whom to wait for at its end.
 * 4. Everything under the lock (the walk, the edge) may write the unfinished cluster too, padded: nothing
 *    is appended meanwhile [S6].
 * 5. Bytes whose write failed stay, for readers; but the guest was told that they are written, so no
 *    flush of the image ever succeeds again [C17].
 * 6. The check for overlaps comes when the bytes are written, not when they enter [S12]; a cluster that
 *    is being written counts as in flight until the cache has forgotten the handout [D1].
 *
 * Locking: `put`, `writeToStore`, `drop` under the image lock; the others anywhere.
 */
import { type AlignedBuffer, sharedArena } from "@blocklayer/aligned-io";
import { assert, IoVector, type MaybePromise } from "@blocklayer/bytes";
import { WaitQueue } from "@blocklayer/co-lock";
import type { Flushable } from "@blocklayer/metadata-cache";
import { type ReadResult, SeqCache, type SeqFlush, writeLength } from "@blocklayer/seqcache";
import type { HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { DamageError } from "../refcount/damage.js";
import { TaskGroup } from "../task-group.js";
import { markCorrupt } from "./prepare.js";

/** Host clusters in memory, at most. */
const MAX_CLUSTERS = 8;
/** What one put can begin: a cluster of its own, and the one behind it. */
const CLUSTERS_OF_A_PUT = 2;
/** Finished clusters that go to the file in one write, when they lie side by side. */
const MAX_RUN_CLUSTERS = 4;
/** Writes of one flush at once. */
const MAX_PARALLEL_WRITES = 4;
/** What a page of memory and a block of a modern disk have: the tail of a cluster is padded up to it. */
const OPTIMAL_ALIGNMENT = 4096;

/** Counters since the cache was turned on. */
export interface CompressedCacheStats {
  /** Writes to the file. */
  writes: number;
  /** Host clusters written. */
  flushedClusters: number;
  /** Zeroes written behind the data, up to the alignment. */
  paddedBytes: number;
  /** Blocks that would have been read to be written again, had each cluster been written by itself. */
  avoidedReadModifyWrites: number;
}

export class CompressedCache implements Flushable {
  readonly stats: CompressedCacheStats = {
    writes: 0,
    flushedClusters: 0,
    paddedBytes: 0,
    avoidedReadModifyWrites: 0,
  };
  readonly #image: Qcow2Image;
  readonly #cache: SeqCache;
  readonly #lent = new Map<Uint8Array, AlignedBuffer>();
  /** Writes that are under way: a flush waits for them all [S8]. */
  readonly #writing = new Set<Promise<void>>();
  readonly #settled = new WaitQueue("compressed cache");
  readonly #requestAlignment: number;
  readonly #padding: number;
  #end: HostOffset = 0;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.#requestAlignment = image.file.limits.requestAlignment;
    this.#padding = Math.max(this.#requestAlignment, OPTIMAL_ALIGNMENT);
    this.#cache = new SeqCache({
      clusterSize: image.geometry.clusterSize,
      maxClusters: MAX_CLUSTERS - CLUSTERS_OF_A_PUT + 1,
      allocator: {
        allocate: (lengthBytes) => this.#lend(lengthBytes),
        release: (buffer) => this.#takeBack(buffer),
      },
    });
  }

  /** Whether anything is here that a flush must write, or is being written. */
  get dirty(): boolean {
    return this.#cache.clusterCount > 0 || this.#writing.size > 0;
  }

  /** Whether nothing more may be put before something was written. */
  get full(): boolean {
    return this.#cache.full;
  }

  /** Whether it is worth a write now, while others are being put. */
  get worthWriting(): boolean {
    return this.#cache.finishedCount >= MAX_RUN_CLUSTERS;
  }

  /** No byte at or behind this offset was ever put. */
  get end(): HostOffset {
    return this.#end;
  }

  /** For the statistics of the node. `buffers` are host clusters of memory. */
  get contents(): Readonly<Record<"clusters" | "bytes" | "buffers" | "hits", number>> {
    const { clusterCount: clusters, cachedBytes: bytes, bufferCount: buffers, stats } = this.#cache;
    return { clusters, bytes, buffers, hits: stats.hits + stats.partialHits };
  }

  /** Takes bytes whose room was just allocated. Requires: not `full`. Holds: the image lock [S10]. */
  put(hostOffset: HostOffset, bytes: Uint8Array): void {
    assert(!this.#cache.full, "who puts has waited for room");
    const end = hostOffset + bytes.length;
    this.stats.avoidedReadModifyWrites += this.#unalignedBlocks(hostOffset, end);
    this.#cache.write(hostOffset, bytes);
    this.#end = Math.max(this.#end, end);
  }

  /** Fills what is here of a range; the file has the gaps, and is asked after this [S4]. */
  read(hostOffset: HostOffset, target: Uint8Array): ReadResult {
    return this.#cache.read(hostOffset, target);
  }

  /**
   * Waits until something may be put, and writes for that if nobody else does.
   *
   * Requires: the image lock is not held.
   * @throws the error of the write; BlockError `ENODEFAILED` after an earlier one
   */
  async room(): Promise<void> {
    while (this.#cache.full) {
      this.#image.refuseFailed();
      const run = this.#takeRun(false);
      if (run !== undefined) {
        await this.#write(run);
        continue;
      }
      assert(this.#writing.size > 0, "a full cache has something to write, or is writing");
      await this.#settled.wait();
    }
    this.#image.refuseFailed();
  }

  /** Writes the clusters that are finished and that nobody else writes. @throws the error of a write */
  writeFinished(): MaybePromise<void> {
    if (this.#cache.finishedCount > 0) return this.#writeRuns(this.#cache.finishedCount, false);
  }

  /**
   * Writes all that was here when it began [S9], and waits for what others were writing then [S8].
   *
   * Holds: the image lock. Suspends: when there is anything.
   * @throws the error of a write; BlockError `ENODEFAILED` when data was lost before [C17]
   */
  writeToStore(): MaybePromise<void> {
    this.#image.refuseFailed();
    if (this.dirty) return this.#writeAll();
  }

  /** The same, made durable. */
  async flush(): Promise<void> {
    await this.writeToStore();
    await this.#image.sync();
  }

  /** Forgets what is here of a cluster that is free now [S14]. Holds: the image lock. */
  drop(clusterOffset: HostOffset): void {
    this.#cache.drop(clusterOffset);
  }

  /** Ends the use of the cache. Requires: a flush succeeded, or the image has failed, and nothing is written. */
  free(): void {
    if (this.#image.failure !== undefined) this.#cache.dropAll();
    this.#cache.free();
  }

  async #writeAll(): Promise<void> {
    try {
      await this.#writeRuns(this.#cache.flushableCount, true);
    } finally {
      // Only now: what was here at the start and is not written, somebody else has taken since, or before.
      // Each reports its failure to the write that it belongs to; here it counts that data was lost.
      await Promise.allSettled(this.#writing);
    }
    this.#image.refuseFailed();
  }

  async #writeRuns(maxClusters: number, unfinished: boolean): Promise<void> {
    const group = new TaskGroup(MAX_PARALLEL_WRITES);
    for (let left = maxClusters; left > 0 && !group.failed; ) {
      const run = this.#takeRun(unfinished, left);
      if (run === undefined) break;
      left -= run.length;
      group.add(this.#write(run));
      await group.room();
    }
    await group.drain();
  }

  /** Takes out the oldest cluster, with what follows it without a gap. */
  #takeRun(unfinished: boolean, limit = MAX_RUN_CLUSTERS): SeqFlush[] | undefined {
    const first = this.#cache.nextFlush({ unfinished });
    if (first === undefined) return undefined;
    const run = [first];
    let last = first;
    while (run.length < Math.min(limit, MAX_RUN_CLUSTERS) && last.finished) {
      // A cluster that is not full ends before its neighbour begins.
      if (last.length < last.buffer.length) break;
      if (this.#cache.nextOffset !== last.offset + last.length) break;
      const next = this.#cache.nextFlush();
      if (next === undefined) break;
      run.push(next);
      last = next;
    }
    return run;
  }

  #write(run: readonly SeqFlush[]): Promise<void> {
    const writing = this.#writeNow(run);
    this.#writing.add(writing);
    const ended = (): void => {
      this.#writing.delete(writing);
      this.#settled.wakeAll();
    };
    writing.then(ended, ended);
    return writing;
  }

  /** One write to the file. */
  async #writeNow(run: readonly SeqFlush[]): Promise<void> {
    const image = this.#image;
    const first = run[0] as SeqFlush;
    const epoch = image.inFlight.enter();
    let written = false;
    try {
      const parts = run.map((one) => this.#padded(one));
      this.stats.writes++;
      await image.writeHost(first.offset, IoVector.from(parts), undefined, "write_compressed");
      written = true;
    } catch (error) {
      if (error instanceof DamageError) await markCorrupt(image, error);
      else image.loseData(error);
      throw error;
    } finally {
      for (const { token } of run) {
        if (written) this.#cache.discard(token);
        else this.#cache.putBack(token);
      }
      epoch.settle();
    }
  }

  /** What is written of a handout. Nothing is appended to an unfinished one: whoever takes it holds the lock. */
  #padded(flush: SeqFlush): Uint8Array {
    const length = writeLength(flush, this.#padding, false);
    const { stats } = this;
    stats.flushedClusters++;
    stats.paddedBytes += length - flush.length;
    stats.avoidedReadModifyWrites -= this.#unalignedBlocks(flush.offset, flush.offset + length);
    return flush.buffer.subarray(0, length);
  }

  /** How many blocks a write of a range would have to read first. */
  #unalignedBlocks(start: HostOffset, end: HostOffset): number {
    const unit = this.#requestAlignment;
    const head = start % unit !== 0;
    const tail = end % unit !== 0;
    if (head && tail && Math.floor(start / unit) === Math.floor(end / unit)) return 1;
    return Number(head) + Number(tail);
  }

  /** Aligned memory if there is any; else plain memory, which costs a copy. */
  #lend(lengthBytes: number): Uint8Array {
    const buffer = sharedArena().tryAllocate(lengthBytes);
    if (buffer === undefined) return new Uint8Array(lengthBytes);
    this.#lent.set(buffer.bytes, buffer);
    return buffer.bytes;
  }

  #takeBack(bytes: Uint8Array): void {
    this.#lent.get(bytes)?.release();
    this.#lent.delete(bytes);
  }
}
