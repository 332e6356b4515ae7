/**
 * Giving clusters a place before anything is written to them.
 *
 * Above: truncate.ts, create.ts; no request is in flight. Below: allocate.ts, the file child.
 *
 * 1. What has a place keeps it, and what is in front of the range in its first cluster goes along. What gets one reads as
 *    zeroes: it lies past the end of the file, or is zeroed there before an entry names it [C1, C5].
 * 2. The layout is that of a guest that writes the range in order, as in QEMU.
 * 3. `metadata` only makes the file long enough, before an entry names what is new of it; `falloc` has the file system set
 *    the space aside, and `full` has it written. Both ask before the first entry is linked, for as much as can be needed,
 *    and give back the rest.
 * 4. In an external data file every cluster has its place: it is only named. The space there is set aside by whoever
 *    gives the data file its length; the image's own file holds tables, and grows with them.
 */
import type { BlockChild, PreallocationMode, RequestOptions } from "@blocklayer/block-api";
import { alignDown, alignUp, divideRoundUp, IoVector, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import {
  ENTRY_BYTES,
  ENTRY_KIND,
  externalOffsetOf,
  type Geometry,
  type GuestOffset,
  type HostOffset,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { writeHostZeroes } from "../host-zeroes.js";
import { usedFileEnd } from "../refcount/reclaim.js";
import { abandon, buildChunk, linkAllocation } from "./allocate.js";
import { PendingAllocation } from "./pending.js";
import { readGuest } from "./read.js";
import { withClusters, writeGuest } from "./write.js";
import { mapOnce } from "./zero.js";

/** Whole clusters of one part are at most so long, as in QEMU, where an int counts them. */
const MAX_PART_BYTES: number = 2 ** 31 - 1;

/**
 * Gives every cluster of a range a place.
 *
 * @param start - rounded down to clusters; at and behind it, an external data file is zero
 * @throws BlockError `EFBIG`, `ENOSPC` and others of the file. **After failure:** some have a place
 */
export async function preallocate(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  mode: Exclude<PreallocationMode, "off">,
  options: RequestOptions = {},
): Promise<void> {
  const { clusterSize } = image.geometry;
  const first = alignDown(start, clusterSize);
  if (first >= end) return;
  await takeAlong(image, first, start);
  const file =
    image.externalData === undefined
      ? new GrowingFile(image, mode)
      : new DataFile(image.externalData.child, externalOffsetOf(start));
  await file.reserve(spaceFor(image.geometry, first, end));
  let usedEnd = 0;
  for (let at = first; at < end; ) {
    options.signal?.throwIfAborted();
    const from = at;
    const length = Math.min(end - from, alignDown(MAX_PART_BYTES, clusterSize));
    const part = await withClusters(image, from, 1, options.signal, () =>
      placePart(image, from, length, file),
    );
    usedEnd = Math.max(usedEnd, part.hostEnd);
    at += part.lengthBytes;
  }
  await file.finish(usedEnd);
}

/**
 * Gives the part of a cluster in front of a range a place that it keeps: compressed data and what is shared would be left
 * behind. One sector is enough, since a write copies all that the cluster holds.
 */
async function takeAlong(image: Qcow2Image, from: GuestOffset, end: GuestOffset): Promise<void> {
  for (let at = from; at < end; ) {
    const { kind, copied, lengthBytes } = await mapOnce(image, at, end - at);
    if (kind === ENTRY_KIND.compressed || (kind === ENTRY_KIND.normal && !copied)) {
      const sector = IoVector.of(new Uint8Array(SECTOR_SIZE_BYTES));
      await readGuest(image, at, sector);
      await writeGuest(image, at, sector);
      return;
    }
    at += lengthBytes;
  }
}

/** Bytes that the clusters of a range can need, with every table that may come with them. */
function spaceFor(geometry: Geometry, start: GuestOffset, end: GuestOffset): number {
  const { clusterSize, l2CoverageBytes, refcountBlockEntries } = geometry;
  const data = divideRoundUp(end - start, clusterSize);
  const tables = divideRoundUp(end, l2CoverageBytes) - Math.floor(start / l2CoverageBytes);
  const blocks = divideRoundUp(data + tables, refcountBlockEntries) + 2;
  const refcountTable = 2 * divideRoundUp(blocks * ENTRY_BYTES, clusterSize);
  return (data + tables + blocks + refcountTable) * clusterSize;
}

/** What one step placed. */
interface PlacedPart {
  readonly lengthBytes: number;
  /** No byte of it lies at or behind this. */
  readonly hostEnd: HostOffset;
}

/** Holds: the image lock. */
async function placePart(
  image: Qcow2Image,
  at: GuestOffset,
  length: number,
  file: PlacedFile,
): Promise<PlacedPart> {
  const chunk = await buildChunk(image, at, length);
  chunk.epoch.settle();
  const { allocations, lengthBytes } = chunk;
  const hostEnd = alignUp(chunk.hostOffset + lengthBytes, image.geometry.clusterSize);
  let linked = 0;
  try {
    await file.reach(hostEnd);
    for (const one of allocations) {
      // With the zero flag it has a place, and keeps the flag; not so in an external data file, as in QEMU.
      if (!one.inPlace || image.externalData !== undefined) await link(image, one, file);
      image.pending.remove(one);
      linked++;
    }
  } finally {
    await abandon(image, allocations.slice(linked));
  }
  return { lengthBytes, hostEnd };
}

async function link(image: Qcow2Image, one: PendingAllocation, file: PlacedFile): Promise<void> {
  const showsNothing = image.geometry.subclusters > 1;
  if (!showsNothing || image.externalData === undefined) {
    await file.makeZero(one.hostOffset, one.lengthBytes);
  }
  if (!showsNothing) return await linkAllocation(image, one);
  // A cluster with subclusters can have a place and show nothing: what lies below it shows on, as in QEMU.
  const { guestStart, guestEnd, hostOffset, inPlace } = one;
  const nothing = { dataStart: guestStart, dataEnd: guestStart, fresh: true };
  const place = new PendingAllocation(guestStart, guestEnd, hostOffset, inPlace, nothing);
  await linkAllocation(image, place);
}

/** Where places are given. */
interface PlacedFile {
  /** Has so much space set aside behind the end of the file. */
  reserve(lengthBytes: number): Promise<void>;
  /** Makes the file so long, or longer: no entry names what lies behind its end. */
  reach(end: HostOffset): Promise<void>;
  /** Makes a range that held something before read as zeroes. */
  makeZero(hostOffset: HostOffset, lengthBytes: number): Promise<void>;
  /** Gives the file its length: behind what was placed, and behind every table. */
  finish(usedEnd: HostOffset): Promise<void>;
}

/** An external data file, which has its length. */
class DataFile implements PlacedFile {
  readonly #child: BlockChild;
  readonly #zeroFrom: HostOffset;

  constructor(child: BlockChild, zeroFrom: HostOffset) {
    this.#child = child;
    this.#zeroFrom = zeroFrom;
  }

  async reserve(): Promise<void> {}

  async reach(): Promise<void> {}

  async makeZero(hostOffset: HostOffset, lengthBytes: number): Promise<void> {
    const inside = Math.min(lengthBytes, this.#zeroFrom - hostOffset);
    if (inside > 0) await this.#child.writeZeroes(hostOffset, inside);
  }

  async finish(): Promise<void> {}
}

/** The image file while it grows: which of it reads as zeroes, and how long it must be. */
class GrowingFile implements PlacedFile {
  readonly #image: Qcow2Image;
  readonly #mode: Exclude<PreallocationMode, "off">;
  /** What lies behind was not in the file before, and was written by nobody but our tables. */
  readonly #oldEnd: HostOffset;

  constructor(image: Qcow2Image, mode: Exclude<PreallocationMode, "off">) {
    this.#image = image;
    this.#mode = mode;
    this.#oldEnd = image.file.lengthBytes;
  }

  async reserve(lengthBytes: number): Promise<void> {
    const { file, geometry } = this.#image;
    if (this.#mode === "metadata" || !file.capabilities.truncate) return;
    const end = alignUp(this.#oldEnd, geometry.clusterSize) + lengthBytes;
    await file.truncate(end, { preallocation: this.#mode });
  }

  async reach(end: HostOffset): Promise<void> {
    const { file } = this.#image;
    if (file.capabilities.truncate && file.lengthBytes < end) await file.truncate(end);
  }

  async makeZero(hostOffset: HostOffset, lengthBytes: number): Promise<void> {
    const { overlap, file } = this.#image;
    const inside = Math.min(lengthBytes, this.#oldEnd - hostOffset);
    if (inside <= 0) return;
    overlap.check(hostOffset, inside, 0);
    await writeHostZeroes(file, hostOffset, inside, { mayUnmap: this.#mode === "metadata" });
  }

  async finish(usedEnd: HostOffset): Promise<void> {
    const image = this.#image;
    const { file } = image;
    if (!file.capabilities.truncate) return;
    const end = this.#mode === "metadata" ? usedEnd : Math.max(usedEnd, await usedFileEnd(image));
    if (this.#mode !== "metadata" || file.lengthBytes < end) await file.truncate(end);
  }
}
