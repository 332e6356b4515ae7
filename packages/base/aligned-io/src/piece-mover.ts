/**
 * Moves the pieces that are not direct: pads them, bounces them, reads what is around them.
 *
 * Above it stands AlignedIo, which cuts the pieces and shares its range lock.
 *
 * 1. A piece whose memory will do is sent with padding put before and behind it in the vector: only the
 *    blocks at its edges pass through memory of ours. A piece that is bounced is copied whole.
 * 2. A write piece holds the range lock over its aligned range from before the first read of its edges
 *    until its last write has ended. A bounced piece without edges holds it too, since it may wait for a
 *    buffer between its turn and its write. With `requestAlignment` 1 there are no edges and no locks.
 * 3. No signal goes down to the device: see AlignedIo, 5.
 */
import { alignDown, alignUp, IoVector } from "@blocklayer/bytes";
import type { RangeLock } from "@blocklayer/co-lock";
import type { AlignedArena } from "./arena.js";
import { BounceSource } from "./bounce-source.js";
import type { AlignedDevice, AlignedWriteOptions, EdgeListener } from "./device.js";
import type { Piece } from "./pieces.js";
import { refuseAborted } from "./requests.js";
import type { WriteTracker } from "./write-tracker.js";

/** What had to be done beyond passing requests on. */
export interface AlignedIoStatistics {
  /** Write pieces whose edges were read first. */
  readonly readModifyWrites: number;
  /** Bytes of callers that were copied because their memory was not aligned. */
  readonly bouncedBytes: number;
  /** Bytes around requests that had to be read or written with them. */
  readonly paddedBytes: number;
}

export class PieceMover {
  readonly #device: AlignedDevice;
  readonly #bounces: BounceSource;
  readonly #lock: RangeLock;
  readonly #direct: WriteTracker;
  readonly #onEdge: EdgeListener | undefined;
  /** Takes the padding of reads, which nobody looks at. */
  #sink = new Uint8Array(0);
  #readModifyWrites = 0;
  #bouncedBytes = 0;
  #paddedBytes = 0;

  constructor(
    device: AlignedDevice,
    arena: AlignedArena,
    lock: RangeLock,
    direct: WriteTracker,
    onEdge?: EdgeListener,
  ) {
    this.#device = device;
    this.#bounces = new BounceSource(arena);
    this.#lock = lock;
    this.#direct = direct;
    this.#onEdge = onEdge;
  }

  get statistics(): AlignedIoStatistics {
    return {
      readModifyWrites: this.#readModifyWrites,
      bouncedBytes: this.#bouncedBytes,
      paddedBytes: this.#paddedBytes,
    };
  }

  /** Requires: the piece, padding included, lies in the device, rounded up. */
  async read(piece: Piece, signal: AbortSignal | undefined): Promise<void> {
    this.#count(piece);
    if (piece.bounce) await this.#readBounced(piece, signal);
    else await this.#readPadded(piece);
  }

  async write(piece: Piece, options: AlignedWriteOptions | undefined): Promise<void> {
    const { alignedOffset, alignedEnd } = piece;
    if (piece.requestAlignment === 1) {
      this.#count(piece);
      await this.#writeBounced(piece, options);
      return;
    }
    const lease = await this.#lock.acquire(alignedOffset, alignedEnd - alignedOffset, options);
    try {
      if (hasEdges(piece)) {
        await this.#direct.overlapping(alignedOffset, alignedEnd);
        refuseAborted("write", options);
        this.#readModifyWrites++;
      }
      this.#count(piece);
      if (piece.bounce) await this.#writeBounced(piece, options);
      else await this.#writePadded(piece, options);
    } finally {
      lease.release();
    }
  }

  async #readPadded(piece: Piece): Promise<void> {
    const { requestAlignment } = piece;
    if (this.#sink.length < requestAlignment) this.#sink = new Uint8Array(requestAlignment);
    const head = this.#sink.subarray(0, piece.offset - piece.alignedOffset);
    const tail = this.#sink.subarray(0, piece.alignedEnd - piece.end);
    const vector = IoVector.from([head, ...piece.vector.parts, tail]);
    await this.#device.readv(piece.alignedOffset, vector);
  }

