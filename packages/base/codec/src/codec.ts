/**
 * What a cluster codec is, and the checks that every codec shares.
 *
 * Above: the qcow2 driver. Below: portable-deflate (everywhere) and node-deflate (Node).
 */
import { assert, BlockError, type MaybePromise, UnsupportedError } from "@blocklayer/bytes";

/** The compression types that qcow2 has names for. */
export type CodecName = "deflate" | "zstd";

/** One cluster to inflate. */
export interface DecompressItem {
  /** A stream, with or without padding behind it. */
  readonly payload: Uint8Array;
  /** The cluster. It is filled from its first byte to its last. */
  readonly target: Uint8Array;
}

/** Turns clusters into compressed payloads and back. Calls may overlap. */
export interface ClusterCodec {
  readonly name: CodecName;
  /**
   * Compresses each cluster by itself. The caller leaves the clusters alone until it is done.
   *
   * @param clusters - any lengths; those over a SharedArrayBuffer reach other threads uncopied
   * @param maxBytes - the longest payload that is of use
   * @returns one payload per cluster, in order; undefined where it would be longer than `maxBytes`
   */
  compress(
    clusters: readonly Uint8Array[],
    maxBytes: number,
  ): MaybePromise<readonly (Uint8Array | undefined)[]>;
  /**
   * Inflates one cluster. Bytes behind the end of the stream are ignored, and so is a stream that
   * would go on when the target is full.
   *
   * @throws BlockError `EIO` when the payload is damaged or does not fill the target
   *
   * **After failure:** the target's bytes are undefined.
   */
  decompress(payload: Uint8Array, target: Uint8Array): MaybePromise<void>;
  /** Inflates many clusters, in parallel where that is possible. Fails with the first error. */
  decompressMany(items: readonly DecompressItem[]): MaybePromise<void>;
  /** Waits for what is under way and frees the threads. Later calls throw BlockError `ECLOSED`. */
  close(): MaybePromise<void>;
}

/** How a codec is set up. */
export interface CodecOptions {
  /** 1 (fast) to 9 (small); 6 when left out, as QEMU does. */
  readonly level?: number;
  /** How many worker threads it may start, from 1; one per CPU, 16 at most, when left out. */
  readonly threads?: number;
}

/** The level that QEMU compresses with. */
const DEFAULT_LEVEL = 6;

/** The level of the options, checked. */
export function checkedLevel(options: CodecOptions): number {
  const level = options.level ?? DEFAULT_LEVEL;
  if (Number.isInteger(level) && level >= 1 && level <= 9) return level;
  throw new BlockError("EINVAL", `compression level ${level} is not between 1 and 9`);
}

/** The refusal of a codec that this version does not have. */
export function unsupportedCodec(name: string): UnsupportedError {
  return new UnsupportedError(`compression type '${name}' is not supported`, { op: "open" });
}

/** The error of a payload that does not give its cluster. */
export function damagedPayload(item: DecompressItem, reason: string, cause?: unknown): BlockError {
  return new BlockError(
    "EIO",
    `compressed data of ${item.payload.length} bytes: ${reason}`,
    cause === undefined ? { op: "decompress" } : { op: "decompress", cause },
  );
}

/** The error of a payload that ends before its cluster is full. */
export function shortPayload(item: DecompressItem): BlockError {
  return damagedPayload(item, `does not fill its cluster of ${item.target.length} bytes`);
}

/** Requires: the most bytes that a payload may have is a whole number. */
export function checkMaxBytes(maxBytes: number): void {
  assert(Number.isSafeInteger(maxBytes) && maxBytes >= 0, `maxBytes ${maxBytes} is a length`);
}
