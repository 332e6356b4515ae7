/**
 * Where the parts of a new image come to lie: a plan, without I/O.
 *
 * Above: create.ts. Below: geometry.ts.
 *
 * An empty image is header, refcount table, one refcount block, L1 table, one after the other. With
 * small clusters the L1 table can outgrow the first refcount block, and then the first refcount
 * table. QEMU makes an image by letting its cluster allocator run on an image without a disk; this
 * planner follows the same allocator on a map of used clusters, so that the images are equal byte
 * for byte.
 *
 * 1. A search takes the first free run at or behind the cursor, and leaves the cursor behind it.
 * 2. A missing refcount block is allocated by the same search. The allocation that missed it is
 *    undone and tried again from its old place, since the block may have taken that place.
 * 3. A refcount table that is too short moves behind everything, half as long again, together with
 *    the blocks that count it. The old one is freed; its bytes stay.
 *
 * Source: behaviour of qemu-img 7.2, watched from outside; the specification leaves it open.
 */
import { alignUp, assert, BlockError, divideRoundUp } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry, MAX_REFCOUNT_TABLE_BYTES } from "./geometry.js";

/** Header, refcount table, first refcount block. */
const INITIAL_CLUSTERS = 3;
/** Searches begun again: one for each refcount block, and a few for the table. */
const MAX_RETRIES = 2 ** 21;

/** A refcount table that was in use for a while: the bytes are still in the file. */
export interface StaleTable {
  /** Cluster where it starts. */
  readonly cluster: number;
  readonly clusterCount: number;
  /** Cluster of each refcount block, 0 for none. */
  readonly blocks: readonly number[];
}

/** The plan. Clusters are counted from the start of the file. */
export interface CreateLayout {
  readonly l1Cluster: number;
  readonly refcountTableCluster: number;
  readonly refcountTableClusters: number;
  /** Cluster of each refcount block, by its index in the table; 0 for none. */
  readonly refcountBlocks: readonly number[];
  readonly staleTables: readonly StaleTable[];
  /** Whether a cluster has the refcount 1; else it has 0. */
  isUsed(cluster: number): boolean;
  /** No cluster at or behind this one is used. */
  readonly usedEnd: number;
  /** Where the file ends. */
  readonly lengthBytes: number;
}

/**
 * Plans a new image.
 *
 * @param geometry - its `l1Size` is within bounds
 * @throws BlockError `EFBIG` when the refcount table would become too long
 */
export function planCreate(geometry: Geometry): CreateLayout {
  return new Planner(geometry).plan();
}

