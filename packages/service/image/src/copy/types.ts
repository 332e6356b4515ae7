/** What a conversion takes and gives. */
import type { BlockBackend } from "@blocklayer/block-graph";

/** Options of `convertImage`. */
export interface ConvertOptions {
  /** Copied one behind the other. At least one. */
  readonly sources: readonly BlockBackend[];
  /** Only so many bytes from the start of the sources; default all. */
  readonly sourceLengthBytes?: number;
  /** Open for writing, and at least as long as what is copied. The caller closes it. */
  readonly target: BlockBackend;
  /** Write compressed clusters (`-c`). The target's format must be able to. */
  readonly compressed?: boolean;
  /** Runs of zeroes at least this long become holes (`-S`); 0: none do. A multiple of 512. Default 4 KiB. */
  readonly sparseSizeBytes?: number;
  /** Requests in flight (`-m`), 1 to 16. Default 8. */
  readonly parallel?: number;
  /** Write as soon as the bytes are there (`-W`). Faster on some disks; the target's layout is not sequential. */
  readonly outOfOrder?: boolean;
  /** The whole target reads as zeroes already: nothing is done for zeroes (`--target-is-zero`, a new image). */
  readonly targetIsZero?: boolean;
  /**
   * The target has a backing image that equals the sources' chain from `sourceBase` on (`-B`): what the layers above do
   * not hold is left out. Length of that backing image in bytes.
   */
  readonly targetBacking?: TargetBacking;
  /** What cannot be read becomes zeroes (`--salvage`); see `ConvertResult.unreadable`. */
  readonly salvage?: boolean;
  /** Told of every range that salvage gave up. */
  readonly onUnreadable?: (range: UnreadableRange) => void;
  /** At most this many bytes a second are written (`-r`). */
  readonly rateLimitBytesPerSecond?: number;
  /** Let the host copy (`-C`). Accepted; no protocol here can, so bytes are copied the usual way. */
  readonly copyRange?: boolean;
  /** Called now and then, with bytes done so far and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

/** For targets with a backing image. */
export interface TargetBacking {
  /** Length of the target's backing image; beyond it the target reads as zeroes. */
  readonly lengthBytes: number;
  /**
   * How many layers of the source's chain count as its own: 1 (the default) when the source's immediate backing image is
   * the target's backing image; `Infinity` when no layer is shared.
   */
  readonly ownLayers?: number;
  /**
   * The sources were opened without what lies below them: what they do not hold themselves is left to the target, and
   * borders are kept to the sector, since nothing can be read beside them. Default `false`.
   */
  readonly bareLayers?: boolean;
}

/** A range that could not be read. */
export interface UnreadableRange {
  readonly source: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly cause: unknown;
}

/** What was done. All in bytes. */
export interface ConvertResult {
  readonly totalBytes: number;
  /** Written as data. */
  readonly dataBytes: number;
  /** Zeroes: skipped or written as such. */
  readonly zeroBytes: number;
  /** Left to the target's backing image. */
  readonly backingBytes: number;
  /** Given up by salvage. */
  readonly unreadableBytes: number;
}
