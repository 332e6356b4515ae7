/**
 * The `raw` format: the bytes of the file, or of a window onto it, are the bytes of the disk.
 *
 * Above: the block graph. Below: the `file` child, and nothing of its own: no cache, no state on disk, no
 * locks. Beside: window (which part), FirstSectorGuard (probed disks only).
 *
 * 1. Every request returns what the child returns, the promise itself: the driver adds no turn of the event
 *    loop.
 * 2. Limits and capabilities are the child's, save that a fixed size cannot be truncated.
 * 3. No request leaves a window of fixed size.
 * 4. A file that listens hears of every read (`read_aio`) and write (`write_aio`), as QEMU's does.
 */
import { andThen, assert, BlockError, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockCapabilities,
  BlockChild,
  BlockDriver,
  BlockLimits,
  BlockStatus,
  BlockStatusOptions,
  ReopenRequest,
  RequestOptions,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import { FirstSectorGuard } from "./first-sector.js";
import { checkWindow, type RawWindow } from "./window.js";

/** How to open a raw disk without a graph. */
export interface RawOptions {
  /** Where the disk starts in the file, in bytes. By default 0. */
  readonly offset?: number;
  /** The disk's length in bytes, a multiple of 512. By default: up to the end of the file. */
  readonly size?: number;
  /** The format was guessed: the first sector is kept from looking like another one. */
  readonly probed?: boolean;
  readonly readOnly?: boolean;
}

/** An open raw disk. */
export class RawDriver implements BlockDriver {
  readonly driverName = "raw";
  readonly #file: BlockChild;
  /** Hears of reads and writes; hardly ever there. */
  readonly #listener: BlockChild["debugEvent"];
  readonly #isProbed: boolean;
  #readOnly: boolean;
  #offset = 0;
  #sizeBytes: number | undefined;
  #guard: FirstSectorGuard | undefined;
  #capabilities: BlockCapabilities | undefined;
  /** The child's capabilities from which `#capabilities` was made. */
  #capabilitiesBase: BlockCapabilities | undefined;

  /** @throws BlockError `EINVAL` when the window is unaligned or does not lie in the file */
  constructor(file: BlockChild, options: RawOptions = {}) {
    this.#file = file;
    this.#listener = file.debugEvent;
    this.#isProbed = options.probed === true;
    this.#readOnly = options.readOnly === true;
    this.#move({ offset: options.offset ?? 0, ...sizeOf(options.size) });
  }

  get lengthBytes(): number {
    if (this.#sizeBytes !== undefined) return this.#sizeBytes;
    return Math.max(this.#file.lengthBytes - this.#offset, 0);
  }

  get limits(): BlockLimits {
    return this.#file.limits;
  }

  get capabilities(): BlockCapabilities {
    const base = this.#file.capabilities;
    if (this.#capabilities === undefined || this.#capabilitiesBase !== base) {
      this.#capabilities = this.#capabilitiesOver(base);
      this.#capabilitiesBase = base;
    }
    return this.#capabilities;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.#assertInside(offset, target.lengthBytes);
    if (this.#listener === undefined) {
      return this.#file.readv(this.#offset + offset, target, options);
    }
    return andThen(this.#listener("read_aio"), () =>
      this.#file.readv(this.#offset + offset, target, options),
    );
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const lengthBytes = source.lengthBytes;
    this.#assertWritable("write", offset, lengthBytes);
    assert(options?.compressed !== true, "a raw disk gets no compressed writes");
    if (this.#guard === undefined && this.#listener === undefined) {
      return this.#file.writev(this.#offset + offset, source, options);
    }
    const send = (): MaybePromise<void> =>
      andThen(this.#listener?.("write_aio"), () =>
        this.#file.writev(this.#offset + offset, source, options),
      );
    return this.#guard === undefined
      ? send()
      : this.#guard.pass({ offset, lengthBytes, source }, send);
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void> {
    this.#assertWritable("write zeroes", offset, lengthBytes);
    const send = (): MaybePromise<void> =>
      this.#file.writeZeroes(this.#offset + offset, lengthBytes, options);
    return this.#guard === undefined ? send() : this.#guard.pass({ offset, lengthBytes }, send);
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    this.#assertWritable("discard", offset, lengthBytes);
    const send = (): MaybePromise<void> =>
      this.#file.discard(this.#offset + offset, lengthBytes, options);
    return this.#guard === undefined ? send() : this.#guard.pass({ offset, lengthBytes }, send);
  }

  /** What the file says, at its place in the file. Every byte is allocated: nothing shows through a raw disk. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    this.#assertInside(offset, lengthBytes);
    const hostOffset = this.#offset + offset;
    return andThen(this.#file.blockStatus(hostOffset, lengthBytes, options), (status) => ({
      lengthBytes: status.lengthBytes,
      allocated: true,
      data: status.data,
      zero: status.zero,
      compressed: false,
      hostOffset,
      recurse: true,
    }));
  }

  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    if (this.#sizeBytes !== undefined) {
      throw new BlockError("ENOTSUP", "raw: cannot resize a raw disk of fixed size", {
        op: "truncate",
        length: lengthBytes,
      });
    }
    this.#assertWritable("truncate", 0, 0);
    if (!Number.isSafeInteger(this.#offset + lengthBytes)) {
      throw new BlockError("EINVAL", `raw: disk size ${lengthBytes} is too large`, {
        op: "truncate",
        length: lengthBytes,
      });
    }
    return this.#file.truncate(this.#offset + lengthBytes, options);
  }

  flushToOs(): void {}

  flushToDisk(): void {}

  /** The window may move; it is checked against the file as it is now. */
  reopen(request: ReopenRequest): void {
    const offset = request.options["offset"];
    const size = request.options["size"];
    this.#move({
      offset: typeof offset === "number" ? offset : this.#offset,
      ...sizeOf(typeof size === "number" ? size : this.#sizeBytes),
    });
    this.#readOnly = request.readOnly;
    this.#capabilities = undefined;
  }

  close(): void {}

  #move(window: RawWindow): void {
    checkWindow(window, this.#file.lengthBytes, this.#file.limits.requestAlignment);
    this.#offset = window.offset;
    this.#sizeBytes = window.sizeBytes;
    this.#guard = this.#isProbed ? new FirstSectorGuard(this.#file, window.offset) : undefined;
  }

  #capabilitiesOver(base: BlockCapabilities): BlockCapabilities {
    const write = base.write && !this.#readOnly;
    return {
      write,
      compressedWrite: false,
      writeZeroes: write && base.writeZeroes,
      discard: write && base.discard,
      fua: write && base.fua,
      truncate: write && base.truncate && this.#sizeBytes === undefined,
      backing: false,
    };
  }

  #assertInside(offset: number, lengthBytes: number): void {
    assert(
      this.#sizeBytes === undefined || offset + lengthBytes <= this.#sizeBytes,
      "a request stays inside the window",
    );
  }

  #assertWritable(op: string, offset: number, length: number): void {
    if (this.#readOnly) {
      throw new BlockError("EACCES", `raw: ${op}: the disk is read-only`, { op, offset, length });
    }
    this.#assertInside(offset, length);
  }
}

function sizeOf(sizeBytes: number | undefined): { readonly sizeBytes?: number } {
  return sizeBytes === undefined ? {} : { sizeBytes };
}
