/**
 * A disk as a byte stream.
 *
 * Above: BlockBackend.readable. Below: its `readv`.
 *
 * 1. One read at a time, and only when the consumer wants more: the stream holds at most one chunk.
 * 2. A consumer with a buffer of its own (a BYOB reader) has the bytes put there.
 */
import { IoVector } from "@blocklayer/bytes";
import type { MaybePromise } from "@blocklayer/bytes";
import type { RequestOptions } from "@blocklayer/block-api";

/** Which bytes to stream, and how. */
export interface ReadableOptions {
  /** Where to begin; 0 by default. */
  readonly start?: number;
  /** Where to stop; the end of the disk by default. */
  readonly end?: number;
  /** How much is read at a time; 256 KiB by default. */
  readonly chunkBytes?: number;
  readonly signal?: AbortSignal;
}

/** What a stream reads from. */
export interface ReadableSource {
  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void>;
}

/** Requires: `[start, end)` lies in the disk. */
export function readableOf(
  source: ReadableSource,
  start: number,
  end: number,
  chunkBytes: number,
  signal: AbortSignal | undefined,
): ReadableStream<Uint8Array> {
  const options: RequestOptions = signal === undefined ? {} : { signal };
  let at = start;
  return new ReadableStream({
    type: "bytes",
    autoAllocateChunkSize: chunkBytes,
    async pull(controller): Promise<void> {
      const { byobRequest } = controller;
      const view = byobRequest?.view;
      if (at >= end) {
        controller.close();
        byobRequest?.respond(0);
        return;
      }
      const room = view?.byteLength ?? chunkBytes;
      const length = Math.min(room, end - at);
      const target =
        view === undefined || view === null
          ? new Uint8Array(length)
          : new Uint8Array(view.buffer, view.byteOffset, length);
      await source.readv(at, IoVector.of(target), options);
      at += length;
      if (byobRequest === null || byobRequest === undefined) controller.enqueue(target);
      else byobRequest.respond(length);
    },
  });
}
