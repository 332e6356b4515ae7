/**
 * What becomes of an extended L2 entry that breaks a rule: pure decisions about two halves and two bitmaps.
 *
 * Above: mapping.ts. Below: entries.ts, which judges the first eight bytes as those of a plain entry.
 *
 * 1. A subcluster that is both allocated and zero cannot be read by anybody: its data is kept, since nobody can tell
 *    that it is not wanted, and the zero bit goes [C14].
 * 2. What is allocated in a cluster that is not there is lost, listed, and reads as zeroes. What was not allocated
 *    shows the backing file before and after.
 * 3. A compressed cluster has no subclusters: its bitmap becomes empty.
 *
 * Source: the qcow2 specification, "Extended L2 Entries".
 */
import { entryText } from "../check/l2-walk.js";
import { COMPRESSED_HIGH, hostOffsetOf, isCopied, ZERO_LOW } from "../geometry.js";
import { type EntryBounds, mendL2Entry } from "./entries.js";

/** The four words of an entry. */
export interface ExtendedEntry {
  readonly high: number;
  readonly low: number;
  readonly zeroes: number;
  readonly allocated: number;
}

/** What is to be done about an entry. */
export interface ExtendedMend extends ExtendedEntry {
  readonly dropped: boolean;
  readonly message: string;
}

/** What an extended entry should be; `undefined`: as it is. */
export function mendExtendedEntry(
  bounds: EntryBounds,
  entry: ExtendedEntry,
): ExtendedMend | undefined {
  const { high, low, zeroes, allocated } = entry;
  const text = entryText(high, low);
  const bitmap = entryText(zeroes, allocated);
  // Bit 0 means nothing here: judged as a plain entry, it would stand for zeroes.
  const plain = mendL2Entry(bounds, high, (low & ~ZERO_LOW) >>> 0);
  if (plain?.dropped === true) return { ...withoutCluster(entry), message: plain.message };
  if ((high & COMPRESSED_HIGH) !== 0) {
    if (zeroes === 0 && allocated === 0) return plain && { ...plain, zeroes, allocated };
    const message = `compressed cluster with subcluster bitmap ${bitmap}: entry ${text}`;
    const { high: h, low: l } = plain ?? entry;
    return { high: h, low: l, zeroes: 0, allocated: 0, dropped: false, message };
  }
  const isHosted =
    hostOffsetOf(high, low) !== 0 || (bounds.geometry.externalData && isCopied(high));
  if (allocated !== 0 && !isHosted) {
    const message = `L2 entry ${text}: subclusters ${bitmap} are allocated, and there is no cluster`;
    return { ...withoutCluster(entry), message };
  }
  if ((zeroes & allocated) !== 0) {
    const message = `L2 entry ${text}: subclusters are both allocated and zero: bitmap ${bitmap}`;
    const { high: h, low: l } = plain ?? entry;
    const left = (zeroes & ~allocated) >>> 0;
    return { high: h, low: l, zeroes: left, allocated, dropped: false, message };
  }
  return plain && { ...plain, zeroes, allocated };
}

function withoutCluster({
  zeroes,
  allocated,
}: ExtendedEntry): ExtendedEntry & { dropped: boolean } {
  return {
    high: 0,
    low: 0,
    zeroes: (zeroes | allocated) >>> 0,
    allocated: 0,
    dropped: allocated !== 0,
  };
}
