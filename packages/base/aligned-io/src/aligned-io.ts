/**
 * Any byte range over a device that accepts only aligned requests.
 *
 * Above it stands the block graph, one AlignedIo for a node; below it the node's driver.
 *
 * 1. A request that the device can take as it is goes straight through: no copy, no lock. A read adds no
 *    promise either; a write adds one only where a read-modify-write could have to wait for it.
 * 2. Any other request is cut into pieces at multiples of `requestAlignment`. A piece is padded to that
 *    alignment, and where its memory is not aligned it passes through a bounce buffer.
 * 3. A write piece that is padded is a read-modify-write, alone in its aligned range: it holds the range
 *    lock over it, and waits for the aligned writes in flight that overlap it. Writes that come later and
 *    overlap it wait for the lock. So small writes into one block all survive.
 * 4. What waits for what: lock, then aligned writes in flight, then bounce buffer, then device; nothing
 *    is waited for in the other direction, and no piece holds two of a kind. So requests cannot deadlock.
 * 5. An abort ends waits, and pieces that have not begun. A piece that moves bytes through memory of ours
 *    is always carried to its end: the device must not write into a buffer that somebody else has by then.
 *
 * Reads need no lock: a read-modify-write puts back the bytes around it as they were.
 */
import { alignUp, assert, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import { RangeLock } from "@blocklayer/co-lock";
import { isVectorAligned } from "./aligned-memory.js";
import type { AlignedArena } from "./arena.js";
import type {
  AlignedDevice,
  AlignedReadOptions,
  AlignedWriteOptions,
  EdgeListener,
} from "./device.js";
import { type AlignedIoStatistics, PieceMover } from "./piece-mover.js";
import { Pieces } from "./pieces.js";
import { checkLimits, refuseAborted } from "./requests.js";
import { WriteTracker } from "./write-tracker.js";

/** Reads and writes at any byte. Requires: all writes to the device pass through this one object. */
export class AlignedIo {
  readonly #device: AlignedDevice;
  readonly #arena: AlignedArena;
  readonly #mover: PieceMover;
  /** Ranges of read-modify-writes and bounced writes. Empty most of the time. */
  readonly #lock = new RangeLock("aligned write");
  /** Writes that went straight through and have not ended. */
  readonly #direct = new WriteTracker();

  /**
   * @param arena - lends bounce buffers; used only when the device asks for aligned memory
   * @param onEdge - hears of every read-modify-write; tests stop one there
   * @throws BlockError `ENOTSUP` when the arena cannot give memory as aligned as the device wants it
   */
  constructor(device: AlignedDevice, arena: AlignedArena, onEdge?: EdgeListener) {
    checkLimits(device.limits, arena);
    this.#device = device;
    this.#arena = arena;
    this.#mover = new PieceMover(device, arena, this.#lock, this.#direct, onEdge);
  }

  /** What had to be done beyond passing requests on, since the beginning. */
  get statistics(): AlignedIoStatistics {
    return this.#mover.statistics;
  }

  /**
   * Fills the vector from `offset` on. Bytes past the device's end read as zeroes.
   *
   * @throws BlockError of the device; `ECANCELED` when aborted
   */
  readv(offset: number, target: IoVector, options?: AlignedReadOptions): MaybePromise<void> {
    const device = this.#device;
    const { requestAlignment, memoryAlignment, maxTransfer } = device.limits;
    const length = target.lengthBytes;
    const mask = requestAlignment - 1;
    if (
      // The low 32 bits of a sum up to 2^53 are exact, and alignments are no larger.
      ((offset | length) & mask) === 0 &&
      offset >= 0 &&
      length > 0 &&
      length <= maxTransfer &&
      offset + length - device.lengthBytes <= mask &&
      isVectorAligned(target, memoryAlignment, requestAlignment)
    ) {
      return device.readv(offset, target, options);
    }
    if (length === 0) return undefined;
    return this.#readPieces(offset, target, options);
  }

  /**
   * Writes the vector at `offset`. A padded write past the device's end makes it as long as the padding
   * reaches, if the device grows.
   *
   * **After failure:** any part of the range may have been written. Bytes outside it are as they were.
   * @throws BlockError of the device; `ECANCELED` when aborted
   */
  writev(offset: number, source: IoVector, options?: AlignedWriteOptions): MaybePromise<void> {
    const { requestAlignment, memoryAlignment, maxTransfer } = this.#device.limits;
    const length = source.lengthBytes;
    if (
      ((offset | length) & (requestAlignment - 1)) === 0 &&
      offset >= 0 &&
      length > 0 &&
      length <= maxTransfer &&
      isVectorAligned(source, memoryAlignment, requestAlignment)
    ) {
      return this.#writeDirect(offset, source, options, requestAlignment);
    }
    if (length === 0) return undefined;
    return this.#writePieces(offset, source, options);
  }

  /**
   * Sends a change of the device that is neither read nor write (zeroes, discard), in order with the
   * read-modify-writes that overlap it: none of them puts back bytes from before the change.
   *
   * @param offset - and `lengthBytes`: multiples of `requestAlignment`
   * @param send - makes the change; called once, unless the wait is aborted
   * @throws what `send` throws; BlockError `ECANCELED` when aborted
   */
  change(
    offset: number,
    lengthBytes: number,
    send: () => MaybePromise<void>,
    options?: AlignedReadOptions,
  ): MaybePromise<void> {
    const { requestAlignment } = this.#device.limits;
    assert(
      ((offset | lengthBytes) & (requestAlignment - 1)) === 0 && offset >= 0,
      "a change is aligned",
    );
    if (lengthBytes === 0) return undefined;
    if (this.#lock.size !== 0 && this.#lock.overlaps(offset, lengthBytes)) {
      return this.#sendLocked(offset, lengthBytes, send, options);
    }
    return this.#follow(offset, lengthBytes, send(), requestAlignment);
  }

  #writeDirect(
    offset: number,
    source: IoVector,
    options: AlignedWriteOptions | undefined,
    requestAlignment: number,
  ): MaybePromise<void> {
    const length = source.lengthBytes;
    if (this.#lock.size !== 0 && this.#lock.overlaps(offset, length)) {
      const send = () => this.#device.writev(offset, source, options);
      return this.#sendLocked(offset, length, send, options);
    }
    const written = this.#device.writev(offset, source, options);
    return this.#follow(offset, length, written, requestAlignment);
  }

  /** A change that has ended, or that no read-modify-write can overlap, needs no following. */
  #follow(
    offset: number,
    length: number,
    ended: MaybePromise<void>,
    requestAlignment: number,
  ): MaybePromise<void> {
    if (requestAlignment === 1 || !(ended instanceof Promise)) return ended;
    return this.#direct.track(offset, offset + length, ended);
  }

  async #sendLocked(
    offset: number,
    length: number,
    send: () => MaybePromise<void>,
    options: AlignedReadOptions | undefined,
  ): Promise<void> {
    const lease = await this.#lock.acquire(offset, length, options);
    try {
      await send();
    } finally {
      lease.release();
    }
  }

  async #readPieces(
    offset: number,
    target: IoVector,
    options: AlignedReadOptions | undefined,
  ): Promise<void> {
    const { limits } = this.#device;
    const pieces = new Pieces(offset, target, limits, this.#arena);
    const readableEnd = alignUp(this.#device.lengthBytes, limits.requestAlignment);
    const end = Math.min(pieces.end, Math.max(readableEnd, offset));
    for (let at = offset; at < end; ) {
      refuseAborted("read", options);
      const piece = pieces.next(at, end);
      if (piece.direct) await this.#device.readv(at, piece.vector, options);
      else await this.#mover.read(piece, options?.signal);
      at = piece.end;
    }
    if (end < pieces.end) target.fill(0, end - offset);
  }

  async #writePieces(
    offset: number,
    source: IoVector,
    options: AlignedWriteOptions | undefined,
  ): Promise<void> {
    const { limits } = this.#device;
    const pieces = new Pieces(offset, source, limits, this.#arena);
    for (let at = offset; at < pieces.end; ) {
      refuseAborted("write", options);
      const piece = pieces.next(at, pieces.end);
      if (piece.direct) await this.#writeDirect(at, piece.vector, options, limits.requestAlignment);
      else await this.#mover.write(piece, options);
      at = piece.end;
    }
  }
}
