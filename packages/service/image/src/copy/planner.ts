/**
 * Cuts the sources into work: what must be read, what is zero, what the target's backing image has already.
 *
 * Above: the pipeline, which asks for one item after the other. Below: `blockStatusAbove` of the sources.
 *
 * 1. Items are in order, without gaps, from 0 to the end.
 * 2. A border between items lies at a multiple of `alignment`, save the end. A unit that two kinds share is data.
 * 3. A data item is at most `maxDataBytes` long. The other kinds are as long as they are: a hole of a terabyte
 *    is a few steps, each of them one status request.
 * 4. Short extents are gathered, so that a source in pieces still gives long reads.
 */
import { alignDown, alignUp, type MaybePromise } from "@blocklayer/bytes";
import type { BlockStatusOptions } from "@blocklayer/block-api";
import type { LayeredStatus } from "@blocklayer/block-graph";
import type { SourceList } from "./source-list.js";

/** An item of zeroes is no longer than this, so that progress and abort are looked at now and then. */
const LONGEST_GATHERED_BYTES: number = 64 * 2 ** 30;

export type WorkKind = "data" | "zero" | "backing";

/** One piece of work. Offsets are bytes of the target, and of the sources as one row. */
export interface WorkItem {
  readonly kind: WorkKind;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** What the planner needs to know about the target. */
export interface PlanOptions {
  readonly alignment: number;
  readonly maxDataBytes: number;
  /** `true`: zeroes are data too (`-S 0`). */
  readonly zeroesAreData: boolean;
  /** Length of the target's backing image; `undefined`: it has none. */
  readonly backingLengthBytes: number | undefined;
  /** What the sources do not hold themselves is the target's: see `TargetBacking.bareLayers`. */
  readonly bareLayers?: boolean;
  readonly signal: AbortSignal | undefined;
}

interface Extent {
  readonly kind: WorkKind;
  readonly start: number;
  readonly end: number;
}

export class Planner {
  readonly #sources: SourceList;
  readonly #options: PlanOptions;
  readonly #statusOptions: BlockStatusOptions;
  #offset = 0;
  /** An extent that was asked for and belongs to the next item. */
  #known: Extent | undefined;

  constructor(sources: SourceList, options: PlanOptions) {
    this.#sources = sources;
    this.#options = options;
    const { signal } = options;
    this.#statusOptions = { wantZero: true, ...(signal === undefined ? {} : { signal }) };
  }

  /** The next item, or `undefined` at the end. One call at a time. */
  async next(): Promise<WorkItem | undefined> {
    const start = this.#offset;
    if (start >= this.#sources.lengthBytes) return undefined;
    const first = await this.#extentAt(start);
    const item = first.kind === "data" ? await this.#data(start) : await this.#other(start, first);
    this.#offset = start + item.lengthBytes;
    return item;
  }

  /** Gathers data until the item is full or whole units of something else follow. */
  async #data(start: number): Promise<WorkItem> {
    const { alignment, maxDataBytes } = this.#options;
    const total = this.#sources.lengthBytes;
    const limit = Math.min(start + maxDataBytes, total);
    let end = start;
    while (end < limit) {
      const extent = await this.#extentAt(end);
      const unitEnd = Math.min(alignUp(end + 1, alignment), total);
      if (extent.kind === "data") end = extent.end;
      // `end` is inside a unit that has data: the rest of the unit goes with it.
      else if (end % alignment !== 0) end = Math.min(extent.end, unitEnd);
      else if (extent.end < unitEnd) end = unitEnd;
      else break;
    }
    return { kind: "data", offset: start, lengthBytes: Math.min(end, limit) - start };
  }

  /** Gathers zeroes, or backing, in whole units; what is less than a unit becomes data. */
  async #other(start: number, first: Extent): Promise<WorkItem> {
    const { alignment } = this.#options;
    const total = this.#sources.lengthBytes;
    let end = first.end;
    while (end < total) {
      const next = await this.#extentAt(end);
      if (next.kind !== first.kind) break;
      end = next.end;
      if (end - start >= LONGEST_GATHERED_BYTES) break;
    }
    const wholeEnd = end === total ? total : alignDown(end, alignment);
    if (wholeEnd > start) return { kind: first.kind, offset: start, lengthBytes: wholeEnd - start };
    this.#known = { kind: "data", start, end: Math.min(start + alignment, total) };
    return await this.#data(start);
  }

  #extentAt(offset: number): MaybePromise<Extent> {
    const known = this.#known;
    if (known !== undefined && offset >= known.start && offset < known.end) return known;
    const part = this.#sources.partAt(offset);
    const status = part.backend.blockStatusAbove(
      part.base,
      offset - part.start,
      part.end - offset,
      this.#statusOptions,
    );
    return status instanceof Promise
      ? status.then((found) => this.#remember(offset, found))
      : this.#remember(offset, status);
  }

  #remember(offset: number, status: LayeredStatus): Extent {
    const end = offset + status.lengthBytes;
    const backingEnd = this.#options.backingLengthBytes;
    const kind = this.#kindOf(offset, status);
    // The end of the target's backing image changes what zeroes mean.
    const cut = backingEnd !== undefined && offset < backingEnd && end > backingEnd;
    this.#known = { kind, start: offset, end: cut ? backingEnd : end };
    return this.#known;
  }

  #kindOf(offset: number, status: LayeredStatus): WorkKind {
    const { zeroesAreData, backingLengthBytes, bareLayers } = this.#options;
    if (bareLayers === true && !status.allocated) return "backing";
    const hasBacking = backingLengthBytes !== undefined;
    if (status.zero) {
      if (hasBacking && offset >= backingLengthBytes) return "backing";
      return zeroesAreData ? "data" : "zero";
    }
    return hasBacking && !status.allocated ? "backing" : "data";
  }
}
