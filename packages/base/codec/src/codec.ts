/**
 * What a cluster codec is, and the checks that every codec shares.
 *
 * Above: the qcow2 driver. Below: portable-deflate and portable-zstd (everywhere), node-codec (Node).
 */
import { assert, BlockError, type MaybePromise } from "@blocklayer/bytes";

/** The compression types that qcow2 has names for. */
export type CodecName = "deflate" | "zstd";

/** One cluster to decompress. */
export interface DecompressItem {
  /** A deflate stream or zstd frames, with or without padding behind. */
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
   * Decompresses one cluster. Bytes behind the end of the stream are ignored, and so is a deflate
   * stream that would go on when the target is full. zstd frames have to end there, as in QEMU.
   *
   * @throws BlockError `EIO` when the payload is damaged or does not fill the target; `ENOMEM`
   *
   * **After failure:** the target's bytes are undefined.
   */
  decompress(payload: Uint8Array, target: Uint8Array): MaybePromise<void>;
  /** Decompresses many clusters, in parallel where that is possible. Fails with the first error. */
  decompressMany(items: readonly DecompressItem[]): MaybePromise<void>;
  /** Waits for what is under way and frees the threads. Later calls throw BlockError `ECLOSED`. */
  close(): MaybePromise<void>;
}

/** How a codec is set up. */
export interface CodecOptions {
  /** One of the levels of COMPRESSION_LEVELS; what QEMU takes when left out. */
  readonly level?: number;
  /** How many worker threads it may start, from 1; one per CPU, 16 at most, when left out. */
  readonly threads?: number;
}

/** Which levels a compression type has: higher ones are slower and give less. */
export interface LevelRange {
  readonly min: number;
  readonly max: number;
  /** What QEMU compresses with. */
  readonly default: number;
}

/** zstd has levels below 1 too: those give up more than they gain on clusters. */
export const COMPRESSION_LEVELS: Readonly<Record<CodecName, LevelRange>> = {
  deflate: { min: 1, max: 9, default: 6 },
  zstd: { min: 1, max: 22, default: 3 },
};

/** The level of the options, checked. */
export function checkedLevel(name: CodecName, options: CodecOptions): number {
  const { min, max, default: usual } = COMPRESSION_LEVELS[name];
  const level = options.level ?? usual;
  if (Number.isInteger(level) && level >= min && level <= max) return level;
  const message = `compression level ${level} is not between ${min} and ${max}, the levels of ${name}`;
  throw new BlockError("EINVAL", message);
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
