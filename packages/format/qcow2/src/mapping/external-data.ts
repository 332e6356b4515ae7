/**
 * An external data file: guest data outside of the image, each cluster at its guest offset.
 *
 * Above: image.ts (reads and writes), mapping, the flush walk. Below: the `data-file` child.
 *
 * 1. No cluster is taken and none is given back: the image counts references to its own metadata only.
 * 2. A cluster that no entry names any more is discarded in the data file after its drop is durable [D2], unless
 *    an entry names it again by then, or is about to.
 * 3. `raw`: whoever reads the data file alone sees the disk. So zeroes and discards are zeroes there too, before
 *    the entry says so, and every cluster is named from the start.
 * 4. It is synced before the image's own file: an entry never shows data that a crash may lose [C5].
 * 5. What it holds past the end of the disk is not the disk's: never written to, and zeroed before the disk grows there.
 *    A file is cut there when the disk becomes shorter, after the shorter size is durable [C1].
 *
 * Locking: `passDiscards` and `nameClusters` under the image lock; the others anywhere.
 *
 * Source: the qcow2 specification, "Header" (incompatible bit 2, autoclear bit 1), "Cluster mapping".
 */
import type { BlockChild, PreallocationMode, WriteZeroesOptions } from "@blocklayer/block-api";
import { alignUp, BlockError } from "@blocklayer/bytes";
import { ENTRY_KIND, type GuestOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { l2WaitsForData, refcountsWaitForL2 } from "../writeback/order.js";
import { buildChunk, linkAllocation } from "./allocate.js";
import { lookup, Mapping } from "./lookup.js";

/** Ranges that wait to be discarded; above this new ones are forgotten: a discard is a hint. */
const MAX_DISCARDS = 8192;

/** Whether the file system sets space aside in the data file. `metadata` only has every cluster named. */
function isSetAside(preallocation: PreallocationMode): boolean {
  return preallocation === "falloc" || preallocation === "full";
}

interface Range {
  readonly start: GuestOffset;
  end: GuestOffset;
}

export class ExternalData {
  readonly child: BlockChild;
  /** `amend` may give it up. */
  raw: boolean;
  #dropped: Range[] = [];

  constructor(child: BlockChild, raw: boolean) {
    this.child = child;
    this.raw = raw;
  }

  /** Whether `passDiscards` has nothing to do. */
  get settled(): boolean {
    return this.#dropped.length === 0;
  }

  /** Notes that an entry names its cluster no more. A raw data file has zeroes there, which a discard may not leave. */
  noteDropped(start: GuestOffset, lengthBytes: number): void {
    if (this.raw) return;
    const last = this.#dropped.at(-1);
    if (last?.end === start) last.end += lengthBytes;
    else if (this.#dropped.length < MAX_DISCARDS) {
      this.#dropped.push({ start, end: start + lengthBytes });
    }
  }

  /** Makes a range of a raw data file read as zeroes. Nothing where the data file need not show the disk. */
  async zeroRaw(
    offset: GuestOffset,
    lengthBytes: number,
    options: WriteZeroesOptions,
  ): Promise<void> {
    if (this.raw) await this.child.writeZeroes(offset, lengthBytes, options);
  }

  /**
   * Zeroes what the data file holds between the disk's old end and its new one: a longer file, or a device, was never
   * the disk's there. Where no entry will name a cluster, its bytes may stay.
   *
   * @param preallocation - anything but `off`: every cluster will be named; `falloc` and `full`: its space stays
   * @returns whether anything was written
   */
  async clearPast(
    oldEnd: number,
    newEnd: number,
    clusterSize: number,
    preallocation: PreallocationMode = "off",
  ): Promise<boolean> {
    const { child, raw } = this;
    const namesAll = raw || preallocation !== "off";
    const shownEnd = namesAll ? newEnd : Math.min(newEnd, alignUp(oldEnd, clusterSize));
    const lengthBytes = Math.min(shownEnd, child.lengthBytes) - oldEnd;
    if (lengthBytes <= 0) return false;
    await child.writeZeroes(oldEnd, lengthBytes, { mayUnmap: !isSetAside(preallocation) });
    return true;
  }

  /**
   * Gives the data file the length of the disk, and has the space of what is new in it set aside.
   *
   * @throws BlockError `ENOSPC` where it is shorter and cannot grow
   */
  async resize(lengthBytes: number, preallocation: PreallocationMode = "off"): Promise<void> {
    const { child } = this;
    if (child.lengthBytes === lengthBytes) return;
    if (child.capabilities.truncate) {
      const isNew = lengthBytes > child.lengthBytes && isSetAside(preallocation);
      await child.truncate(lengthBytes, isNew ? { preallocation } : {});
      return;
    }
    if (child.lengthBytes > lengthBytes) return;
    const has = `it has ${child.lengthBytes} bytes and cannot grow`;
    throw new BlockError("ENOSPC", `data file '${child.nodeName}' is too short: ${has}`, {
      op: "truncate",
      node: child.nodeName,
      length: lengthBytes,
    });
  }

  /** As `resize`, for a disk that grows: a longer raw data file keeps its end, as in QEMU. */
  async grow(lengthBytes: number, preallocation: PreallocationMode): Promise<void> {
    if (this.raw && this.child.lengthBytes > lengthBytes) return;
    await this.resize(lengthBytes, preallocation);
  }

  /** As `resize`, for a disk that became shorter. A device keeps its length. */
  async shrink(lengthBytes: number): Promise<void> {
    if (this.child.capabilities.truncate) await this.resize(lengthBytes);
  }

  /**
   * Makes the drops durable, then discards what is still unnamed; at the next flush when requests are in flight. Holds:
   * the image lock.
   *
   * @throws the error of a flush of the L2 cache
   */
  async passDiscards(image: Qcow2Image): Promise<void> {
    const ranges = this.#dropped;
    // A reader that found the cluster before it was dropped must not find what a discard may leave [D1].
    if (ranges.length === 0 || image.inFlight.activeCount > 0) return;
    this.#dropped = [];
    await refcountsWaitForL2(image);
    for (const { start, end } of ranges) {
      const stop = Math.min(end, image.geometry.virtualSize);
      for (let at = start; at < stop; ) at = await this.#discardRun(image, at, stop);
    }
  }

  /** @returns where the run ends */
  async #discardRun(image: Qcow2Image, at: GuestOffset, stop: GuestOffset): Promise<GuestOffset> {
    const { clusterSize } = image.geometry;
    const mapping = new Mapping();
    if (!lookup(image, at, stop - at, mapping)) {
      // The slice is out of memory again: not worth a read.
      return at + clusterSize;
    }
    const { kind } = mapping;
    const clash = image.pending.firstOverlapping(at, at + mapping.lengthBytes);
    const end = clash === undefined ? at + mapping.lengthBytes : Math.max(at, clash.guestStart);
    const isUnnamed = kind === ENTRY_KIND.unallocated || kind === ENTRY_KIND.zeroPlain;
    if (isUnnamed && end > at && this.child.capabilities.discard) {
      const inFile = Math.min(end, this.child.lengthBytes) - at;
      try {
        if (inFile > 0) await this.child.discard(at, inFile);
      } catch {
        // A hint that the file did not take.
      }
    }
    return clash === undefined ? end : Math.max(end, clash.guestEnd);
  }
}

/**
 * Names every cluster of a range, so that the disk is what the data file holds. Holds: the image lock.
 *
 * Requires: no request is in flight; the data file reads there as the disk shall.
 */
export async function nameClusters(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
): Promise<void> {
  // Also the subclusters of the last one that lie past the end of the disk.
  const stop = alignUp(end, image.geometry.clusterSize);
  for (let at = start; at < stop; ) {
    const chunk = await buildChunk(image, at, stop - at);
    chunk.epoch.settle();
    l2WaitsForData(image);
    for (const allocation of chunk.allocations) {
      await linkAllocation(image, allocation);
      image.pending.remove(allocation);
    }
    at += chunk.lengthBytes;
  }
}
