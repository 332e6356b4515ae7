/**
 * Making ranges read as zeroes.
 *
 * Above: driver.ts. Below: l2-tables, write.ts.
 *
 * Version 3: whole clusters get the zero flag; they keep their host cluster unless it may be given
 * back; compressed ones always give theirs back. Version 2 has no flag: what nothing holds is left
 * alone where no backing file shows through; what may be given back becomes unallocated where there is
 * no backing file at all; the rest is written with zero bytes.
 *
 * Parts of clusters are written, unless the whole cluster reads as zeroes already. A range that reaches
 * the end of the disk covers its last cluster whole.
 */
import type { WriteZeroesOptions } from "@blocklayer/block-api";
import { alignDown, alignUp, IoVector, UnsupportedError } from "@blocklayer/bytes";
import { ENTRY_KIND, type EntryKind, entryKind, type GuestOffset, ZERO_LOW } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { l2WaitsForData } from "../writeback/order.js";
import { dropEntry } from "./allocate.js";
import { entriesLeft, l2ForWrite } from "./l2-tables.js";
import { lookup, lookupSlow, Mapping } from "./lookup.js";
import { withClusters, writeGuest } from "./write.js";

/** Zero bytes that are written at a time. */
const ZERO_BUFFER_BYTES = 2 ** 20;

/** Makes a guest range read as zeroes. Requires: the range lies on the disk; writes are prepared. */
export async function zeroGuest(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options: WriteZeroesOptions,
): Promise<void> {
  const { clusterSize, virtualSize } = image.geometry;
  const end = offset + length;
  await image.externalData?.zeroRaw(offset, length, options);
  const wholeStart = alignUp(offset, clusterSize);
  const wholeEnd = end === virtualSize ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
  if (wholeStart >= wholeEnd) {
    const next = Math.min(end, wholeStart);
    await zeroPart(image, offset, next - offset, options);
    await zeroPart(image, next, end - next, options);
    return;
  }
  await zeroPart(image, offset, wholeStart - offset, options);
  await zeroPart(image, wholeEnd, end - wholeEnd, options);
  if (image.geometry.version >= 3) await flagClusters(image, wholeStart, wholeEnd, options);
  else await clearClusters(image, wholeStart, Math.min(wholeEnd, virtualSize), options);
}

/** A part of one cluster. */
async function zeroPart(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options: WriteZeroesOptions,
): Promise<void> {
  if (length <= 0) return;
  const { clusterSize, virtualSize, version } = image.geometry;
  const start = alignDown(offset, clusterSize);
  const whole = Math.min(clusterSize, virtualSize - start);
  const { kind } = await mapOnce(image, start, whole);
  // Zeroes that went into a raw data file are zeroes of the disk, save where a backing file shows.
  if (image.externalData?.raw === true && kind !== ENTRY_KIND.unallocated) return;
  if (readsAsZero(image, start, kind)) {
    if (version < 3) return;
    if (await flagIfZero(image, start, options)) return;
  }
  await writeZeroBytes(image, offset, length, options);
}

/**
 * Gives a cluster the zero flag if it reads as zeroes. As QEMU does: whoever asks for zeroes finds them named in
 * this image, not only in what it lacks.
 *
 * @returns false when something was written there meanwhile
 */
function flagIfZero(
  image: Qcow2Image,
  start: GuestOffset,
  { signal }: WriteZeroesOptions,
): Promise<boolean> {
  return withClusters(image, start, image.geometry.clusterSize, signal, async () => {
    const { l2, geometry } = image;
    const { table, index } = await l2ForWrite(image, start);
    try {
      const high = l2.entryHigh(table, index);
      const low = l2.entryLow(table, index);
      const kind = entryKind(high, low, geometry);
      if (!readsAsZero(image, start, kind)) return false;
      if (kind === ENTRY_KIND.unallocated) l2.setEntry(table, index, 0, ZERO_LOW);
      return true;
    } finally {
      l2.release(table);
    }
  });
}

/** Whether a cluster of a kind is known to read as zeroes. */
function readsAsZero(image: Qcow2Image, start: GuestOffset, kind: EntryKind): boolean {
  if (kind === ENTRY_KIND.zeroPlain || kind === ENTRY_KIND.zeroAllocated) return true;
  return kind === ENTRY_KIND.unallocated && !image.backingCovers(start);
}

/** The run that a guest offset begins, from tables in memory or from the file. */
export async function mapOnce(
  image: Qcow2Image,
  start: GuestOffset,
  length: number,
): Promise<Mapping> {
  const mapping = new Mapping();
  if (!lookup(image, start, length, mapping)) {
    (await lookupSlow(image, start, length, mapping)).settle();
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

/** Version 3: sets the zero flag, one slice under the lock at a time. */
async function flagClusters(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
  options: WriteZeroesOptions,
): Promise<void> {
  const { clusterSize } = image.geometry;
  const span = image.l2.entriesPerTable * clusterSize;
  for (let at = start; at < end; ) {
    const stop = Math.min(end, alignDown(at, span) + span);
    const from = at;
    await withClusters(image, from, stop - from, options.signal, () =>
      flagSlice(image, from, (stop - from) / clusterSize, options.mayUnmap === true),
    );
    at = stop;
  }
}

async function flagSlice(
  image: Qcow2Image,
  start: GuestOffset,
  clusters: number,
  mayUnmap: boolean,
): Promise<void> {
  const { l2, geometry } = image;
  const { table, index } = await l2ForWrite(image, start);
  try {
    const stop = index + Math.min(clusters, entriesLeft(image, index));
    for (let i = index; i < stop; i++) {
      const high = l2.entryHigh(table, i);
      const low = l2.entryLow(table, i);
      const kind = entryKind(high, low, geometry);
      const hasCluster = kind === ENTRY_KIND.normal || kind === ENTRY_KIND.zeroAllocated;
      const unmap = kind === ENTRY_KIND.compressed || (mayUnmap && hasCluster);
      const newHigh = unmap ? 0 : high;
      const newLow = unmap ? ZERO_LOW : (low | ZERO_LOW) >>> 0;
      if (newHigh === high && newLow === low) continue;
      if (image.externalData?.raw === true) l2WaitsForData(image);
      l2.setEntry(table, i, newHigh, newLow);
      if (unmap) dropEntry(image, high, low, "request");
    }
  } finally {
    l2.release(table);
  }
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
    const bare = mapping.kind === ENTRY_KIND.unallocated;
    const { backing } = image;
    if (bare && backing !== undefined && image.backingCovers(at)) {
      length = Math.min(length, alignUp(backing.lengthBytes - at, image.geometry.clusterSize));
      await writeZeroBytes(image, at, length, options);
    } else if (!bare) {
      if (options.mayUnmap === true && backing === undefined) {
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
        for (let i = index; i < index + clusters; i++) {
          const high = l2.entryHigh(table, i);
          const low = l2.entryLow(table, i);
          if (high === 0 && low === 0) continue;
          l2.setEntry(table, i, 0, 0);
          dropEntry(image, high, low, "request");
        }
      } finally {
        l2.release(table);
      }
    });
    at = stop;
  }
}
