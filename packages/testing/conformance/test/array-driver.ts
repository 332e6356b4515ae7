/** The simplest driver that keeps the contract: a byte array. The broken ones derive from it. */
import { BlockError, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  limitsOf,
  type ReopenRequest,
  type RequestOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";

/** Bytes that outlive the driver, as a file outlives its descriptor. */
export interface Medium {
  bytes: Uint8Array;
}

export class ArrayDriver implements BlockDriver {
  readonly driverName: string = "array";
  readonly limits: BlockLimits = limitsOf({});
  readonly medium: Medium;
  writable = true;
  active = true;

  constructor(medium: Medium) {
    this.medium = medium;
  }

  get bytes(): Uint8Array {
    return this.medium.bytes;
  }

  set bytes(bytes: Uint8Array) {
    this.medium.bytes = bytes;
  }

  get lengthBytes(): number {
    return this.bytes.length;
  }

  get capabilities(): BlockCapabilities {
    return {
      write: this.writable,
      compressedWrite: false,
      writeZeroes: this.writable,
      discard: this.writable,
      fua: this.writable,
      truncate: this.writable,
      backing: false,
    };
  }

  begin(options: RequestOptions | undefined, isChange: boolean): void {
    if (options?.signal?.aborted === true) throw new BlockError("ECANCELED", "array: canceled");
    if (!this.active) throw new BlockError("EBUSY", "array: inactive");
    if (isChange && !this.writable) throw new BlockError("EACCES", "array: read-only");
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.begin(options, false);
    target.copyFrom(this.bytes.subarray(offset, offset + target.lengthBytes));
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    this.begin(options, true);
    if (options?.compressed === true) throw new BlockError("ENOTSUP", "array: no compression");
    const end = offset + source.lengthBytes;
    if (end > this.bytes.length) this.resize(end);
    source.copyTo(this.bytes.subarray(offset, end));
  }

  writeZeroes(offset: number, length: number, options?: WriteZeroesOptions): MaybePromise<void> {
    this.begin(options, true);
    this.bytes.fill(0, offset, offset + length);
  }

  discard(offset: number, length: number, options?: RequestOptions): MaybePromise<void> {
    this.begin(options, true);
    this.bytes.fill(0, offset, offset + length);
  }

  blockStatus(offset: number, length: number, options?: RequestOptions): MaybePromise<BlockStatus> {
    this.begin(options, false);
    const page = 4096;
    const isZero = (start: number): boolean =>
      this.bytes.subarray(start, Math.min(start + page, this.lengthBytes)).every((b) => b === 0);
    const first = offset - (offset % page);
    const zero = isZero(first);
    let end = first + page;
    while (end < offset + length && isZero(end) === zero) end += page;
    return {
      lengthBytes: Math.min(end, offset + length) - offset,
      allocated: true,
      data: !zero,
      zero,
      compressed: false,
      hostOffset: offset,
    };
  }

  truncate(length: number, options?: RequestOptions): MaybePromise<void> {
    this.begin(options, true);
    this.resize(length);
  }

  resize(length: number): void {
    const bytes = new Uint8Array(length);
    bytes.set(this.bytes.subarray(0, length));
    this.bytes = bytes;
  }

  flushToOs(): MaybePromise<void> {}

  flushToDisk(): MaybePromise<void> {}

  reopen(request: ReopenRequest): MaybePromise<void> {
    this.writable = !request.readOnly;
  }

  inactivate(): MaybePromise<void> {
    this.active = false;
  }

  activate(): MaybePromise<void> {
    this.active = true;
  }

  close(): MaybePromise<void> {}
}
