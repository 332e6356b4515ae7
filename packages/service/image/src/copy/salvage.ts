/** Reading what can be read of a damaged source (`--salvage`). */
import { alignDown, IoVector, KiB, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { RequestOptions } from "@blocklayer/block-api";
import type { SourceList } from "./source-list.js";

/** What could not be read; it is zeroes in the buffer. */
export interface Hole {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly cause: unknown;
}

/** Pieces get smaller in these steps: a bad place costs a sector, a good one no small reads. */
const STEPS: readonly number[] = [64 * KiB, 4 * KiB, SECTOR_SIZE_BYTES];

/** Fills a buffer piece by piece after its read as a whole failed. Tells each sector that stays unreadable. */
export async function salvageInto(
  sources: SourceList,
  offset: number,
  bytes: Uint8Array,
  options: RequestOptions,
  report: (hole: Hole) => void,
  step = 0,
): Promise<void> {
  const size = STEPS[step] ?? SECTOR_SIZE_BYTES;
  for (let at = 0; at < bytes.length; ) {
    options.signal?.throwIfAborted();
    const end = Math.min(alignDown(offset + at, size) + size - offset, bytes.length);
    const piece = bytes.subarray(at, end);
    try {
      await sources.readv(offset + at, IoVector.of(piece), options);
    } catch (cause) {
      if (step + 1 < STEPS.length) {
        await salvageInto(sources, offset + at, piece, options, report, step + 1);
      } else {
        piece.fill(0);
        report({ offset: offset + at, lengthBytes: piece.length, cause });
      }
    }
    at = end;
  }
}
