/**
 * What a power failure can leave of one write: nothing, all of it, or some of its sectors.
 *
 * Pure. The crash enumerator stands above. A device writes a sector (512 bytes) whole or not at all.
 */
import { assert, isPowerOfTwo, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { Random } from "./random.js";
import { describeOp, type TraceOp } from "./trace.js";

/** How writes are torn. */
export interface TearOptions {
  /** How many torn outcomes of one write are tried, besides none and all of it. By default 3. */
  readonly variants?: number;
  /** What a device writes in one piece. By default 512. */
  readonly sectorBytes?: number;
}

/** One outcome of one change. */
export interface Outcome {
  readonly kind: "lost" | "kept" | "torn";
  /** What reaches the medium. */
  readonly pieces: readonly TraceOp[];
  /** For reports: `torn write #7 (sectors 0-2,5 of 8)`. */
  readonly text: string;
}

/** The ways of tearing, in the order in which they are tried: a cut tail, a cut head, sectors at random. */
const WAYS = ["prefix", "suffix", "scattered"] as const;
const DEFAULT_VARIANTS = 3;

/**
 * The outcomes of one change: lost first, then kept, then torn ones.
 *
 * @param tear - `undefined`: changes are lost or kept as a whole
 */
export function outcomesOf(op: TraceOp, random: Random, tear: TearOptions | undefined): Outcome[] {
  const outcomes: Outcome[] = [
    { kind: "lost", pieces: [], text: `lost ${describeOp(op)}` },
    { kind: "kept", pieces: [op], text: `kept ${describeOp(op)}` },
  ];
  if (tear === undefined || (op.kind !== "write" && op.kind !== "zero")) return outcomes;
  const sectorBytes = tear.sectorBytes ?? SECTOR_SIZE_BYTES;
  assert(isPowerOfTwo(sectorBytes), "sectorBytes is a power of two");
  const cuts = sectorCuts(op.offset, op.lengthBytes, sectorBytes);
  const seen = new Set<string>();
  for (let i = 0; i < (tear.variants ?? DEFAULT_VARIANTS) && cuts.length > 2; i++) {
    const kept = keptSectors(
      cuts.length - 1,
      WAYS[i % WAYS.length] as (typeof WAYS)[number],
      random,
    );
    const key = kept.join(",");
    if (kept.length === 0 || kept.length === cuts.length - 1 || seen.has(key)) continue;
    seen.add(key);
    const pieces = runsOf(kept).map(([first, last]) =>
      pieceOf(op, cuts[first] as number, cuts[last + 1] as number),
    );
    const text = `torn ${describeOp(op)} (sectors ${key} of ${cuts.length - 1})`;
    outcomes.push({ kind: "torn", pieces, text });
  }
  return outcomes;
}

/** Some sectors of a write or of zeroes, never all; none of what is a single sector. */
export function tornPieces(op: TraceOp, random: Random): readonly TraceOp[] {
  const torn = outcomesOf(op, random, {}).filter((outcome) => outcome.kind === "torn");
  return torn.length === 0 ? [] : random.pick(torn).pieces;
}

/** Bounds of a write's sectors, from its start to its end, as positions in the write. */
function sectorCuts(offset: number, lengthBytes: number, sectorBytes: number): number[] {
  const cuts = [0];
  for (let at = sectorBytes - (offset % sectorBytes); at < lengthBytes; at += sectorBytes)
    cuts.push(at);
  cuts.push(lengthBytes);
  return cuts;
}

function keptSectors(count: number, way: (typeof WAYS)[number], random: Random): number[] {
  const all = Array.from({ length: count }, (_, index) => index);
  const cut = random.between(1, count - 1);
  if (way === "prefix") return all.slice(0, cut);
  if (way === "suffix") return all.slice(cut);
  return all.filter(() => random.oneIn(2));
}

/** Neighbours joined: `[0, 1, 2, 5]` as `[0, 2]` and `[5, 5]`. */
function runsOf(sectors: readonly number[]): (readonly [number, number])[] {
  const runs: [number, number][] = [];
  for (const sector of sectors) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] + 1 === sector) last[1] = sector;
    else runs.push([sector, sector]);
  }
  return runs;
}

function pieceOf(op: TraceOp & { kind: "write" | "zero" }, start: number, end: number): TraceOp {
  const range = { offset: op.offset + start, lengthBytes: end - start };
  if (op.kind === "zero") return { ...op, ...range };
  return { ...op, ...range, bytes: op.bytes.subarray(start, end) };
}
