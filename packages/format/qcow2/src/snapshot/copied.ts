/**
 * The COPIED flags of a disk's tables, when what its clusters are shared with changes [C13].
 *
 * Above: create, apply, delete. Below: the L2 cache, L1 table.
 *
 * 1. A flag is never set over a shared cluster that a snapshot on disk needs: it is cleared before the snapshot is in
 *    the table, and set after the snapshot is gone from there.
 * 2. Flags change in the cache; the caller makes them durable. An L1 table in memory changes only after the file has it.
 *
 * Locking: the image lock is held throughout.
 */
import type { Counters } from "../check/counters.js";
import {
  type ClusterIndex,
  COMPRESSED_HIGH,
  COPIED_HIGH,
  hostOffsetOf,
  isCopied,
} from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { L1Table } from "../mapping/l1-table.js";
import { OVERLAP } from "../refcount/overlap.js";
import { getRefcount, peekRefcount } from "../refcount/stored.js";
import { eachL2Table, eachSlice } from "./references.js";

/** Clears the flags in every L2 table that an L1 table names. */
export async function clearCopiedInL2(image: Qcow2Image, l1: L1Table): Promise<void> {
  const { l2 } = image;
  await eachL2Table(image, l1, 0, (tableOffset) =>
    eachSlice(image, tableOffset, (slice) => {
      for (let i = 0; i < l2.entriesPerTable; i++) {
        const high = l2.entryHigh(slice, i);
        if (!isCopied(high)) continue;
        l2.setEntry(slice, i, (high & ~COPIED_HIGH) >>> 0, l2.entryLow(slice, i));
      }
    }),
  );
}

/** The entries of an L1 table without the flags, in a table of at least as many. */
export function withoutCopied(l1: L1Table, hostOffset: number, entryCount: number): L1Table {
  const halves = new Uint32Array(2 * entryCount);
  halves.set(l1.halves);
  for (let i = 0; i < halves.length; i += 2) {
    halves[i] = ((halves[i] as number) & ~COPIED_HIGH) >>> 0;
  }
  return new L1Table(hostOffset, halves);
}

/** Sets the flags of the active tables for clusters among `lowered` whose refcount is 1 now. */
export async function setCopied(image: Qcow2Image, lowered: Counters): Promise<void> {
  const { l2, l1 } = image;
  await eachL2Table(image, l1, 0, (tableOffset) =>
    eachSlice(image, tableOffset, async (slice) => {
      for (let i = 0; i < l2.entriesPerTable; i++) {
        const high = l2.entryHigh(slice, i);
        const low = l2.entryLow(slice, i);
        const cluster = clusterToOwn(image, high, low, lowered);
        if (cluster < 0) continue;
        const count = peekRefcount(image, cluster) ?? (await getRefcount(image, cluster));
        if (count === 1) l2.setEntry(slice, i, (high | COPIED_HIGH) >>> 0, low);
      }
    }),
  );
  await l2.flush();
  const halves = l1.halves.slice();
  for (let i = 0; i < l1.entryCount; i++) {
    const high = l1.high(i);
    const cluster = clusterToOwn(image, high, l1.low(i), lowered);
    if (cluster < 0 || (await getRefcount(image, cluster)) !== 1) continue;
    halves[2 * i] = (high | COPIED_HIGH) >>> 0;
  }
  await rewriteL1(image, new L1Table(l1.hostOffset, halves));
}

/** The cluster of an entry whose flag may have to be set; -1 when it need not. */
function clusterToOwn(
  image: Qcow2Image,
  high: number,
  low: number,
  lowered: Counters,
): ClusterIndex {
  if (isCopied(high) || (high & COMPRESSED_HIGH) !== 0) return -1;
  const offset = hostOffsetOf(high, low);
  if (offset === 0 || image.badClusterOffset(offset)) return -1;
  const cluster = offset * image.perCluster;
  return lowered.get(cluster) > 0 ? cluster : -1;
}

/** Writes the active L1 table again, where it is, if anything in it changed; not synced. */
export async function rewriteL1(image: Qcow2Image, changed: L1Table): Promise<void> {
  const { l1 } = image;
  const isSame = changed.halves.every((half, i) => half === l1.halves[i]);
  if (isSame) return;
  await image.writeTable(l1.hostOffset, changed.encode(), OVERLAP.activeL1);
  image.l1 = changed;
}
