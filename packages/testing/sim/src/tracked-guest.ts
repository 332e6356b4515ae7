/**
 * A guest: sends requests to a disk and tells the reference model when each began and ended.
 *
 * Above: crash tests. Below: the device under test, the ReferenceDisk.
 */
import { assert, IoVector, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockIo,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import type { GuestRequest, ReferenceDisk } from "./reference-disk.js";

/** What a guest needs of a disk. A BlockChild has it; for a driver alone, `flush` is the caller's to compose. */
export interface GuestDevice extends Pick<BlockIo, "writev" | "writeZeroes" | "discard"> {
  readv?(offset: number, target: IoVector): MaybePromise<void>;
  truncate?(lengthBytes: number, options?: TruncateOptions): MaybePromise<void>;
  flush(): MaybePromise<void>;
}

/** The user of one disk. Without a scheduler below everything returns plainly. */
export class TrackedGuest {
  readonly #device: GuestDevice;
  readonly #reference: ReferenceDisk;

  constructor(device: GuestDevice, reference: ReferenceDisk) {
    this.#device = device;
    this.#reference = reference;
  }

  write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): MaybePromise<void> {
    const request = this.#reference.startWrite(offset, bytes, { fua: options.fua === true });
    return this.#follow(request, () => this.#device.writev(offset, IoVector.of(bytes), options));
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options: WriteZeroesOptions = {},
  ): MaybePromise<void> {
    const request = this.#reference.startZeroes(offset, lengthBytes, { fua: options.fua === true });
    return this.#follow(request, () => this.#device.writeZeroes(offset, lengthBytes, options));
  }

  discard(offset: number, lengthBytes: number): MaybePromise<void> {
    const request = this.#reference.startDiscard(offset, lengthBytes);
    return this.#follow(request, () => this.#device.discard(offset, lengthBytes));
  }

  /**
   * Reads, and compares. Requires: the device has `readv`.
   *
   * @throws ReferenceMismatchError when what is read is not what may be there; what the device throws
   */
  async read(offset: number, lengthBytes: number): Promise<void> {
    assert(this.#device.readv !== undefined, "the device can be read");
    const start = this.#reference.now;
    const bytes = new Uint8Array(lengthBytes);
    await this.#device.readv(offset, IoVector.of(bytes));
    this.#reference.checkRead(offset, bytes, start);
  }

  /** Makes the disk longer. Requires: the device has `truncate`. */
  grow(lengthBytes: number, options: TruncateOptions = {}): MaybePromise<void> {
    const device = this.#device;
    assert(device.truncate !== undefined, "the device can be made longer");
    const request = this.#reference.startGrow(lengthBytes);
    return this.#follow(request, () => device.truncate?.(lengthBytes, options));
  }

  /** A flush that fails promises nothing, and leaves the model as it was. */
  flush(): MaybePromise<void> {
    const flush = this.#reference.startFlush();
    const flushed = this.#device.flush();
    if (flushed instanceof Promise) return flushed.then(() => this.#reference.finishFlush(flush));
    this.#reference.finishFlush(flush);
  }

  #follow(request: GuestRequest, send: () => MaybePromise<void>): MaybePromise<void> {
    const fail = (error: unknown): never => {
      this.#reference.fail(request);
      throw error;
    };
    let sent: MaybePromise<void>;
    try {
      sent = send();
    } catch (error) {
      return fail(error);
    }
    if (sent instanceof Promise) return sent.then(() => this.#reference.finish(request), fail);
    this.#reference.finish(request);
  }
}
