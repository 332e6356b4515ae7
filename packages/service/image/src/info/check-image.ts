/** Looks for broken metadata, mends it, and tells it in the words of `qemu-img check --output=json`. */
import type { CheckOptions, CheckResult } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import type { ImageCheck } from "./types.js";

/** Options of `checkImage`. */
export interface CheckImageOptions extends CheckOptions {
  /** The name to tell; default: the file's. */
  readonly filename?: string;
  /** Told when a repair has changed the image, before it is looked at once more. */
  readonly onRepaired?: (repaired: CheckResult) => void;
}

/** A check in both shapes: qemu-img's JSON, and the findings one by one. */
export interface CheckImageResult {
  readonly report: ImageCheck;
  readonly result: CheckResult;
}

/**
 * Checks an open image, and repairs it when `fix` says so. What a repair changed is checked again, and it is the second
 * look that counts.
 *
 * @throws UnsupportedError when the format has nothing that can be checked
 */
export async function checkImage(
  backend: BlockBackend,
  options: CheckImageOptions = {},
): Promise<CheckImageResult> {
  const { root } = backend;
  const { filename: given } = options;
  const first = await backend.check(options);
  const result = hasRepaired(first) ? await checkAgain(backend, first, options) : first;
  const filename = given ?? root.filename ?? root.name;
  return { report: reportOf(filename, root.driverName, result), result };
}

function hasRepaired({ corruptionsFixed = 0, leaksFixed = 0 }: CheckResult): boolean {
  return corruptionsFixed + leaksFixed > 0;
}

async function checkAgain(
  backend: BlockBackend,
  first: CheckResult,
  { onRepaired, signal }: CheckImageOptions,
): Promise<CheckResult> {
  onRepaired?.(first);
  const second = await backend.check(signal === undefined ? {} : { signal });
  const { corruptionsFixed = 0, leaksFixed = 0 } = first;
  return { ...second, corruptionsFixed, leaksFixed };
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
    ...unlessZero("corruptions-fixed", result.corruptionsFixed),
    ...unlessZero("leaks-fixed", result.leaksFixed),
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
