/**
 * Keeps the first bytes of a file back until what follows them is whole.
 *
 * A node between a format and its byte store. Above: the format's driver (or raw). Below: the file.
 *
 * 1. Until `release` the file's first HEAD_BYTES hold a notice instead of what was written there. So a file that was
 *    left behind by a killed process or a power cut is no image of any format, and says why.
 * 2. Whoever reads through this node sees what was written.
 * 3. `release` writes the held bytes once. Whoever calls it has flushed what follows them.
 * 4. After `release` the node only passes on.
 */
import { assert, IoVector, isZero, KiB, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockCapabilities,
  BlockChild,
  BlockDriver,
  BlockLimits,
  BlockStatus,
  BlockStatusOptions,
  DriverDefinition,
  RequestOptions,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";

/** What is held back: more than the header of any format needs, and a whole block of a disk. */
export const HEAD_BYTES: number = 4 * KiB;

/** What an unfinished file starts with. */
export const NOTICE =
  "blocklayer: incomplete image. What wrote this file did not come to its end.\n";

/** The driver's name in node options. */
export const HELD_HEAD_DRIVER = "held-head";

const NOTICE_BYTES: Uint8Array = noticeBytes();

function noticeBytes(): Uint8Array {
  const bytes = new Uint8Array(HEAD_BYTES);
  bytes.set(new TextEncoder().encode(NOTICE));
  return bytes;
}

/** Whether a file's first bytes are the notice. */
export function isIncomplete(head: Uint8Array): boolean {
  for (let i = 0; i < NOTICE.length; i++) if (head[i] !== NOTICE_BYTES[i]) return false;
  return true;
}

/** One held head: its driver's definition for the graph, and the way to let go. */
export class HeldHead {
  readonly definition: DriverDefinition;
  #driver: HeldHeadDriver | undefined;

  /** @param driverName - another one for each head of a graph */
  constructor(driverName: string = HELD_HEAD_DRIVER) {
    this.definition = {
      name: driverName,
      kind: "filter",
      openOptions: {},
      open: async ({ children }) => {
        const file = children.filtered;
        assert(file !== undefined, "a filter has a child");
        this.#driver = new HeldHeadDriver(file);
        await this.#driver.begin();
        return this.#driver;
      },
    };
  }

  /** Puts the held bytes in their place. Requires: the node is open, and everything else is flushed. */
  async release(): Promise<void> {
    assert(this.#driver !== undefined, "a head is held");
    await this.#driver.release();
  }
}

class HeldHeadDriver implements BlockDriver {
  readonly driverName = HELD_HEAD_DRIVER;
  readonly #file: BlockChild;
  readonly #head = new Uint8Array(HEAD_BYTES);
  #released = false;

  constructor(file: BlockChild) {
    this.#file = file;
  }

  get lengthBytes(): number {
    return this.#file.lengthBytes;
  }

  get limits(): BlockLimits {
    return this.#file.limits;
  }

  get capabilities(): BlockCapabilities {
    return this.#file.capabilities;
  }

  /** Takes what stands at the head of the file, and puts the notice there. */
  async begin(): Promise<void> {
    const length = this.#headLength;
    if (length === 0) return;
    await this.#file.readv(0, IoVector.of(this.#head.subarray(0, length)));
    await this.#file.writev(0, IoVector.of(NOTICE_BYTES.subarray(0, length)));
  }

  async release(): Promise<void> {
    if (this.#released) return;
    const head = this.#head.subarray(0, this.#headLength);
    // Zeroes go in as zeroes, so that a disk that starts with a hole starts with one.
    if (isZero(head)) await this.#file.writeZeroes(0, head.length, { mayUnmap: true });
    else await this.#file.writev(0, IoVector.of(head));
    this.#released = true;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const read = this.#file.readv(offset, target, options);
    if (!this.#touchesHead(offset)) return read;
    const overlay = (): void => {
      const length = Math.min(HEAD_BYTES - offset, target.lengthBytes);
      target.copyFrom(this.#head.subarray(offset, offset + length));
    };
    return read instanceof Promise ? read.then(overlay) : overlay();
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    if (!this.#touchesHead(offset)) return this.#file.writev(offset, source, options);
    const length = Math.min(HEAD_BYTES - offset, source.lengthBytes);
    source.copyTo(this.#head.subarray(offset, offset + length));
    const notice = IoVector.of(NOTICE_BYTES.subarray(offset, offset + length));
    const rest = source.slice(length, source.lengthBytes);
    return this.#file.writev(offset, notice.concat(rest), options);
  }

  async writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): Promise<void> {
    if (!this.#touchesHead(offset)) {
      await this.#file.writeZeroes(offset, lengthBytes, options);
      return;
    }
    const length = Math.min(HEAD_BYTES - offset, lengthBytes);
    await this.writev(offset, IoVector.allocate(length), options);
    if (lengthBytes > length) {
      await this.#file.writeZeroes(HEAD_BYTES, lengthBytes - length, options);
    }
  }

  async discard(offset: number, lengthBytes: number, options?: RequestOptions): Promise<void> {
    const start = this.#released ? offset : Math.max(offset, HEAD_BYTES);
    const end = offset + lengthBytes;
    if (start < end) await this.#file.discard(start, end - start, options);
  }

  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    if (!this.#touchesHead(offset)) return this.#file.blockStatus(offset, lengthBytes, options);
    return {
      lengthBytes: Math.min(HEAD_BYTES - offset, lengthBytes),
      allocated: true,
      data: true,
      zero: false,
      compressed: false,
      hostOffset: offset,
    };
  }

  async truncate(lengthBytes: number, options?: TruncateOptions): Promise<void> {
    const before = this.#headLength;
    await this.#file.truncate(lengthBytes, options);
    if (this.#released) return;
    if (lengthBytes < HEAD_BYTES) this.#head.fill(0, lengthBytes);
    const after = this.#headLength;
    if (after > before) {
      await this.#file.writev(before, IoVector.of(NOTICE_BYTES.subarray(before, after)));
    }
  }

  flushToOs(): void {}

  flushToDisk(): void {}

  reopen(): void {}

  close(): void {}

  get #headLength(): number {
    return Math.min(HEAD_BYTES, this.#file.lengthBytes);
  }

  #touchesHead(offset: number): boolean {
    return offset < HEAD_BYTES && !this.#released;
  }
}
