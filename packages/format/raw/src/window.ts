/**
 * Which part of the file a raw disk is: the options `offset` and `size`, checked as QEMU checks them.
 *
 * Pure arithmetic; RawDriver stands above.
 */
import { BlockError, isAligned, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";

/** A part of the file. Both in bytes. */
export interface RawWindow {
  readonly offset: number;
  /** Fixed when given; otherwise the disk reaches to the end of the file, wherever that moves. */
  readonly sizeBytes?: number;
}

/**
 * Checks a window against the file.
 *
 * @param window - what the user asked for
 * @param fileLengthBytes - the file as it is
 * @param requestAlignment - what the file's requests must be aligned to; the window's start must be, too
 * @throws BlockError `EINVAL` when the window is unaligned or does not lie in the file
 */
export function checkWindow(
  window: RawWindow,
  fileLengthBytes: number,
  requestAlignment: number,
): void {
  const { offset, sizeBytes } = window;
  if (offset > fileLengthBytes) {
    throw invalid(
      `offset (${offset}) cannot be greater than the size of the containing file (${fileLengthBytes})`,
    );
  }
  if (!isAligned(offset, requestAlignment)) {
    throw invalid(
      `offset (${offset}) is not a multiple of the file's alignment ${requestAlignment}`,
    );
  }
  if (sizeBytes === undefined) return;
  const unit = Math.max(SECTOR_SIZE_BYTES, requestAlignment);
  if (!isAligned(sizeBytes, unit))
    throw invalid(`size (${sizeBytes}) is not a multiple of ${unit}`);
  // Subtracted, not added: a sum near 2^53 would round.
  if (sizeBytes > fileLengthBytes - offset) {
    throw invalid(
      `the sum of offset (${offset}) and size (${sizeBytes}) has to be smaller than or equal to ` +
        `the size of the containing file (${fileLengthBytes})`,
    );
  }
}

function invalid(rule: string): BlockError {
  return new BlockError("EINVAL", `raw: ${rule}`, { op: "open" });
}
