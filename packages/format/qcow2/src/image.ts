/**
 * One open image: its tables, caches, locks and counters, and the four ways to touch its file.
 *
 * Above: every other module of this package takes one. Below: the file child, the caches.
 *
 * 1. `lock` guards everything that a table entry or a refcount means: it is held for every change, and
 *    for every call of the caches that may wait. Lookups that find their slice need no lock.
 * 2. Guest data passes `readHost` and `writeHost`, which count it as in flight [D1]; metadata passes
 *    `writeMetadata`. All writes pass the overlap check [C16].
 * 3. Once `failure` is set no write and no flush succeeds: memory and file may disagree, or data is lost. In the
 *    first case nothing at all is written any more; in the second, tables that do not name the data may be.
 * 4. Whoever wants to hear of moments in here listens below, as blkdebug does: `event()`.
 */
import type {
  BlockChild,
  DebugEvent,
  RequestOptions,
  SnapshotSelector,
} from "@blocklayer/block-api";
import { BlockError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import { CoMutex } from "@blocklayer/co-lock";
import type { ClusterCodec } from "@blocklayer/codec";
import type { L2Cache, RefcountCache, TableStore } from "@blocklayer/metadata-cache";
import { ImageBitmaps } from "./bitmap/bitmaps.js";
import { ClusterReadCache } from "./compressed/cluster-read-cache.js";
import { PayloadPool } from "./compressed/payload-pool.js";
import { type Geometry, geometryOf, type HostOffset } from "./geometry.js";
import { hasRawDataFile, type Qcow2Header } from "./header/header.js";
import { ExternalData } from "./mapping/external-data.js";
import type { L1Table } from "./mapping/l1-table.js";
import { PendingAllocations } from "./mapping/pending.js";
import { AllocatorState } from "./refcount/allocate.js";
import { DeferredFrees, type DiscardPolicy } from "./refcount/free.js";
import { HostInFlight } from "./refcount/inflight.js";
import { OVERLAP, OverlapIndex } from "./refcount/overlap.js";
import type { RefcountTable } from "./refcount/table.js";
import { type CacheSizes, createL2Cache } from "./writeback/l2-cache.js";
import { createRefcountCache } from "./writeback/refcount-cache.js";
import type { CompressedCache } from "./writeback/compressed-cache.js";

/** Whether compressed writes are gathered: as the file below wants it, or always, or never [S13]. */
export type CompressedCacheMode = "auto" | "on" | "off";

/** What an image is made of. */
export interface ImageParts {
  readonly nodeName: string;
  readonly file: BlockChild;
  readonly backing: BlockChild | undefined;
  /** The external data file of an image that has one. */
  readonly dataFile: BlockChild | undefined;
  readonly readOnly: boolean;
  readonly header: Qcow2Header;
  /** Header and L1 table are those of this snapshot's view: nothing is ever written. */
  readonly snapshot?: SnapshotSelector | undefined;
  readonly l1: L1Table;
  readonly refcountTable: RefcountTable;
  readonly cacheSizes: CacheSizes;
  /** Kinds of OVERLAP that writes are checked against. */
  readonly overlapKinds: number;
  /** Refcounts are not written by a flush [C8]. */
  readonly lazyRefcounts: boolean;
  readonly discardPolicy: DiscardPolicy;
  readonly compressedWriteCache: CompressedCacheMode;
  readonly makeCodec: () => ClusterCodec;
}

/** Counters since the image was opened. */
export interface ImageCounters {
  compressedReads: number;
  compressedWrites: number;
  allocatedClusters: number;
  cowBytes: number;
}

export class Qcow2Image {
  readonly nodeName: string;
  readonly file: BlockChild;
  readonly backing: BlockChild | undefined;
  readonly externalData: ExternalData | undefined;
  /** Where guest data lies: the external data file, or else `file`. */
  readonly data: BlockChild;
  readOnly: boolean;
  readonly snapshot: SnapshotSelector | undefined;
  header: Qcow2Header;
  geometry: Geometry;
  l1: L1Table;
  refcountTable: RefcountTable;
  readonly l2: L2Cache;
  readonly refcounts: RefcountCache;
  readonly lock: CoMutex = new CoMutex("qcow2 image lock");
  readonly inFlight: HostInFlight;
  readonly pending: PendingAllocations = new PendingAllocations();
  readonly allocator: AllocatorState = new AllocatorState();
  readonly frees: DeferredFrees;
  readonly bitmaps: ImageBitmaps;
  /** Present while compressed writes are gathered: see writeback/compressed-cache-switch.ts. */
  compressedCache: CompressedCache | undefined;
  compressedCacheMode: CompressedCacheMode;
  readonly overlap: OverlapIndex;
  /** What the L2 cache may write over: a change of snapshots corrects flags in their tables, too. */
  l2Kinds: number = OVERLAP.activeL2;
  readonly readCache: ClusterReadCache;
  readonly payloads: PayloadPool = new PayloadPool();
  /** Order in which compressed writes allocate: that of their submission. */
  compressedTurn: Promise<void> = Promise.resolve();
  /** Compressed data was written: its last sector may reach past the end of the file. */
  wroteCompressed = false;
  /** The first write has prepared the image: see writeback/prepare.ts. */
  writePrepared = false;
  preparing: Promise<void> | undefined;
  /** Flushes leave the refcounts where they are, and the dirty bit says so: see writeback/dirty-bit.ts. */
  lazyRefcounts: boolean;
  /** The dirty bit was set by this image, and is on the disk. */
  markedDirty = false;
  /** Anything was written since the file was last synced by `close`. */
  touched = false;
  readonly counters: ImageCounters = {
    compressedReads: 0,
    compressedWrites: 0,
    allocatedClusters: 0,
    cowBytes: 0,
  };
  /** 1 / cluster size and 1 / bytes that an L2 table maps: exact, since both are powers of two. */
  readonly perCluster: number;
  readonly perL2Coverage: number;
  /** Binary logarithm of the entries of an L2 slice. */
  readonly sliceBits: number;
  readonly #parts: ImageParts;
  #codec: ClusterCodec | undefined;
  #failure: BlockError | undefined;
  /** Nothing is written any more. */
  #frozen = false;
  /** The file of guest data was at least this long once. */
  #fileEnd = 0;

  constructor(parts: ImageParts) {
    this.#parts = parts;
    this.nodeName = parts.nodeName;
    this.file = parts.file;
    this.backing = parts.backing;
    this.externalData =
      parts.dataFile && new ExternalData(parts.dataFile, hasRawDataFile(parts.header));
    this.data = parts.dataFile ?? parts.file;
    this.readOnly = parts.readOnly;
    this.snapshot = parts.snapshot;
    this.header = parts.header;
    this.geometry = geometryOf(parts.header);
    this.l1 = parts.l1;
    this.refcountTable = parts.refcountTable;
    const store = this.#store();
    this.l2 = createL2Cache(this.geometry, parts.cacheSizes, store, {
      beforeRead: () => this.event("l2_load"),
      beforeWrite: (at, length) => {
        this.overlap.check(at, length, this.l2Kinds);
        return this.event("l2_update");
      },
    });
    this.refcounts = createRefcountCache(this.geometry, parts.cacheSizes, store, {
      beforeRead: () => this.event("refblock_load"),
      beforeWrite: (at, length) => {
        this.overlap.check(at, length, OVERLAP.refcountBlock);
        return this.event("refblock_update_part");
      },
    });
    this.compressedCacheMode = parts.compressedWriteCache;
    this.lazyRefcounts = parts.lazyRefcounts;
    this.inFlight = new HostInFlight((cluster) => this.allocator.mayReuse(cluster));
    this.frees = new DeferredFrees(parts.discardPolicy);
    this.bitmaps = new ImageBitmaps(this);
    this.overlap = new OverlapIndex(this.geometry.clusterSize, parts.overlapKinds);
    this.readCache = new ClusterReadCache(this.geometry.clusterSize);
    this.perCluster = 1 / this.geometry.clusterSize;
    this.perL2Coverage = 1 / this.geometry.l2CoverageBytes;
    this.sliceBits = Math.log2(this.l2.entriesPerTable);
    this.#parts = parts;
  }

  /** The codec, made when first needed. */
  get codec(): ClusterCodec {
    this.#codec ??= this.#parts.makeCodec();
    return this.#codec;
  }

  /** Closes the codec, if it was needed so far. Requires: no request is in flight. */
  async releaseCodec(): Promise<void> {
    const codec = this.#codec;
    this.#codec = undefined;
    await codec?.close();
  }

  get failure(): BlockError | undefined {
    return this.#failure;
  }

  /** Whether nothing is written any more: memory and file may disagree. */
  get frozen(): boolean {
    return this.#frozen;
  }

  /** The same image with what its file says now, and nothing of what was in memory. */
  withTables(tables: Pick<ImageParts, "header" | "l1" | "refcountTable">): Qcow2Image {
    return new Qcow2Image({
      ...this.#parts,
      ...tables,
      readOnly: this.readOnly,
      overlapKinds: this.overlap.kinds,
      lazyRefcounts: this.lazyRefcounts,
      discardPolicy: this.frees.policy,
      compressedWriteCache: this.compressedCacheMode,
    });
  }

  /** Gives the image a header that was written to the file. */
  changeHeader(changes: Partial<Qcow2Header>): void {
    this.header = { ...this.header, ...changes };
    this.geometry = geometryOf(this.header);
  }

  /** Another header altogether: what it lacks, such as a backing file, is gone. */
  setHeader(header: Qcow2Header): void {
    this.header = header;
    this.geometry = geometryOf(header);
  }

  /** Whether an offset cannot be that of a whole cluster. */
  badClusterOffset(hostOffset: HostOffset): boolean {
    const clusters = hostOffset * this.perCluster;
    return clusters !== Math.floor(clusters) || hostOffset > this.geometry.maxHostOffset;
  }

  /** Whether an offset cannot be that of an L2 table. */
  badL2Offset(hostOffset: HostOffset): boolean {
    return this.badClusterOffset(hostOffset);
  }

  /** Tells who listens below what comes next; it may have that wait. */
  event(event: DebugEvent): MaybePromise<void> {
    return this.file.debugEvent?.(event);
  }

  /** Reads guest data. What lies past the end of the file reads as zeroes. */
  readHost(
    hostOffset: HostOffset,
    target: IoVector,
    options?: RequestOptions,
    event: DebugEvent = "read_aio",
  ): MaybePromise<void> {
    if (this.file.debugEvent === undefined) return this.#readNow(hostOffset, target, options);
    return this.#after(this.event(event), () => this.#readNow(hostOffset, target, options));
  }

  #readNow(hostOffset: HostOffset, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const end = hostOffset + target.lengthBytes;
    if (end > this.#fileEnd) {
      this.#fileEnd = this.data.lengthBytes;
      if (end > this.#fileEnd) return this.#readPastEnd(hostOffset, target, options);
    }
    const request = this.data.readv(hostOffset, target, options);
    if (request instanceof Promise) this.inFlight.track(request);
    return request;
  }

  #readPastEnd(
    hostOffset: HostOffset,
    target: IoVector,
    options?: RequestOptions,
  ): MaybePromise<void> {
    const inside = Math.max(0, this.#fileEnd - hostOffset);
    target.fill(0, inside);
    if (inside > 0) return this.#readNow(hostOffset, target.slice(0, inside), options);
  }

  /**
   * Writes guest data.
   *
   * @throws CorruptImageError when the range holds metadata: the image is marked as corrupt
   */
  writeHost(
    hostOffset: HostOffset,
    source: IoVector,
    options?: RequestOptions,
    event: DebugEvent = "write_aio",
  ): MaybePromise<void> {
    if (this.file.debugEvent === undefined) return this.#writeNow(hostOffset, source, options);
    return this.#after(this.event(event), () => this.#writeNow(hostOffset, source, options));
  }

  #writeNow(
    hostOffset: HostOffset,
    source: IoVector,
    options?: RequestOptions,
  ): MaybePromise<void> {
    if (this.externalData === undefined) this.overlap.check(hostOffset, source.lengthBytes, 0);
    const request = this.data.writev(hostOffset, source, options);
    if (request instanceof Promise) this.inFlight.track(request);
    return request;
  }

  /** Does I/O on guest data when its event has passed. A request that is parked there is in flight [D1]. */
  #after(event: MaybePromise<void>, io: () => MaybePromise<void>): MaybePromise<void> {
    if (!(event instanceof Promise)) return io();
    const request = event.then(io);
    this.inFlight.track(request);
    return request;
  }

  /** Writes metadata outside of the caches. `own`: the structures that may lie there. */
  writeTable(hostOffset: HostOffset, bytes: Uint8Array, own: number): MaybePromise<void> {
    this.overlap.check(hostOffset, bytes.length, own);
    return this.file.writev(hostOffset, IoVector.of(bytes));
  }

  /** Makes everything written so far durable. A failure fails the node [C17]. */
  async sync(): Promise<void> {
    try {
      // Data first: what a table shows is there before the table.
      await this.externalData?.child.flush();
      await this.file.flush();
    } catch (cause) {
      this.fail(cause);
      throw cause;
    }
  }

  /** The file was cut: what is known of its length counts no more. */
  fileBecameShorter(): void {
    this.#fileEnd = 0;
  }

  /** Whether a guest offset lies where the backing file has bytes. It has none of VM state. */
  backingCovers(guestOffset: number): boolean {
    const { backing, geometry } = this;
    return (
      backing !== undefined &&
      guestOffset < backing.lengthBytes &&
      guestOffset < geometry.virtualSize
    );
  }

  /** Where the bytes end that begin at or before a guest offset: the disk's, or for VM state nowhere. */
  contentEnd(guestOffset: number): number {
    const { virtualSize, vmStateOffset } = this.geometry;
    return guestOffset < vmStateOffset ? virtualSize : Number.MAX_SAFE_INTEGER;
  }

  /** From now on no write and no flush succeeds, and nothing is written. The first cause stays. */
  fail(cause: unknown): void {
    this.#frozen = true;
    this.#setFailure("the image failed", cause);
  }

  /**
   * Data that the guest takes for written cannot be: from now on no write and no flush succeeds [C17]. What
   * is in memory and does not name the data may still be written.
   */
  loseData(cause: unknown): void {
    this.#setFailure("data that was written is lost, and the image is incomplete", cause);
  }

  #setFailure(what: string, cause: unknown): void {
    if (this.#failure !== undefined) return;
    const why = cause instanceof Error ? cause.message : String(cause);
    this.#failure = new BlockError("ENODEFAILED", `${this.nodeName}: ${what}: ${why}`, {
      node: this.nodeName,
      cause,
    });
  }

  /** @throws BlockError `ENODEFAILED` when the node has failed */
  refuseFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #store(): TableStore {
    return {
      read: (at, into) => this.#readTable(at, into),
      write: (at, bytes) => this.#writeTables(at, IoVector.of(bytes)),
      writev: (at, tables) => this.#writeTables(at, tables),
      sync: () => {
        if (this.#frozen) this.refuseFailed();
        return this.sync();
      },
    };
  }

  /** A read may have to make room in a cache: on a node that failed it does not write for that. */
  #writeTables(at: HostOffset, tables: IoVector): MaybePromise<void> {
    if (this.#frozen) this.refuseFailed();
    return this.file.writev(at, tables);
  }

  #readTable(at: HostOffset, into: Uint8Array): MaybePromise<void> {
    const inside = Math.min(into.length, Math.max(0, this.file.lengthBytes - at));
    into.fill(0, inside);
    if (inside > 0) return this.file.readv(at, IoVector.of(into.subarray(0, inside)));
  }
}
