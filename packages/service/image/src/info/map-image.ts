/** Where every byte of a disk comes from, in the words of `qemu-img map --output=json`. */
import { alignDown, alignUp } from "@blocklayer/bytes";
import type { BlockBackend, Extent } from "@blocklayer/block-graph";
import type { MapEntry } from "./types.js";

/** Which part to tell about. */
export interface MapImageOptions {
  /** Default 0. */
  readonly start?: number;
  /** At most this many bytes from `start` on (`--max-length`). */
  readonly max?: number;
  readonly signal?: AbortSignal;
}

/**
 * Lists a disk's extents in order, without gaps; neighbours that say the same are one.
 *
 * @example for await (const { start, length, data } of mapImage(disk)) console.log(start, length, data)
 */
export async function* mapImage(
  backend: BlockBackend,
  options: MapImageOptions = {},
): AsyncGenerator<MapEntry, void, undefined> {
  const { start = 0, max, signal } = options;
  const end = Math.min(start + (max ?? Infinity), backend.lengthBytes);
  if (start >= end) return;
  const range = { start, end, ...(signal === undefined ? {} : { signal }) };
  let pending: MapEntry | undefined;
  for await (const extent of backend.extents(range)) {
    for (const entry of entriesOf(extent)) {
      if (pending !== undefined && continues(pending, entry)) {
        pending = { ...pending, length: pending.length + entry.length };
        continue;
      }
      if (pending !== undefined) yield pending;
      pending = entry;
    }
  }
  if (pending !== undefined) yield pending;
}

/**
 * One extent as entries. Where a format holds clusters and the file under it has holes, only whole clusters in a hole
 * count as zeroes: otherwise the map of a disk would be as long as the map of its file.
 */
function entriesOf(extent: Extent): readonly MapEntry[] {
  const entry = entryOf(extent);
  const { node } = extent;
  const isHole = entry.zero && entry.data && extent.fileNode !== node;
  const unit = isHole ? node.driver.limits.writeZeroesAlignment : 1;
  if (unit === 1) return [entry];
  const end = entry.start + entry.length;
  const zeroStart = alignUp(entry.start, unit);
  const zeroEnd = alignDown(end, unit);
  if (zeroEnd <= zeroStart) return [{ ...entry, zero: false }];
  return [
    { ...part(entry, entry.start, zeroStart), zero: false },
    part(entry, zeroStart, zeroEnd),
    { ...part(entry, zeroEnd, end), zero: false },
  ].filter(({ length }) => length > 0);
}

function part(entry: MapEntry, start: number, end: number): MapEntry {
  const moved = { ...entry, start, length: end - start };
  return entry.offset === undefined
    ? moved
    : { ...moved, offset: entry.offset + start - entry.start };
}

function entryOf(extent: Extent): MapEntry {
  const { hostOffset } = extent;
  const filename = extent.fileNode?.filename;
  return {
    start: extent.offset,
    length: extent.lengthBytes,
    depth: extent.depth,
    present: extent.allocated,
    zero: extent.zero,
    data: extent.data,
    compressed: extent.compressed,
    ...(hostOffset === undefined ? {} : { offset: hostOffset }),
    ...(hostOffset === undefined || filename === undefined ? {} : { filename }),
  };
}

function continues(entry: MapEntry, next: MapEntry): boolean {
  return (
    entry.depth === next.depth &&
    entry.present === next.present &&
    entry.zero === next.zero &&
    entry.data === next.data &&
    entry.compressed === next.compressed &&
    entry.filename === next.filename &&
    (entry.offset === undefined
      ? next.offset === undefined
      : entry.offset + entry.length === next.offset)
  );
}