  async #readBounced(piece: Piece, signal: AbortSignal | undefined): Promise<void> {
    const { alignedOffset, alignedEnd, vector } = piece;
    const buffer = await this.#bounces.take(alignedEnd - alignedOffset, signal);
    try {
      const step = alignDown(buffer.bytes.length, piece.requestAlignment);
      for (let at = alignedOffset; at < alignedEnd; at += step) {
        const stop = Math.min(at + step, alignedEnd);
        await this.#device.readv(at, IoVector.of(buffer.bytes.subarray(0, stop - at)));
        const from = Math.max(at, piece.offset);
        const to = Math.min(stop, piece.end);
        vector.copyFrom(buffer.bytes.subarray(from - at, to - at), from - piece.offset);
      }
    } finally {
      buffer.release();
    }
  }

  async #writePadded(piece: Piece, options: AlignedWriteOptions | undefined): Promise<void> {
    const { alignedOffset, alignedEnd, requestAlignment } = piece;
    const length = alignedEnd - alignedOffset;
    // The edges alone: the middle of a long piece stays where it is.
    const edges = new Uint8Array(Math.min(length, 2 * requestAlignment));
    const headLength = piece.offset - alignedOffset;
    const tailLength = alignedEnd - piece.end;
    await this.#readEdges(piece, edges);
    const vector = IoVector.from([
      edges.subarray(0, headLength),
      ...piece.vector.parts,
      edges.subarray(edges.length - tailLength),
    ]);
    await this.#device.writev(alignedOffset, vector, withoutSignal(options));
  }

  async #writeBounced(piece: Piece, options: AlignedWriteOptions | undefined): Promise<void> {
    const { alignedOffset, alignedEnd, requestAlignment, vector } = piece;
    const buffer = await this.#bounces.take(alignedEnd - alignedOffset, options?.signal);
    try {
      const deviceOptions = withoutSignal(options);
      const step = alignDown(buffer.bytes.length, requestAlignment);
      for (let at = alignedOffset; at < alignedEnd; at += step) {
        const stop = Math.min(at + step, alignedEnd);
        const bytes = buffer.bytes.subarray(0, stop - at);
        const from = Math.max(at, piece.offset);
        const to = Math.min(stop, piece.end);
        if (from !== at || to !== stop) {
          await this.#readEdges(
            { offset: from, end: to, alignedOffset: at, alignedEnd: stop, requestAlignment },
            bytes,
          );
        }
        vector.copyTo(bytes.subarray(from - at, to - at), from - piece.offset);
        await this.#device.writev(at, IoVector.of(bytes), deviceOptions);
      }
    } finally {
      buffer.release();
    }
  }

  /**
   * Reads the first block of a range into the start of `memory` and the last into its end, as far as they
   * are not wholly overwritten. Where the two meet, it is one read.
   *
   * Requires: `memory` is as long as the range, or two blocks long if that is shorter. Its middle may be
   * overwritten: the last block is read from an aligned address on, which may lie before it.
   */
  async #readEdges(
    piece: Pick<Piece, "offset" | "end" | "alignedOffset" | "alignedEnd" | "requestAlignment">,
    memory: Uint8Array,
  ): Promise<void> {
    const { alignedOffset, alignedEnd, requestAlignment } = piece;
    const head = piece.offset !== alignedOffset;
    const tail = piece.end !== alignedEnd;
    const length = alignedEnd - alignedOffset;
    const alignment = Math.max(requestAlignment, this.#device.limits.memoryAlignment);
    const tailAt = alignDown(length - requestAlignment, alignment);
    const isOneRead = tail && tailAt <= (head ? requestAlignment : 0);
    const first = memory.subarray(0, requestAlignment);
    const last = memory.subarray(memory.length - (length - tailAt));
    if (this.#onEdge !== undefined) {
      const spans = { head, tail, isOneRead, alignedOffset, tailAt: alignedOffset + tailAt };
      return await this.#readEdgesAloud(this.#onEdge, spans, { memory, first, last });
    }
    if (isOneRead) return await this.#readEdge(alignedOffset, memory);
    const reads: Promise<void>[] = [];
    if (head) reads.push(this.#readEdge(alignedOffset, first));
    if (tail) reads.push(this.#readEdge(alignedOffset + tailAt, last));
    // Both must have ended before the memory may be given to somebody else.
    for (const result of await Promise.allSettled(reads)) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  /** The same for a listener, who hears of one edge after the other, as QEMU's does. */
  async #readEdgesAloud(
    tell: EdgeListener,
    { head, tail, isOneRead, alignedOffset, tailAt }: EdgeSpans,
    { memory, first, last }: EdgeMemory,
  ): Promise<void> {
    if (head) await tell("head");
    if (isOneRead) {
      await tell("tail");
      await this.#readEdge(alignedOffset, memory);
      if (head) await tell("after-head");
      await tell("after-tail");
      return;
    }
    if (head) {
      await this.#readEdge(alignedOffset, first);
      await tell("after-head");
    }
    if (!tail) return;
    await tell("tail");
    await this.#readEdge(tailAt, last);
    await tell("after-tail");
  }

  /** Reads whole blocks; those past the device's end are zeroes, and the device is not asked for them. */
  async #readEdge(offset: number, target: Uint8Array): Promise<void> {
    const { lengthBytes, limits } = this.#device;
    const readable = alignUp(lengthBytes, limits.requestAlignment) - offset;
    const length = Math.min(Math.max(readable, 0), target.length);
    target.fill(0, length);
    if (length > 0) await this.#device.readv(offset, IoVector.of(target.subarray(0, length)));
  }

  #count(piece: Piece): void {
    if (piece.bounce) this.#bouncedBytes += piece.end - piece.offset;
    this.#paddedBytes += piece.offset - piece.alignedOffset + piece.alignedEnd - piece.end;
  }
}

/** Which edges of a range have to be read, and where. */
interface EdgeSpans {
  readonly head: boolean;
  readonly tail: boolean;
  /** The two lie so close that one read takes both. */
  readonly isOneRead: boolean;
  readonly alignedOffset: number;
  readonly tailAt: number;
}

/** Where they are read to. */
interface EdgeMemory {
  readonly memory: Uint8Array;
  readonly first: Uint8Array;
  readonly last: Uint8Array;
}

function hasEdges(piece: Piece): boolean {
  return piece.offset !== piece.alignedOffset || piece.end !== piece.alignedEnd;
}

function withoutSignal(options: AlignedWriteOptions | undefined): AlignedWriteOptions | undefined {
  if (options?.signal === undefined) return options;
  const { signal: _, ...rest } = options;
  return rest;
}
