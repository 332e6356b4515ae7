/**
 * Makes a disk longer or shorter.
 *
 * Above: the tool's `resize`. Below: `BlockBackend.truncate`.
 *
 * 1. A disk is made shorter only for those who say that they mean it: its end is lost.
 * 2. What is new reads as zeroes, also where a backing file is longer than the disk was.
 */
import { BlockError } from "@blocklayer/bytes";
import type { PreallocationMode, TruncateOptions } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";

/** Options of `resizeImage`. */
export interface ResizeOptions {
  /** The new length of the disk. */
  readonly lengthBytes: number;
  /** Space for the new part. Default `off`. */
  readonly preallocation?: PreallocationMode;
  /** Let go of what lies past the new end (`--shrink`). Default `false`: a shorter disk is refused. */
  readonly shrink?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Changes the length of an open, writable disk. Flushes.
 *
 * @throws BlockError `EINVAL` for a disk without bytes, for preallocation of a disk that does not grow, and for a shorter
 *   disk without `shrink`; what the drivers throw. **After failure:** the disk has its old or its new length, and all
 *   bytes up to the smaller one
 * @example await resizeImage(disk, { lengthBytes: 20 * GiB })
 */
export async function resizeImage(disk: BlockBackend, options: ResizeOptions): Promise<void> {
  const { lengthBytes, preallocation = "off", signal } = options;
  const oldBytes = disk.lengthBytes;
  const refuse = (message: string): never => {
    throw new BlockError("EINVAL", message, { op: "resize", length: lengthBytes });
  };
  if (lengthBytes <= 0) refuse("New image size must be positive");
  if (lengthBytes <= oldBytes && preallocation !== "off") {
    refuse("Preallocation can only be used for growing images");
  }
  if (lengthBytes < oldBytes && options.shrink !== true) {
    refuse("Use the --shrink option to perform a shrink operation.");
  }
  const { backing } = disk.root;
  const truncate: TruncateOptions = {
    ...(preallocation === "off" ? {} : { preallocation }),
    ...(backing !== undefined && backing.lengthBytes > oldBytes ? { zeroWrite: true } : {}),
    ...(signal === undefined ? {} : { signal }),
  };
  await disk.truncate(lengthBytes, truncate);
  await disk.flush();
}
