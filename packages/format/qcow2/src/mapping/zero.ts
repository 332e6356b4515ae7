/**
 * Making ranges read as zeroes.
 *
 * Above: driver.ts. Below: l2-entry, l2-tables, write.ts.
 *
 * Version 3: clusters and subclusters get the zero flag. Whole clusters keep their host cluster unless it
 * may be given back; compressed ones always give theirs back. Subclusters of a compressed cluster cannot
 * have flags: they are written with zero bytes. Version 2 has no flag: what nothing holds is left alone
 * where no backing file shows through; what is there becomes unallocated where there is no backing file at
 * all, as in QEMU also when it need not be given back; the rest is written with zero bytes.
 *
 * Parts of clusters (of subclusters, where there are any) are written, unless the rest of it reads as
 * zeroes and all of it has no data: then it gets the flag as a whole, as in QEMU. A range that reaches the
 * end of the disk covers its last subcluster whole, and its last cluster when it begins before it.
 */
import type { BlockChild, WriteZeroesOptions } from "@blocklayer/block-api";
import { alignDown, alignUp, IoVector, UnsupportedError } from "@blocklayer/bytes";
import type { Table } from "@blocklayer/metadata-cache";
import { ENTRY_KIND, type GuestOffset, isCopied, isUnallocated, isZero } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { l2WaitsForData } from "../writeback/order.js";
import { dropEntry } from "./allocate.js";
import { L2Entry, storeEntry } from "./l2-entry.js";
import { entriesLeft, l2ForWrite } from "./l2-tables.js";
import { invalidEntry, lookup, lookupSlow, Mapping } from "./lookup.js";
import { touchedSubclusters } from "./subclusters.js";
import { withClusters, writeGuest } from "./write.js";

/** Zero bytes that are written at a time. */
const ZERO_BUFFER_BYTES = 2 ** 20;

