/** Several disks, one behind the other, as one range of bytes. */
import { andThen, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import type { BlockBackend, BlockNode } from "@blocklayer/block-graph";
import type { RequestOptions } from "@blocklayer/block-api";

/** One disk of the row. */
export interface SourcePart {
  readonly index: number;
  readonly backend: BlockBackend;
  readonly start: number;
  readonly end: number;
  /** Layers from here on belong to the target's backing image; `undefined`: none does. */
  readonly base: BlockNode | undefined;
}

export class SourceList {
  readonly parts: readonly SourcePart[];
  readonly lengthBytes: number;

  /**
   * @param ownLayers - how many layers of each chain count; `undefined`: all
   * @param limit - bytes from the start that count
   */
  constructor(
    backends: readonly BlockBackend[],
    ownLayers: number | undefined,
    limit: number = Infinity,
  ) {
    let start = 0;
    this.parts = backends.map((backend, index) => {
      const end = Math.min(start + backend.lengthBytes, limit);
      const part = { index, backend, start, end, base: baseOf(backend.root, ownLayers) };
      start = end;
      return part;
    });
    this.lengthBytes = start;
  }

  /** The part that holds an offset. Requires: `offset < lengthBytes`. */
  partAt(offset: number): SourcePart {
    for (const part of this.parts) if (offset < part.end) return part;
    throw new RangeError(`offset ${offset} is behind the last source`);
  }

  /** Fills the vector with the bytes from `offset` on, across parts. */
  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const part = this.partAt(offset);
    const inside = part.end - offset;
    if (target.lengthBytes <= inside) {
      return part.backend.readv(offset - part.start, target, options);
    }
    const head = part.backend.readv(offset - part.start, target.slice(0, inside), options);
    return andThen(head, () =>
      this.readv(part.end, target.slice(inside, target.lengthBytes), options),
    );
  }
}

function baseOf(root: BlockNode, ownLayers: number | undefined): BlockNode | undefined {
  if (ownLayers === undefined) return undefined;
  let node: BlockNode | undefined = root;
  for (let layer = 0; layer < ownLayers && node !== undefined; layer++) node = node.backing;
  return node;
}
