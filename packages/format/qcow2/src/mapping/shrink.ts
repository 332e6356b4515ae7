/**
 * What lies past the end of the disk: given back when a disk becomes shorter, and looked for before it becomes longer.
 *
 * Above: truncate.ts, with the node drained. Below: zero.ts, refcount/free.ts, refcount/reclaim.ts, order.ts.
 *
 * 1. The size goes first, and is durable [C1]: after a crash the disk has its old length and all its bytes, or its new
 *    one. What lies past the end then still has its clusters; a later shrinking or growing gives them back.
 * 2. A dropped L1 entry is durable before the refcounts of its table, and of what the table names, are lowered [C3]: they
 *    are noted as dropped, and the sync in front of the lowering covers the L1 table as well.
 * 3. What a longer disk shows for the first time reads as zeroes: clusters past the old end are dropped, and the rest of a
 *    last cluster that the old end cuts is zeroed, before the new size is written. So it is for images that others
 *    made shorter, too.
 *
 * The L1 table keeps its length, as in QEMU.
 */
import { alignDown, alignUp, CorruptImageError, hex, IoVector, isZero } from "@blocklayer/bytes";
import { ENTRY_BYTES, ENTRY_KIND, type GuestOffset, type HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { lowerFreed } from "../refcount/free.js";
import { OVERLAP } from "../refcount/overlap.js";
import { dropEntry } from "./allocate.js";
import { readGuest } from "./read.js";
import { writeGuest } from "./write.js";
import { mapOnce, unmapClusters } from "./zero.js";

/** L1 entries that are dropped with one write: those of a sector. */
const L1_STEP = 512 / ENTRY_BYTES;

/**
 * Refuses a disk whose tables past a new end cannot be dropped, before anything is changed.
 *
 * @throws CorruptImageError
 */
export function refuseBadTablesFrom(image: Qcow2Image, end: GuestOffset): void {
  const { l1, geometry } = image;
  for (let i = Math.floor(end / geometry.l2CoverageBytes); i < l1.entryCount; i++) {
    const offset = l1.l2Offset(i);
    if (!image.badL2Offset(offset)) continue;
    throw new CorruptImageError({
      structure: "L1 table",
      hostOffset: l1.hostOffset + i * ENTRY_BYTES,
      rule: `entry ${i} is ${hex(offset)}: not the offset of an L2 table`,
    });
  }
}

/**
 * Gives back every cluster past an end. Nothing that lies there may be shown any more, or yet.
 *
 * @param limit - only up to the L2 table that maps this offset's last byte; by default all, VM state too
 *
 * **After failure:** what is left is a leak, or still there.
 */
export async function dropPast(
  image: Qcow2Image,
  end: GuestOffset,
  limit?: GuestOffset,
): Promise<void> {
  const { clusterSize, l2CoverageBytes } = image.geometry;
  const firstCluster = alignUp(end, clusterSize);
  const firstTable = Math.ceil(firstCluster / l2CoverageBytes);
  const cut = Math.floor(firstCluster / l2CoverageBytes);
  if (cut < firstTable && cut < image.l1.entryCount && image.l1.l2Offset(cut) !== 0) {
    await unmapUsed(image, firstCluster, firstTable * l2CoverageBytes);
  }
  const { entryCount } = image.l1;
  const lastTable = limit === undefined ? entryCount : Math.ceil(limit / l2CoverageBytes);
  await dropTables(image, firstTable, Math.min(lastTable, entryCount));
}

/** As `unmapClusters`, within one L2 table; a table of which nothing is used there is not touched, nor copied. */
async function unmapUsed(image: Qcow2Image, start: GuestOffset, end: GuestOffset): Promise<void> {
  for (let at = start; at < end; ) {
    const mapping = await mapOnce(image, at, end - at);
    if (mapping.kind !== ENTRY_KIND.unallocated) {
      await unmapClusters(image, at, end);
      return;
    }
    at += mapping.lengthBytes;
  }
}

/** Drops whole L2 tables, a sector of the L1 table at a time. */
async function dropTables(image: Qcow2Image, first: number, end: number): Promise<void> {
  for (let from = first; from < end; ) {
    from = image.l1.nextAllocated(from, end);
    const stop = Math.min(alignDown(from, L1_STEP) + L1_STEP, end);
    if (from < stop) {
      const lease = await image.lock.acquire();
      try {
        image.refuseFailed();
        await dropStep(image, from, stop);
      } finally {
        lease.release();
      }
    }
    from = stop;
  }
}

async function dropStep(image: Qcow2Image, from: number, stop: number): Promise<void> {
  const { l1 } = image;
  const tables: HostOffset[] = [];
  for (let i = from; i < stop; i++) if (l1.l2Offset(i) !== 0) tables.push(l1.l2Offset(i));
  await image.event("l1_shrink_write_table");
  const empty = new Uint8Array((stop - from) * ENTRY_BYTES);
  await image.writeTable(l1.hostOffset + from * ENTRY_BYTES, empty, OVERLAP.activeL1);
  for (let i = from; i < stop; i++) l1.set(i, 0, 0);
  await image.event("l1_shrink_free_l2_clusters");
  for (const table of tables) await dropTable(image, table);
}

/** Notes all that a table names, and the table. Requires: nothing on disk names the table for this reference. */
async function dropTable(image: Qcow2Image, table: HostOffset): Promise<void> {
  const { l2, geometry, frees } = image;
  const { clusterSize } = geometry;
  for (let at = 0; at < clusterSize; at += l2.tableSizeBytes) {
    const slice = await l2.get(table + at);
    try {
      for (let i = 0; i < l2.entriesPerTable; i++) {
        dropEntry(image, l2.entryHigh(slice, i), l2.entryLow(slice, i), "request");
      }
    } finally {
      l2.release(slice);
    }
  }
  frees.note(table, clusterSize, "other", clusterSize);
  if (frees.full) await lowerFreed(image);
}

/**
 * Zeroes what a last cluster holds between the end of the disk and `end`, where it has bytes of its own there.
 *
 * Requires: the rest of the cluster up to `end` lies on the disk, as far as memory is concerned.
 *
 * @returns whether anything was written
 */
export async function zeroRestOfCluster(
  image: Qcow2Image,
  start: GuestOffset,
  end: GuestOffset,
): Promise<boolean> {
  const stop = Math.min(alignUp(start, image.geometry.clusterSize), end);
  let isWritten = false;
  for (let at = start; at < stop; ) {
    // With subclusters, parts of the rest have bytes of their own and others not.
    const { kind, lengthBytes } = await mapOnce(image, at, stop - at);
    if (kind === ENTRY_KIND.normal || kind === ENTRY_KIND.compressed) {
      const bytes = new Uint8Array(lengthBytes);
      await readGuest(image, at, IoVector.of(bytes));
      if (!isZero(bytes)) {
        await writeGuest(image, at, IoVector.of(bytes.fill(0)));
        isWritten = true;
      }
    }
    at += lengthBytes;
  }
  return isWritten;
}