/** How flags are set. */
interface FlagOptions {
  /** Whole clusters give their host cluster back. */
  readonly mayUnmap: boolean;
  /** Only where no subcluster of the range has data. */
  readonly onlyBare: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Makes a guest range read as zeroes. Requires: the range lies on the disk; writes are prepared. */
export async function zeroGuest(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options: WriteZeroesOptions,
): Promise<void> {
  const { subclusterSize: unit, virtualSize, version } = image.geometry;
  const end = offset + length;
  await image.externalData?.zeroRaw(offset, length, options);
  const wholeStart = alignUp(offset, unit);
  const wholeEnd = end === virtualSize ? alignUp(end, unit) : alignDown(end, unit);
  if (wholeStart >= wholeEnd) {
    const next = Math.min(end, wholeStart);
    await zeroPart(image, offset, next - offset, options);
    await zeroPart(image, next, end - next, options);
    return;
  }
  await zeroPart(image, offset, wholeStart - offset, options);
  await zeroPart(image, wholeEnd, end - wholeEnd, options);
  if (version >= 3) await zeroWhole(image, wholeStart, wholeEnd, options);
  else await clearClusters(image, wholeStart, Math.min(wholeEnd, virtualSize), options);
}

/** A part of one subcluster, or of one cluster that has none. */
async function zeroPart(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options: WriteZeroesOptions,
): Promise<void> {
  if (length <= 0) return;
  const { subclusterSize: unit, virtualSize, version } = image.geometry;
  const start = alignDown(offset, unit);
  const end = Math.min(start + unit, virtualSize);
  if (image.externalData?.raw === true) {
    // Zeroes that went into a raw data file are zeroes of the disk, save where a backing file shows.
    const { kind } = await mapOnce(image, start, end - start);
    if (kind === ENTRY_KIND.normal) return;
  }
  if (version < 3) {
    if (await readsAsZero(image, start, end, false)) return;
  } else if (
    (await readsAsZero(image, start, offset, true)) &&
    (await readsAsZero(image, offset + length, end, true))
  ) {
    const { signal } = options;
    const flags = { mayUnmap: options.mayUnmap === true, onlyBare: true, signal };
    if (await flagRange(image, start, start + unit, flags)) return;
  }
  await writeZeroBytes(image, offset, length, options);
}

/** Version 3: whole subclusters. What cannot be flagged is written. */
async function zeroWhole(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  options: WriteZeroesOptions,
): Promise<void> {
  const { clusterSize, virtualSize } = image.geometry;
  const flags = {
    mayUnmap: options.mayUnmap === true,
    onlyBare: false,
    signal: options.signal,
  };
  const first = Math.min(end, alignUp(start, clusterSize));
  const last = Math.max(first, end >= virtualSize ? end : alignDown(end, clusterSize));
  for (const [from, to] of [
    [start, first],
    [first, last],
    [last, end],
  ] as const) {
    if (from >= to || (await flagRange(image, from, to, flags))) continue;
    await writeZeroBytes(image, from, to - from, options);
  }
}

/**
 * Whether a range within one subcluster or cluster reads as zeroes for certain.
 *
 * @param askBacking - whether the backing file's word counts where it shows through
 */
async function readsAsZero(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  askBacking: boolean,
): Promise<boolean> {
  for (let at = start; at < end; ) {
    const { kind, lengthBytes } = await mapOnce(image, at, end - at);
    if (isUnallocated(kind)) {
      const { backing } = image;
      if (backing !== undefined && image.backingCovers(at)) {
        const covered = Math.min(at + lengthBytes, backing.lengthBytes);
        if (!askBacking || !(await backingReadsAsZero(backing, at, covered))) return false;
      }
    } else if (!isZero(kind)) return false;
    at += lengthBytes;
  }
  return true;
}

/** What the backing chain says, down to its end. */
async function backingReadsAsZero(
  backing: BlockChild,
  start: GuestOffset,
  end: GuestOffset,
): Promise<boolean> {
  for (let at = start; at < end; ) {
    const { zero, lengthBytes } = await backing.blockStatus(at, end - at, {
      wantZero: true,
      throughChain: true,
    });
    if (!zero) return false;
    at += lengthBytes;
  }
  return true;
}

/** The run that a guest offset begins, from tables in memory or from the file. */
export async function mapOnce(
  image: Qcow2Image,
  start: GuestOffset,
  length: number,
): Promise<Omit<Mapping, "view" | "index">> {
  const mapping = new Mapping();
  if (!lookup(image, start, length, mapping)) {
    await lookupSlow(image, start, length, mapping, () => undefined);
  }
  return mapping;
}

async function writeZeroBytes(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options: WriteZeroesOptions,
): Promise<void> {
  if (options.noFallback === true) {
    throw new UnsupportedError("these zeroes would have to be written byte by byte", {
      op: "writeZeroes",
      node: image.nodeName,
      offset,
      length,
    });
  }
  const buffer = new Uint8Array(Math.min(length, ZERO_BUFFER_BYTES));
  for (let done = 0; done < length; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, length - done));
    await writeGuest(image, offset + done, IoVector.of(part), options);
  }
}

/**
 * Version 3: sets zero flags, one slice under the lock at a time.
 *
 * @param start - start of a subcluster
 * @param end - end of one; a range that is no whole number of clusters lies in one cluster
 * @returns false when nothing was done, since a cluster can have no such flags, or has data and may not
 */
async function flagRange(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  flags: FlagOptions,
): Promise<boolean> {
  const span = image.l2.entriesPerTable * image.geometry.clusterSize;
  for (let at = start; at < end; ) {
    const stop = Math.min(end, alignDown(at, span) + span);
    const from = at;
    const done = await withClusters(image, from, stop - from, flags.signal, () =>
      flagSlice(image, from, stop, flags),
    );
    if (!done) return false;
    at = stop;
  }
  return true;
}

async function flagSlice(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  flags: FlagOptions,
): Promise<boolean> {
  const { l2, geometry } = image;
  const { clusterSize } = geometry;
  const { table, index } = await l2ForWrite(image, start);
  try {
    const clusterStart = alignDown(start, clusterSize);
    const clusters = Math.ceil((end - clusterStart) / clusterSize);
    const stop = index + Math.min(clusters, entriesLeft(image, index));
    const entry = new L2Entry();
    for (let i = index, at = clusterStart; i < stop; i++, at += clusterSize) {
      entry.load(image, table, i);
      const mask = flagsFor(image, at, start, end);
      const bare = !entry.compressed && (entry.allocated & mask) === 0;
      if (flags.onlyBare && !bare) return false;
      if (mask === geometry.allSubclusters) {
        flagCluster(image, table, i, entry, flags.mayUnmap);
        continue;
      }
      if (entry.compressed) return false;
      if (entry.invalid) throw invalidEntry(image, table.hostOffset, i);
      flagSubclusters(image, table, i, entry, mask);
    }
    return true;
  } finally {
    l2.release(table);
  }
}

