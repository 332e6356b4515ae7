/**
 * Images written field by field, at the numbers that the specification gives.
 *
 * Nothing here comes from the driver, not even its constants: a mistake that its reader and its writer share must not
 * hide.
 *
 * A sound image to begin with, one cluster each:
 *
 * | cluster | holds |
 * |---|---|
 * | 0 | header |
 * | 1, 2 | refcount table, refcount block |
 * | 3, 4 | L1 table, L2 table |
 * | 5 to 8 | data of guest clusters 0 to 3, full of 1, 2, 3, 4 |
 * | 9 to 15 | free, refcount 0 |
 *
 * The disk has 16 clusters.
 */

/** Where things lie, as numbers of clusters. */
export const AT = { refcountTable: 1, refcountBlock: 2, l1: 3, l2: 4, data: 5, free: 9 } as const;

export const DATA_CLUSTERS = 4;
const FREE_CLUSTERS = 7;
/** Clusters of the disk. */
export const GUEST_CLUSTERS = 16;
/** Bit 63 of an L1 or L2 entry. */
export const COPIED: bigint = 1n << 63n;
/** Bit 62 of an L2 entry. */
export const COMPRESSED: bigint = 1n << 62n;

export interface SpecImageOptions {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly refcountOrder?: number;
  /** 16-byte L2 entries, and clusters of 16 KiB. */
  readonly extended?: boolean;
  readonly freeClusters?: number;
}

export class SpecImage {
  readonly bytes: Uint8Array;
  readonly clusterSize: number;
  readonly #view: DataView;
  readonly #refcountWidth: number;
  readonly #entryBytes: number;

  constructor(options: SpecImageOptions = {}) {
    const { version = 3, extended = false, refcountOrder = 4 } = options;
    const { clusterBits = extended ? 14 : 12, freeClusters = FREE_CLUSTERS } = options;
    this.clusterSize = 2 ** clusterBits;
    this.bytes = new Uint8Array((AT.free + freeClusters) * this.clusterSize);
    this.#view = new DataView(this.bytes.buffer);
    this.#refcountWidth = 2 ** refcountOrder;
    this.#entryBytes = extended ? 16 : 8;
    this.text(0, "QFI").u8(3, 0xfb).u32(4, version).u32(20, clusterBits);
    this.u64(24, GUEST_CLUSTERS * this.clusterSize);
    this.u32(36, 1).u64(40, this.offset(AT.l1));
    this.u64(48, this.offset(AT.refcountTable)).u32(56, 1);
    if (version === 3) this.u32(96, refcountOrder).u32(100, 112);
    if (extended) this.u64(72, 1n << 4n);
    this.entry(AT.refcountTable, 0, BigInt(this.offset(AT.refcountBlock)));
    this.entry(AT.l1, 0, BigInt(this.offset(AT.l2)) | COPIED);
    for (let i = 0; i < DATA_CLUSTERS; i++) {
      this.l2(i, this.descriptor(AT.data + i), extended ? 0xffff_ffffn : undefined);
      this.fill(AT.data + i, i + 1);
    }
    for (let cluster = 0; cluster < AT.free; cluster++) this.refcount(cluster, 1);
  }

  /** Where a cluster begins. */
  offset(cluster: number): number {
    return cluster * this.clusterSize;
  }

  u8(at: number, value: number): this {
    this.#view.setUint8(at, value);
    return this;
  }

  u16(at: number, value: number): this {
    this.#view.setUint16(at, value);
    return this;
  }

  u32(at: number, value: number): this {
    this.#view.setUint32(at, value);
    return this;
  }

  u64(at: number, value: number | bigint): this {
    this.#view.setBigUint64(at, BigInt(value));
    return this;
  }

  /** Turns bits of a 64-bit field over. */
  flip(at: number, bits: bigint): this {
    return this.u64(at, this.#view.getBigUint64(at) ^ bits);
  }

  text(at: number, text: string): this {
    return this.raw(at, new TextEncoder().encode(text));
  }

  raw(at: number, bytes: Uint8Array): this {
    this.bytes.set(bytes, at);
    return this;
  }

  /** Fills a cluster with one byte. */
  fill(cluster: number, value: number): this {
    this.bytes.fill(value, this.offset(cluster), this.offset(cluster + 1));
    return this;
  }

  /** Sets a 64-bit entry of a table. */
  entry(cluster: number, index: number, value: bigint): this {
    return this.u64(this.offset(cluster) + 8 * index, value);
  }

  /** Sets an entry of the L2 table, and its bitmap in an image that has them. */
  l2(index: number, descriptor: bigint, bitmap?: bigint): this {
    const at = this.offset(AT.l2) + this.#entryBytes * index;
    if (bitmap !== undefined) this.u64(at + 8, bitmap);
    return this.u64(at, descriptor);
  }

  /** A standard descriptor: used once. */
  descriptor(cluster: number): bigint {
    return BigInt(this.offset(cluster)) | COPIED;
  }

  /** Sets a refcount; those of less than a byte begin at the byte's least significant bit. */
  refcount(cluster: number, value: number | bigint): this {
    const width = this.#refcountWidth;
    const block = this.offset(AT.refcountBlock);
    if (width === 64) return this.u64(block + 8 * cluster, value);
    if (width === 32) return this.u32(block + 4 * cluster, Number(value));
    if (width === 16) return this.u16(block + 2 * cluster, Number(value));
    const bit = cluster * width;
    const at = block + (bit - (bit % 8)) / 8;
    const mask = (2 ** width - 1) * 2 ** (bit % 8);
    const old = this.#view.getUint8(at);
    return this.u8(at, (old & ~mask) | (Number(value) * 2 ** (bit % 8)));
  }

  /** Puts a header extension. The first one lies at 112, in version 2 at 72. */
  extension(at: number, type: number, data: Uint8Array | string, length = data.length): this {
    this.u32(at, type).u32(at + 4, length);
    return typeof data === "string" ? this.text(at + 8, data) : this.raw(at + 8, data);
  }

  /** Puts a backing file's name. */
  backing(at: number, name: string): this {
    return this.u64(8, at).u32(16, name.length).text(at, name);
  }

  /**
   * A compressed descriptor: the offset in the lowest `x` bits, then how many more sectors it goes on for,
   * where x = 62 - (cluster_bits - 8).
   */
  compressed(offset: number, furtherSectors: number): bigint {
    const x = 62 - (Math.log2(this.clusterSize) - 8);
    return COMPRESSED | (BigInt(furtherSectors) << BigInt(x)) | BigInt(offset);
  }
}

/** A sound image. */
export function sound(options?: SpecImageOptions): SpecImage {
  return new SpecImage(options);
}
