/** Looks for broken metadata, and tells it in the words of `qemu-img check --output=json`. */
import { UnsupportedError } from "@blocklayer/bytes";
import type { CheckResult } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import type { ImageCheck } from "./types.js";

/** Options of `checkImage`. */
export interface CheckImageOptions {
  /** The name to tell; default: the file's. */
  readonly filename?: string;
  readonly signal?: AbortSignal;
}

/** A check in both shapes: qemu-img's JSON, and the findings one by one. */
export interface CheckImageResult {
  readonly report: ImageCheck;
  readonly result: CheckResult;
}

/**
 * Checks an open image. Reads only.
 *
 * @throws UnsupportedError when the format has nothing that can be checked
 */
export async function checkImage(
  backend: BlockBackend,
  options: CheckImageOptions = {},
): Promise<CheckImageResult> {
  const { root } = backend;
  const { driver } = root;
  if (driver.check === undefined) {
    throw new UnsupportedError(`format '${root.driverName}' has no checks`, {
      op: "check",
      node: root.name,
    });
  }
  const { signal } = options;
  const result = await driver.check(signal === undefined ? {} : { signal });
  const filename = options.filename ?? root.filename ?? root.name;
  return { report: reportOf(filename, root.driverName, result), result };
}

/** Counts of zero are left out where qemu-img leaves them out. */
function reportOf(filename: string, format: string, result: CheckResult): ImageCheck {
  return {
    filename,
    format,
    "check-errors": result.checkErrors,
    ...unlessAbsent("image-end-offset", result.imageEndOffset),
    ...unlessZero("corruptions", result.corruptions),
    ...unlessZero("leaks", result.leaks),
    ...unlessZero("total-clusters", result.totalClusters),
    ...unlessZero("allocated-clusters", result.allocatedClusters),
    ...unlessZero("fragmented-clusters", result.fragmentedClusters),
    ...unlessZero("compressed-clusters", result.compressedClusters),
  };
}

function unlessAbsent(name: keyof ImageCheck, value: number | undefined): Partial<ImageCheck> {
  return value === undefined ? {} : { [name]: value };
}

function unlessZero(name: keyof ImageCheck, value: number | undefined): Partial<ImageCheck> {
  return value === undefined || value === 0 ? {} : { [name]: value };
}