/** The subclusters of a cluster that a range covers: all of them when what is left lies past the disk's end. */
function flagsFor(
  image: Qcow2Image,
  clusterStart: GuestOffset,
  start: GuestOffset,
  end: GuestOffset,
): number {
  const { geometry } = image;
  if (start <= clusterStart && end >= geometry.virtualSize) return geometry.allSubclusters;
  return touchedSubclusters(geometry, clusterStart, start, end);
}

/** All of a cluster reads as zeroes. */
function flagCluster(
  image: Qcow2Image,
  table: Table,
  index: number,
  entry: L2Entry,
  mayUnmap: boolean,
): void {
  const { high, low, hosted, hostOffset, compressed, allocated } = entry;
  const zeroes = image.geometry.allSubclusters;
  const unmap = compressed || (mayUnmap && hosted);
  if (!unmap && allocated === 0 && entry.zeroes === zeroes) return;
  if (image.externalData?.raw === true) l2WaitsForData(image);
  const kept = unmap ? 0 : hostOffset;
  const copied = !unmap && isCopied(high);
  storeEntry(image, table, index, { hostOffset: kept, copied, allocated: 0, zeroes });
  if (unmap) dropEntry(image, high, low, "request");
}

/** Some subclusters of a cluster read as zeroes. Requires: the entry is sound, and not compressed. */
function flagSubclusters(
  image: Qcow2Image,
  table: Table,
  index: number,
  entry: L2Entry,
  mask: number,
): void {
  const { high, hostOffset } = entry;
  const allocated = entry.allocated & ~mask;
  const zeroes = entry.zeroes | mask;
  if (allocated === entry.allocated && zeroes === entry.zeroes) return;
  if (image.externalData?.raw === true) l2WaitsForData(image);
  storeEntry(image, table, index, { hostOffset, copied: isCopied(high), allocated, zeroes });
}

/** Version 2: run by run, whatever is the least work. */
async function clearClusters(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  options: WriteZeroesOptions,
): Promise<void> {
  for (let at = start; at < end; ) {
    const mapping = await mapOnce(image, at, end - at);
    let length = mapping.lengthBytes;
    const bare = isUnallocated(mapping.kind);
    const { backing } = image;
    if (bare && backing !== undefined && image.backingCovers(at)) {
      length = Math.min(length, alignUp(backing.lengthBytes - at, image.geometry.clusterSize));
      await writeZeroBytes(image, at, length, options);
    } else if (!bare) {
      // An image that is open without its backing file must not show it later.
      if (backing === undefined && image.header.backingFilename === undefined) {
        await unmapClusters(image, at, at + length, options.signal);
      } else await writeZeroBytes(image, at, length, options);
    }
    at += length;
  }
}

/** Makes whole clusters unallocated. Requires: no backing file shows through, or it should. */
export async function unmapClusters(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  signal?: AbortSignal,
): Promise<void> {
  const { l2, geometry } = image;
  const span = l2.entriesPerTable * geometry.clusterSize;
  for (let at = start; at < end; ) {
    const stop = Math.min(end, alignDown(at, span) + span);
    const from = at;
    await withClusters(image, from, stop - from, signal, async () => {
      const { table, index } = await l2ForWrite(image, from);
      try {
        const clusters = Math.ceil((stop - from) / geometry.clusterSize);
        const entry = new L2Entry();
        for (let i = index; i < index + clusters; i++) {
          const { high, low, zeroes, allocated } = entry.load(image, table, i);
          if (high === 0 && low === 0 && zeroes === 0 && allocated === 0) continue;
          storeEntry(image, table, i, { hostOffset: 0, copied: false, allocated: 0, zeroes: 0 });
          dropEntry(image, high, low, "request");
        }
      } finally {
        l2.release(table);
      }
    });
    at = stop;
  }
}
