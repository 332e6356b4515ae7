/**
 * Block status through a whole backing chain.
 *
 * Above: BlockBackend. Below: the drivers' `blockStatus`, which know only their own layer.
 *
 * 1. The first layer that has the range allocated decides. Where a backing file is shorter, the layer above it reads
 *    as zeroes there, and decides.
 * 2. An extent never crosses a border of any layer above the one that decides.
 * 3. Where the deciding layer says `recurse`, the node that holds its bytes is asked whether they are a hole. Its
 *    failure changes nothing: that they are zeroes is only good to know.
 */
import { andThen, BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { BlockStatus, BlockStatusOptions } from "@blocklayer/block-api";
import type { BlockNode } from "./node.js";

/** One extent, and the layer that decides about it. */
export interface LayeredStatus extends BlockStatus {
  /** The layer: 0 for the top, 1 for its backing file, … */
  readonly depth: number;
  /** The node that decides; when nothing is allocated, the last one that was asked. */
  readonly node: BlockNode;
  /** The node that `hostOffset` is an offset in. */
  readonly fileNode?: BlockNode;
}

/**
 * The extent at `offset`, seen through all layers above `base`.
 *
 * @param base - the first layer that is not asked any more; `undefined`: all are
 * @returns `allocated: false` and `zero: false` when only layers from `base` on know
 */
export function statusAbove(
  top: BlockNode,
  base: BlockNode | undefined,
  offset: number,
  lengthBytes: number,
  options?: BlockStatusOptions,
): MaybePromise<LayeredStatus> {
  return statusFrom(top, base, offset, lengthBytes, 0, options);
}

function statusFrom(
  node: BlockNode,
  base: BlockNode | undefined,
  offset: number,
  lengthBytes: number,
  depth: number,
  options: BlockStatusOptions | undefined,
): MaybePromise<LayeredStatus> {
  return andThen(node.io.blockStatus(offset, lengthBytes, options), (found) => {
    if (found.allocated) return refine(node, found, depth, options);
    const below = layerBelow(node);
    if (below === undefined) return { ...found, zero: true, depth, node };
    if (below === base) return { ...found, zero: false, depth, node };
    const inside = below.lengthBytes - offset;
    if (inside <= 0) return { ...found, zero: true, depth, node };
    const length = Math.min(found.lengthBytes, inside);
    return statusFrom(below, base, offset, length, depth + 1, options);
  });
}

/** Refuses a `base` that is no layer below the top. */
export function refuseForeignBase(top: BlockNode, base: BlockNode | undefined): void {
  if (base === undefined) return;
  for (let layer = layerBelow(top); layer !== undefined; layer = layerBelow(layer)) {
    if (layer === base) return;
  }
  throw new BlockError("EINVAL", `node '${base.name}' is no layer below node '${top.name}'`, {
    op: "block status",
    node: top.name,
  });
}

/** The layer that shows where a node has nothing. */
export function layerBelow(node: BlockNode): BlockNode | undefined {
  return node.backing ?? node.child("filtered");
}

/** The node that a status' `hostOffset` points into. */
function fileNodeOf(node: BlockNode, status: BlockStatus): BlockNode | undefined {
  if (status.hostOffset === undefined) return undefined;
  return node.child("data-file") ?? node.file ?? node;
}

function refine(
  node: BlockNode,
  status: BlockStatus,
  depth: number,
  options: BlockStatusOptions | undefined,
): MaybePromise<LayeredStatus> {
  const fileNode = fileNodeOf(node, status);
  if (fileNode === undefined) return { ...status, depth, node };
  const plain = { ...status, depth, node, fileNode };
  const { hostOffset, recurse, data, zero } = status;
  const wanted = recurse === true && data && !zero && options?.wantZero !== false;
  if (!wanted || hostOffset === undefined || fileNode === node) return plain;
  const withHole = (hole: Hole): LayeredStatus => ({
    ...plain,
    lengthBytes: hole.lengthBytes,
    zero: hole.isZero,
  });
  try {
    const hole = holeAt(fileNode, hostOffset, status.lengthBytes, options);
    return hole instanceof Promise ? hole.then(withHole, () => plain) : withHole(hole);
  } catch {
    return plain;
  }
}

interface Hole {
  readonly lengthBytes: number;
  readonly isZero: boolean;
}

/** Whether the bytes at an offset are zeroes for certain, and how far that holds. */
function holeAt(
  node: BlockNode,
  offset: number,
  lengthBytes: number,
  options: BlockStatusOptions | undefined,
): MaybePromise<Hole> {
  const inside = node.lengthBytes - offset;
  if (inside <= 0) return { lengthBytes, isZero: true };
  const length = Math.min(lengthBytes, inside);
  return andThen(statusFrom(node, undefined, offset, length, 0, options), (status) => ({
    lengthBytes: status.lengthBytes,
    isZero: status.zero,
  }));
}
