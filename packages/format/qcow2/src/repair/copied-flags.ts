/**
 * COPIED flags that do not agree with the number of references.
 *
 * Above: repair.ts. Below: tables.ts.
 *
 * 1. The flag is judged by the references, which are what the refcounts are becoming, and under the active L1 table
 *    alone: elsewhere it means nothing [C13].
 * 2. Clearing one is always safe; setting one is, because the references were all counted.
 */
import { entryText } from "../check/l2-walk.js";
import { COMPRESSED_HIGH, COPIED_HIGH, ENTRY_BYTES, hostOffsetOf, isCopied } from "../geometry.js";
import type { References } from "../check/references.js";
import type { Findings } from "../check/findings.js";
import type { Tables } from "./tables.js";

/** What a pass over the flags does with a wrong one. */
export interface CopiedPass {
  readonly references: References;
  readonly findings: Findings;
  /** `false`: only report. */
  readonly mend: boolean;
}

/**
 * Judges every flag.
 *
 * @returns how many were wrong
 */
export async function passCopiedFlags(tables: Tables, pass: CopiedPass): Promise<number> {
  const { clusterSize, externalData, l2EntrySize } = tables.geometry;
  let wrong = 0;
  const refcount = (offset: number): number =>
    pass.references.counters.get(Math.floor(offset / clusterSize));
  const judge = (
    high: number,
    offset: number,
    count: number,
    what: () => string,
  ): number | undefined => {
    if (offset === 0 || isCopied(high) === (count === 1)) return undefined;
    wrong++;
    const { findings, mend } = pass;
    if (mend) findings.repaired(() => `Repairing OFLAG_COPIED ${what()}`);
    else findings.corruption(() => `ERROR OFLAG_COPIED ${what()}`);
    return mend ? (high ^ COPIED_HIGH) >>> 0 : undefined;
  };
  await tables.editL1(tables.active, (high, low, index) => {
    const offset = hostOffsetOf(high, low);
    const text = (): string =>
      `L2 cluster: l1_index=${index} l1_entry=${entryText(high, low)} refcount=${refcount(offset)}`;
    const changed = judge(high, offset, refcount(offset), text);
    return changed === undefined ? undefined : { high: changed, low };
  });
  await tables.editL2([tables.active], (table) => {
    for (let at = 0; at + ENTRY_BYTES <= table.lengthBytes; at += l2EntrySize) {
      const high = table.high(at);
      const low = table.low(at);
      if ((high & COMPRESSED_HIGH) !== 0) continue;
      const offset = hostOffsetOf(high, low);
      // Clusters of an external data file have no refcounts: each is used once.
      const count = externalData ? 1 : refcount(offset);
      const text = (): string => `data cluster: l2_entry=${entryText(high, low)} refcount=${count}`;
      const changed = judge(high, offset, count, text);
      if (changed !== undefined) table.set(at, changed, low);
    }
  });
  return wrong;
}
