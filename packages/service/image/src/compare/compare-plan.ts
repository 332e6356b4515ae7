/**
 * What two disks have to compare: extent by extent, the border at whichever ends first.
 *
 * Above: compareImages. Below: `blockStatusAbove` of both.
 */
import { BlockError } from "@blocklayer/bytes";
import type { BlockStatusOptions } from "@blocklayer/block-api";
import type { BlockBackend, LayeredStatus } from "@blocklayer/block-graph";

/** One piece of the comparison. */
export interface ComparePiece {
  readonly offset: number;
  readonly lengthBytes: number;
  /** `both`: read and compare; `first`, `second`: that one must be zeroes; `none`: both are. */
  readonly read: "both" | "first" | "second" | "none";
  /** Strict comparison only: the disks differ in what is allocated here. */
  readonly allocationDiffers: boolean;
}

/** What one disk has from an offset on. */
interface Side {
  readonly start: number;
  readonly end: number;
  readonly zero: boolean;
  readonly status: LayeredStatus | undefined;
}

export class ComparePlan {
  readonly #first: BlockBackend;
  readonly #second: BlockBackend;
  readonly #lengthBytes: number;
  readonly #maxBytes: number;
  readonly #signal: AbortSignal | undefined;
  #offset = 0;
  #sides: [Side | undefined, Side | undefined] = [undefined, undefined];

  constructor(
    first: BlockBackend,
    second: BlockBackend,
    maxBytes: number,
    signal: AbortSignal | undefined,
  ) {
    this.#first = first;
    this.#second = second;
    this.#lengthBytes = Math.max(first.lengthBytes, second.lengthBytes);
    this.#maxBytes = maxBytes;
    this.#signal = signal;
  }

  /** The next piece, or `undefined` at the end of the longer disk. One call at a time. */
  async next(): Promise<ComparePiece | undefined> {
    const offset = this.#offset;
    if (offset >= this.#lengthBytes) return undefined;
    if (this.#signal?.aborted === true) {
      throw new BlockError("ECANCELED", "compare was aborted", { cause: this.#signal.reason });
    }
    const first = await this.#side(0, offset);
    const second = await this.#side(1, offset);
    const read = toRead(first, second);
    const allocationDiffers = differInAllocation(first.status, second.status);
    let end = Math.min(first.end, second.end);
    if (read === "none") {
      this.#offset = end;
      return { offset, lengthBytes: end - offset, read, allocationDiffers };
    }
    end = Math.min(end, offset + this.#maxBytes);
    if (!allocationDiffers) end = await this.#gather(offset, end, read);
    this.#offset = end;
    return { offset, lengthBytes: end - offset, read, allocationDiffers };
  }

  /** Takes what follows along while it is the same kind of work, so that disks in pieces give long reads. */
  async #gather(offset: number, from: number, read: ComparePiece["read"]): Promise<number> {
    const limit = Math.min(offset + this.#maxBytes, this.#lengthBytes);
    let end = from;
    while (end < limit) {
      const first = await this.#side(0, end);
      const second = await this.#side(1, end);
      if (toRead(first, second) !== read) break;
      if (differInAllocation(first.status, second.status)) break;
      end = Math.min(first.end, second.end, limit);
    }
    return end;
  }

  async #side(index: 0 | 1, offset: number): Promise<Side> {
    const known = this.#sides[index];
    if (known !== undefined && known.start <= offset && offset < known.end) return known;
    const backend = index === 0 ? this.#first : this.#second;
    const side = await this.#askSide(backend, offset);
    this.#sides[index] = side;
    return side;
  }

  async #askSide(backend: BlockBackend, offset: number): Promise<Side> {
    const inside = backend.lengthBytes - offset;
    // Behind its end a disk counts as zeroes.
    if (inside <= 0)
      return { start: offset, end: this.#lengthBytes, zero: true, status: undefined };
    const options: BlockStatusOptions = this.#signal === undefined ? {} : { signal: this.#signal };
    const status = await backend.blockStatusAbove(undefined, offset, inside, options);
    const end = offset + status.lengthBytes;
    return { start: offset, end, zero: status.zero, status };
  }
}

function toRead(first: Side, second: Side): ComparePiece["read"] {
  if (first.zero) return second.zero ? "none" : "second";
  return second.zero ? "first" : "both";
}

function differInAllocation(a: LayeredStatus | undefined, b: LayeredStatus | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return (
    a.allocated !== b.allocated ||
    a.data !== b.data ||
    a.zero !== b.zero ||
    a.compressed !== b.compressed
  );
}
