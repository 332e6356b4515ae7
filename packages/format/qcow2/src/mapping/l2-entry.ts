/**
 * L2 entries as writers see them: one shape, whether entries are extended or not.
 *
 * Above: allocate, zero, discard, compressed/write. Below: the L2 cache, geometry.
 *
 * An entry is a host cluster, if any, and two bits for each subcluster: it has data, it reads as zeroes. An
 * image without extended entries has one subcluster a cluster, and keeps its two bits in the descriptor.
 *
 * 1. No subcluster gets both bits, none has data without a host cluster, and a compressed cluster has no
 *    bits [C14].
 * 2. Descriptor and bitmap change together, between two writes of their table [C14].
 *
 * Locking: the image lock is held throughout.
 *
 * Source: the qcow2 specification, "Cluster mapping" and "Extended L2 Entries".
 */
import { assert } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import {
  COMPRESSED_HIGH,
  ENTRY_KIND,
  type GuestOffset,
  type HostOffset,
  hostOffsetOf,
  isCopied,
  namesFirstExternal,
  standardEntryHigh,
  standardEntryLow,
  ZERO_LOW,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { badHost, invalidEntry, refuseForeignPlace } from "./lookup.js";

/** An entry that was read. Made once, filled in many times. */
export class L2Entry {
  /** As stored. */
  high = 0;
  low = 0;
  compressed = false;
  /** It names a host cluster, where its data lies or may lie. Never for compressed clusters. */
  hosted = false;
  /** Where the host cluster lies; 0 when there is none. */
  hostOffset: HostOffset = 0;
  /** A bit for each subcluster that has data in the host cluster; 0 for compressed clusters. */
  allocated = 0;
  /** A bit for each subcluster that reads as zeroes; 0 for compressed clusters. */
  zeroes = 0;
  /** The bits contradict each other, or version 2 has the zero flag. */
  invalid = false;

  /** Whether the host cluster may be written in place. */
  get inPlace(): boolean {
    return this.hosted && isCopied(this.high);
  }

  /** Fills this in from a table, whatever it holds. */
  load(image: Qcow2Image, table: Table, index: number): this {
    const { l2, geometry } = image;
    const high = l2.entryHigh(table, index);
    const low = l2.entryLow(table, index);
    this.high = high;
    this.low = low;
    this.compressed = (high & COMPRESSED_HIGH) !== 0;
    this.hostOffset = this.compressed ? 0 : hostOffsetOf(high, low);
    this.hosted =
      this.hostOffset !== 0 || (!this.compressed && namesFirstExternal(high, low, geometry));
    this.allocated = 0;
    this.zeroes = 0;
    this.invalid = false;
    if (this.compressed) return this;
    if (geometry.subclusters === 1) {
      const zero = (low & ZERO_LOW) !== 0;
      this.zeroes = zero ? 1 : 0;
      this.allocated = this.hosted && !zero ? 1 : 0;
      this.invalid = zero && geometry.version < 3;
      return this;
    }
    this.zeroes = l2.bitmapHigh(table, index);
    this.allocated = l2.bitmapLow(table, index);
    this.invalid = (this.zeroes & this.allocated) !== 0 || (this.allocated !== 0 && !this.hosted);
    return this;
  }

  /**
   * As `load`, for callers that build on what the entry says.
   *
   * @param guestOffset - of the entry's cluster
   * @throws CorruptImageError when it contradicts itself, or its host offset is not that of a cluster
   */
  loadSound(image: Qcow2Image, table: Table, index: number, guestOffset: GuestOffset): this {
    this.load(image, table, index);
    if (this.invalid) throw invalidEntry(image, table.hostOffset, index);
    if (image.badClusterOffset(this.hostOffset)) {
      throw badHost(image, table.hostOffset, index, this.hostOffset);
    }
    if (image.geometry.externalData) {
      const { compressed, normal, unallocated } = ENTRY_KIND;
      const kind = this.compressed ? compressed : this.hosted ? normal : unallocated;
      const { hostOffset } = this;
      refuseForeignPlace(image, table.hostOffset, guestOffset, { kind, hostOffset, index });
    }
    return this;
  }
}

/** What an entry that is no compressed cluster becomes. */
export interface NewEntry {
  /** 0: no host cluster. */
  readonly hostOffset: HostOffset;
  readonly copied: boolean;
  readonly allocated: number;
  readonly zeroes: number;
}

/** Sets an entry that is no compressed cluster. */
export function storeEntry(image: Qcow2Image, table: Table, index: number, entry: NewEntry): void {
  const { l2, geometry } = image;
  const { hostOffset, copied, allocated, zeroes } = entry;
  assert((allocated & zeroes) === 0, "no subcluster has data and reads as zeroes");
  // In an external data file offset 0 is the first cluster, told by the flag.
  const hosted = hostOffset !== 0 || (geometry.externalData && copied);
  assert(allocated === 0 || hosted, "data lies in a host cluster");
  const high = standardEntryHigh(hostOffset, copied);
  if (geometry.subclusters === 1) {
    assert(!hosted || allocated !== zeroes, "a host cluster has data or reads as zeroes");
    l2.setEntry(table, index, high, standardEntryLow(hostOffset, zeroes !== 0));
    return;
  }
  l2.setEntry(table, index, high, standardEntryLow(hostOffset));
  l2.setBitmap(table, index, zeroes, allocated);
}

/** Sets the entry of a compressed cluster, from the halves of its descriptor. */
export function storeCompressed(
  image: Qcow2Image,
  table: Table,
  index: number,
  high: number,
  low: number,
): void {
  image.l2.setEntry(table, index, high, low);
  if (image.geometry.subclusters > 1) image.l2.setBitmap(table, index, 0, 0);
}
