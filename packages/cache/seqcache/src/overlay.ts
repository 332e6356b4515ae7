/**
 * Reading through the cache: what it has lies over what the file has [S4].
 *
 * Above: SeqCache. Below: Entry.
 *
 * 1. One pass over the clusters of the span. Nothing is allocated for a miss, and no list for a full hit.
 * 2. The gaps that are returned and the ranges that were filled are disjoint, and together they are the span.
 */
import type { Entry } from "./entry.js";

/** A part of a read that is not cached: the file has it. */
export interface ReadGap {
  /** Where it starts in the target, in bytes. */
  readonly position: number;
  readonly length: number;
}

/** `hit`: all was cached; `miss`: nothing, the target is untouched; else the gaps, in order. */
export type ReadResult = "hit" | "miss" | readonly ReadGap[];

/** Copies every cached byte of a span into the target. */
export function readOverlay(
  entries: ReadonlyMap<number, Entry>,
  clusterSize: number,
  offset: number,
  target: Uint8Array,
): ReadResult {
  const { length } = target;
  if (length === 0) return "hit";
  if (entries.size === 0) return "miss";
  let gaps: ReadGap[] | undefined;
  let settled = 0;
  let any = false;
  const last = Math.floor((offset + length - 1) / clusterSize);
  for (let index = Math.floor(offset / clusterSize); index <= last; index++) {
    const entry = entries.get(index);
    if (entry === undefined) continue;
    const position = entry.clusterOffset - offset;
    const from = Math.max(0, position + entry.start);
    const to = Math.min(length, position + entry.end);
    if (from >= to) continue;
    target.set(entry.buffer.subarray(from - position, to - position), from);
    if (from > settled) (gaps ??= []).push({ position: settled, length: from - settled });
    settled = to;
    any = true;
  }
  if (!any) return "miss";
  if (settled < length) (gaps ??= []).push({ position: settled, length: length - settled });
  return gaps ?? "hit";
}
