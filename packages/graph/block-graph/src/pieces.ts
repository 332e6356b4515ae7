/** Cutting a long request into pieces, one after the other, without a promise when none is needed. */
import { alignDown, alignUp, type MaybePromise } from "@blocklayer/bytes";

/** Where the piece that starts at a position ends. Above that position. */
export type PieceRule = (at: number) => number;

type PieceStep = (at: number, lengthBytes: number) => MaybePromise<void>;

/**
 * Calls `step` for consecutive pieces of `[offset, end)` until the range is done. A step that throws or rejects
 * ends the walk.
 */
export function forEachPiece(
  offset: number,
  end: number,
  rule: PieceRule,
  step: PieceStep,
): MaybePromise<void> {
  let at = offset;
  while (at < end) {
    const stop = Math.min(rule(at), end);
    const result = step(at, stop - at);
    if (result instanceof Promise) return goOn(result, stop, end, rule, step);
    at = stop;
  }
  return undefined;
}

/** The rest of a walk whose step had to wait: a loop, so that a million pieces do not chain a million promises. */
async function goOn(
  first: Promise<void>,
  offset: number,
  end: number,
  rule: PieceRule,
  step: PieceStep,
): Promise<void> {
  await first;
  let at = offset;
  while (at < end) {
    const stop = Math.min(rule(at), end);
    await step(at, stop - at);
    at = stop;
  }
}

/** Pieces of at most `max` bytes. */
export function fixedPieces(max: number): PieceRule {
  return (at) => at + max;
}

/**
 * Pieces that break at multiples of `alignment`: an unaligned head that crosses none, then as many whole units as
 * `max` allows, then the tail.
 *
 * @param end - where the whole range stops, so that the tail stands alone
 */
export function alignedPieces(alignment: number, max: number, end: number): PieceRule {
  const bulk = alignDown(max, alignment);
  const bulkEnd = alignDown(end, alignment);
  return (at) => {
    if (at % alignment !== 0) return Math.min(alignUp(at, alignment), at + max);
    if (at < bulkEnd && bulk > 0) return Math.min(bulkEnd, at + bulk);
    return at + max;
  };
}
