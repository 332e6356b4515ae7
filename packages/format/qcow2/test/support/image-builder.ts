/**
 * Images by hand: one that is sound, and every field of it open to be broken.
 *
 * The layout is fixed: header, refcount table, refcount block, L1 table, L2 table, then data
 * clusters. Refcounts are 16 bits wide unless the header says otherwise.
 */
import { viewOf } from "@blocklayer/bytes";
import { writeRefcount, type RefcountBits } from "@blocklayer/metadata-cache";

/** Clusters that every built image has. */
export const CLUSTER = {
  header: 0,
  refcountTable: 1,
  refcountBlock: 2,
  l1: 3,
  l2: 4,
  data: 5,
} as const;

/** Where a header field lies, and how long it is. */
export const FIELD = {
  magic: [0, 4],
  version: [4, 4],
  backingFileOffset: [8, 8],
  backingFileSize: [16, 4],
  clusterBits: [20, 4],
  size: [24, 8],
  cryptMethod: [32, 4],
  l1Size: [36, 4],
  l1TableOffset: [40, 8],
  refcountTableOffset: [48, 8],
  refcountTableClusters: [56, 4],
  snapshotCount: [60, 4],
  snapshotsOffset: [64, 8],
  incompatible: [72, 8],
  compatible: [80, 8],
  autoclear: [88, 8],
  refcountOrder: [96, 4],
  headerLength: [100, 4],
  compressionType: [104, 1],
} as const;

export type FieldName = keyof typeof FIELD;

export interface BuilderOptions {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  /** Data clusters, mapped to the first guest clusters. */
  readonly dataClusters?: number;
  readonly refcountOrder?: number;
}

const COPIED = 1n << 63n;

export class ImageBuilder {
  readonly clusterSize: number;
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #refcountBits: RefcountBits;

  constructor(options: BuilderOptions = {}) {
    const { version = 3, clusterBits = 9, dataClusters = 2, refcountOrder = 4 } = options;
    this.clusterSize = 2 ** clusterBits;
    this.#refcountBits = (2 ** refcountOrder) as RefcountBits;
    this.bytes = new Uint8Array((CLUSTER.data + dataClusters) * this.clusterSize);
    this.#view = viewOf(this.bytes);
    this.field("magic", 0x5146_49fb)
      .field("version", version)
      .field("clusterBits", clusterBits)
      .field("size", this.clusterSize * (this.clusterSize / 8))
      .field("l1Size", 1)
      .field("l1TableOffset", CLUSTER.l1 * this.clusterSize)
      .field("refcountTableOffset", CLUSTER.refcountTable * this.clusterSize)
      .field("refcountTableClusters", 1);
    if (version === 3) this.field("refcountOrder", refcountOrder).field("headerLength", 112);
    this.entry(CLUSTER.refcountTable, 0, BigInt(CLUSTER.refcountBlock * this.clusterSize));
    this.entry(CLUSTER.l1, 0, BigInt(CLUSTER.l2 * this.clusterSize) | COPIED);
    for (let i = 0; i < dataClusters; i++) this.entry(CLUSTER.l2, i, this.dataEntry(i));
    for (let i = 0; i < CLUSTER.data + dataClusters; i++) this.refcount(i, 1);
  }

  /** Sets a field of the header. */
  field(name: FieldName, value: number | bigint): this {
    const [position, length] = FIELD[name];
    if (length === 8) this.#view.setBigUint64(position, BigInt(value));
    else if (length === 4) this.#view.setUint32(position, Number(value));
    else this.#view.setUint8(position, Number(value));
    return this;
  }

  /** Sets a 64-bit entry of a table that starts at a cluster. */
  entry(cluster: number, index: number, value: bigint): this {
    this.#view.setBigUint64(cluster * this.clusterSize + index * 8, value);
    return this;
  }

  /** Sets a refcount in the one block. */
  refcount(cluster: number, value: number): this {
    const start = CLUSTER.refcountBlock * this.clusterSize;
    const block = this.bytes.subarray(start, start + this.clusterSize);
    writeRefcount(block, this.#refcountBits, cluster, value);
    return this;
  }

  /** A standard L2 entry for a data cluster of this image. */
  dataEntry(index: number): bigint {
    return BigInt((CLUSTER.data + index) * this.clusterSize) | COPIED;
  }

  /** Puts bytes anywhere. */
  raw(offset: number, bytes: Uint8Array | string): this {
    this.bytes.set(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes, offset);
    return this;
  }

  /** Puts a header extension at `offset`; the first one goes to 112 (version 2: 72). */
  extension(offset: number, type: number, data: Uint8Array | string, length?: number): this {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    this.#view.setUint32(offset, type);
    this.#view.setUint32(offset + 4, length ?? bytes.length);
    return this.raw(offset + 8, bytes);
  }
}