class Planner {
  readonly #geometry: Geometry;
  #used = new Uint8Array(4096);
  #cursor = 0;
  #table: number[] = [2];
  #tableCluster = 1;
  #tableClusters = 1;
  #endCluster = INITIAL_CLUSTERS;
  readonly #stale: StaleTable[] = [];
  #retries = 0;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
  }

  plan(): CreateLayout {
    const { l1Size, clusterSize } = this.#geometry;
    const head = this.#allocate(INITIAL_CLUSTERS);
    assert(head === 0, "the header comes first");
    const l1Bytes = l1Size * ENTRY_BYTES;
    const l1Cluster = l1Size === 0 ? 0 : this.#allocate(divideRoundUp(l1Bytes, clusterSize));
    const metadataEnd = this.#endCluster * clusterSize;
    return {
      l1Cluster,
      refcountTableCluster: this.#tableCluster,
      refcountTableClusters: this.#tableClusters,
      refcountBlocks: this.#table,
      staleTables: this.#stale,
      isUsed: (cluster) => this.#used[cluster] === 1,
      usedEnd: this.#used.length,
      lengthBytes: Math.max(metadataEnd, l1Cluster * clusterSize + l1Bytes),
    };
  }

  /** Finds free clusters and counts them, again and again until no refcount block is missing. */
  #allocate(clusterCount: number): number {
    for (;;) {
      const start = this.#find(clusterCount);
      if (this.#reference(start, clusterCount)) return start;
      this.#retries++;
      assert(this.#retries < MAX_RETRIES, "planning a new image comes to an end");
    }
  }

  /** The first free run at or behind the cursor. */
  #find(clusterCount: number): number {
    let free = 0;
    while (free < clusterCount) free = this.#used[this.#cursor++] === 1 ? 0 : free + 1;
    return this.#cursor - clusterCount;
  }

  /** Sets refcounts to 1. `false`: metadata was allocated meanwhile, nothing was set, search again. */
  #reference(start: number, clusterCount: number): boolean {
    const { refcountBlockEntries } = this.#geometry;
    for (let cluster = start; cluster < start + clusterCount; cluster++) {
      const index = Math.floor(cluster / refcountBlockEntries);
      if (cluster === start || cluster % refcountBlockEntries === 0) {
        if ((this.#table[index] ?? 0) === 0) {
          this.#addBlock(index);
          this.#cursor = Math.min(this.#cursor, start);
          for (let undone = start; undone < cluster; undone++) this.#used[undone] = 0;
          return false;
        }
      }
      this.#use(cluster);
    }
    return true;
  }

  #use(cluster: number): void {
    if (cluster >= this.#used.length) {
      const grown = new Uint8Array(Math.max(this.#used.length * 2, cluster + 1));
      grown.set(this.#used);
      this.#used = grown;
    }
    this.#used[cluster] = 1;
  }

  /** Allocates the refcount block with this index, or a step on the way there. */
  #addBlock(index: number): void {
    const { refcountBlockEntries, clusterSize } = this.#geometry;
    const cluster = this.#find(1);
    if (Math.floor(cluster / refcountBlockEntries) === index) this.#use(cluster);
    else if (!this.#reference(cluster, 1)) return;
    this.#endCluster = Math.max(this.#endCluster, cluster + 1);
    if (index < (this.#tableClusters * clusterSize) / ENTRY_BYTES) this.#setBlock(index, cluster);
    else this.#growTable(index, cluster);
  }

  #setBlock(index: number, cluster: number): void {
    while (this.#table.length <= index) this.#table.push(0);
    this.#table[index] = cluster;
  }

  /** Moves the refcount table behind everything, long enough for `index` and its own clusters. */
  #growTable(index: number, newBlock: number): void {
    const { refcountBlockEntries, clusterSize } = this.#geometry;
    const tooShort = this.#tableClusters;
    const stale = { cluster: this.#tableCluster, clusterCount: tooShort, blocks: [...this.#table] };
    const missing = index * refcountBlockEntries;
    const usedBlocks = divideRoundUp(Math.max(missing + 1, newBlock), refcountBlockEntries);
    const start = usedBlocks * refcountBlockEntries;
    const blockCount = this.#blocksFor(start);
    const entries = alignUp(blockCount + divideRoundUp(blockCount, 2), clusterSize / ENTRY_BYTES);
    if (entries * ENTRY_BYTES > MAX_REFCOUNT_TABLE_BYTES) {
      throw new BlockError("EFBIG", "the refcount table of the new image would be too long");
    }
    this.#setBlock(index, newBlock);
    let next = start;
    for (let i = usedBlocks; i < blockCount; i++) this.#setBlock(i, next++);
    this.#stale.push(stale);
    this.#tableCluster = next;
    this.#tableClusters = (entries * ENTRY_BYTES) / clusterSize;
    this.#endCluster = next + this.#tableClusters;
    for (let cluster = start; cluster < this.#endCluster; cluster++) this.#use(cluster);
    for (let i = 0; i < tooShort; i++) this.#used[stale.cluster + i] = 0;
    this.#cursor = Math.min(this.#cursor, stale.cluster);
  }

  /** Refcount blocks for `clusters` clusters, a table for them, half a table more, and themselves. */
  #blocksFor(clusters: number): number {
    const { refcountBlockEntries, clusterSize } = this.#geometry;
    let counted = clusters;
    let blocks = 0;
    let table = 0;
    let generous = false;
    for (let last = -1, total = 0; total !== last; ) {
      last = total;
      blocks = divideRoundUp(counted + table + blocks, refcountBlockEntries);
      table = divideRoundUp(blocks, clusterSize / ENTRY_BYTES);
      total = counted + blocks + table;
      if (total === last && !generous) {
        generous = true;
        counted += divideRoundUp(table, 2);
        last = -1;
      }
    }
    return blocks;
  }
}
