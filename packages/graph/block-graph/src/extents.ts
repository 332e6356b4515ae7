/**
 * The extents of a disk, one after the other, neighbours of one kind as one.
 *
 * Above: BlockBackend.extents, and through it map, convert, and measure. Below: block-status.ts.
 * Memory: one extent. Nothing is asked before it is wanted, and the caller may stop at any time.
 */
import type { BlockNode } from "./node.js";
import { type LayeredStatus, refuseForeignBase, statusAbove } from "./block-status.js";
import { pastTheEnd, refuseAborted, refuseBadRange } from "./request-checks.js";

/** A stretch of the disk of which everything here is true from end to end. */
export interface Extent extends Omit<LayeredStatus, "recurse"> {
  readonly offset: number;
}

/** Which extents to list. */
export interface ExtentOptions {
  /** Where to begin; 0 by default. */
  readonly start?: number;
  /** Where to stop; the end of the disk by default. */
  readonly end?: number;
  /** Ask only layers above this one. */
  readonly base?: BlockNode;
  /** Find zeroes as exactly as possible: the default. */
  readonly wantZero?: boolean;
  readonly signal?: AbortSignal;
}

/** Lists the extents of `[start, end)` in order, without gaps. */
export async function* listExtents(
  top: BlockNode,
  options: ExtentOptions,
): AsyncGenerator<Extent, void, undefined> {
  const { start = 0, base, wantZero = true, signal } = options;
  const { lengthBytes } = top;
  const { end = lengthBytes } = options;
  refuseBadRange("map", top.name, start, end - start);
  if (end > lengthBytes) throw pastTheEnd("map", top.name, start, end - start, lengthBytes);
  refuseForeignBase(top, base);
  let pending: Extent | undefined;
  for (let offset = start; offset < end; ) {
    refuseAborted("map", top.name, signal);
    // The disk may have shrunk since the last extent.
    const rest = Math.min(end, top.lengthBytes) - offset;
    if (rest <= 0) break;
    const status = await statusAbove(top, base, offset, rest, {
      wantZero,
      ...(signal === undefined ? {} : { signal }),
    });
    const { recurse: _, ...kept } = status;
    const extent: Extent = { offset, ...kept };
    offset += extent.lengthBytes;
    if (pending !== undefined && continues(pending, extent)) {
      pending = { ...pending, lengthBytes: pending.lengthBytes + extent.lengthBytes };
      continue;
    }
    if (pending !== undefined) yield pending;
    pending = extent;
  }
  if (pending !== undefined) yield pending;
}

function continues(extent: Extent, next: Extent): boolean {
  return (
    extent.node === next.node &&
    extent.fileNode === next.fileNode &&
    extent.depth === next.depth &&
    extent.allocated === next.allocated &&
    extent.data === next.data &&
    extent.zero === next.zero &&
    extent.compressed === next.compressed &&
    nextHostOffset(extent) === next.hostOffset
  );
}

function nextHostOffset(extent: Extent): number | undefined {
  return extent.hostOffset === undefined ? undefined : extent.hostOffset + extent.lengthBytes;
}
