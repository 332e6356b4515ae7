/**
 * Giving back the clusters of ranges that nobody needs any more.
 *
 * Above: driver.ts. Below: l2-tables, refcount/free.ts.
 *
 * As QEMU does it: only whole clusters count, also where they have subclusters, and a last cluster that
 * the disk's end cuts. Version 3: what was allocated gets the zero flag, and with a backing file what was
 * not, so that it does not show through. Version 2 without a backing file: entries become empty. Version 2
 * with one: nothing, since old content of the backing file would appear.
 *
 * The clusters are free, and are discarded in the file, after their drop is durable [C3, D2].
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { alignDown, alignUp } from "@blocklayer/bytes";
import type { GuestOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { l2WaitsForData } from "../writeback/order.js";
import { dropEntry } from "./allocate.js";
import { L2Entry, storeEntry } from "./l2-entry.js";
import { l2ForWrite } from "./l2-tables.js";
import { withClusters } from "./write.js";

/** Discards a guest range. Requires: the range lies on the disk; writes are prepared. */
export async function discardGuest(
  image: Qcow2Image,
  offset: GuestOffset,
  length: number,
  options?: RequestOptions,
): Promise<void> {
  const { clusterSize, virtualSize, version, l2CoverageBytes } = image.geometry;
  if (version < 3 && image.backing !== undefined) return;
  const rangeEnd = offset + length;
  const start = alignUp(offset, clusterSize);
  const end =
    rangeEnd === virtualSize ? alignUp(rangeEnd, clusterSize) : alignDown(rangeEnd, clusterSize);
  // A raw view must show what readers of this image see: zeroes, not what a hint may leave.
  const onDisk = Math.min(end, virtualSize) - start;
  if (onDisk > 0) await image.externalData?.zeroRaw(start, onDisk, { mayUnmap: true });
  const span = image.l2.entriesPerTable * clusterSize;
  for (let at = start; at < end; ) {
    if (image.backing === undefined) {
      const l1Index = Math.floor(at / l2CoverageBytes);
      const last = Math.ceil(end / l2CoverageBytes);
      const next = image.l1.nextAllocated(l1Index, last);
      if (next > l1Index) {
        at = next * l2CoverageBytes;
        continue;
      }
    }
    const from = at;
    const stop = Math.min(end, alignDown(at, span) + span);
    await withClusters(image, from, stop - from, options?.signal, () =>
      discardSlice(image, from, (stop - from) / clusterSize),
    );
    at = stop;
  }
}

async function discardSlice(
  image: Qcow2Image,
  start: GuestOffset,
  clusters: number,
): Promise<void> {
  const { l2, geometry } = image;
  const { table, index } = await l2ForWrite(image, start);
  const zeroes = geometry.version >= 3 ? geometry.allSubclusters : 0;
  const entry = new L2Entry();
  try {
    for (let i = index; i < index + clusters; i++) {
      const { high, low, compressed } = entry.load(image, table, i);
      const hosted = compressed || entry.hosted;
      if (!hosted && image.backing === undefined) continue;
      if (!hosted && entry.allocated === 0 && entry.zeroes === zeroes) continue;
      if (image.externalData?.raw === true) l2WaitsForData(image);
      storeEntry(image, table, i, { hostOffset: 0, copied: false, allocated: 0, zeroes });
      dropEntry(image, high, low, "request");
    }
  } finally {
    l2.release(table);
  }
}
