/**
 * The last extent that was found, so that a walk through a file in small steps asks the system once per
 * extent.
 *
 * 1. An extent of data stays true, or becomes too cautious, when more is written. So only `forget` drops it.
 * 2. A hole stops being one when it is written: `noteWritten` drops it. It must be told *after* the write
 *    ended, since whoever looks during the write may still find the hole.
 * 3. A hole is kept only while nobody else may write to the file (`mayKeepHoles`), and forgotten when that ends.
 */
import { rangesOverlap } from "@blocklayer/bytes";

/** A run of data or of hole: `[start, end)` in bytes. */
export interface FileExtent {
  readonly start: number;
  readonly end: number;
  readonly data: boolean;
}

/** One extent, or none. */
export class ExtentCache {
  #mayKeepHoles = false;
  #last: FileExtent | undefined;

  /** Whether nobody else may write to the file. */
  get mayKeepHoles(): boolean {
    return this.#mayKeepHoles;
  }

  set mayKeepHoles(may: boolean) {
    this.#mayKeepHoles = may;
    if (!may) this.forget();
  }

  /** The cached extent that covers `offset`. */
  find(offset: number): FileExtent | undefined {
    const last = this.#last;
    return last !== undefined && offset >= last.start && offset < last.end ? last : undefined;
  }

  keep(extent: FileExtent): void {
    if (extent.data || this.#mayKeepHoles) this.#last = extent;
  }

  noteWritten(offset: number, end: number): void {
    const last = this.#last;
    if (last === undefined || last.data) return;
    if (rangesOverlap(last.start, last.end - last.start, offset, end - offset)) this.forget();
  }

  forget(): void {
    this.#last = undefined;
  }
}
