/**
 * What an image names behind the end of its file, where a repair must not put anything.
 *
 * Above: repair.ts, planned-file.ts. Below: tables.ts, snapshot/table.ts.
 *
 * Room behind the end reads as zeroes: a table there is empty, data there is zero. Were something appended just there,
 * the image would show it, until the entry is mended: for ever, if a crash comes between. So appended clusters go
 * where nothing points.
 *
 * Only the first WINDOW_BYTES behind the end are looked at, and only they are used: memory is bounded, whatever an
 * image names.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { BlockError, divideRoundUp } from "@blocklayer/bytes";
import type { Findings } from "../check/findings.js";
import type { StoredRefcounts } from "../check/stored-refcounts.js";
import {
  COMPRESSED_HIGH,
  compressedLengthOf,
  compressedOffsetOf,
  ENTRY_BYTES,
  type Geometry,
  geometryOf,
  type HostOffset,
  hostOffsetOf,
  MAX_L1_BYTES,
} from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import { readSnapshotTable } from "../snapshot/table.js";
import type { PlannedFile } from "./planned-file.js";
import { type L1Place, Tables } from "./tables.js";

const WINDOW_BYTES = 2 ** 31;

export class NamedBehindEnd {
  readonly #clusterSize: number;
  readonly #first: number;
  readonly #named: Uint8Array;

  constructor({ clusterSize }: Geometry, fileLengthBytes: number) {
    this.#clusterSize = clusterSize;
    this.#first = divideRoundUp(fileLengthBytes, clusterSize);
    this.#named = new Uint8Array(WINDOW_BYTES / clusterSize);
  }

  /** Something names a range. What lies in the file, or too far out, is passed over. */
  mark(hostOffset: HostOffset, lengthBytes: number): void {
    const end = Math.min(
      divideRoundUp(hostOffset + lengthBytes, this.#clusterSize) - this.#first,
      this.#named.length,
    );
    const start = Math.max(0, Math.floor(hostOffset / this.#clusterSize) - this.#first);
    if (start < end) this.#named.fill(1, start, end);
  }

  /**
   * The first run of clusters at or behind a place that nothing names.
   *
   * @throws BlockError `ENOSPC`
   */
  runFrom(cluster: number, count: number): number {
    let free = 0;
    for (let at = Math.max(0, cluster - this.#first); at < this.#named.length; at++) {
      free = this.#named[at] === 0 ? free + 1 : 0;
      if (free === count) return this.#first + at + 1 - count;
    }
    throw new BlockError("ENOSPC", "repair: no room behind the end of the file", { op: "check" });
  }
}

/** Looks through all that an image says of places. `blocked` hears of what could not be read. */
export async function findNamedBehindEnd(
  plan: PlannedFile,
  header: Qcow2Header,
  stored: StoredRefcounts,
  blocked: Findings,
  options: RequestOptions,
): Promise<NamedBehindEnd> {
  const geometry = geometryOf(header);
  const { clusterSize, externalData, l2EntrySize } = geometry;
  const named = new NamedBehindEnd(geometry, plan.lengthBytes);
  named.mark(header.refcountTableOffset, header.refcountTableClusters * clusterSize);
  for (const { hostOffset } of stored.entries) named.mark(hostOffset, clusterSize);
  const active = placeOf(header.l1TableOffset, header.l1Size);
  const places = [active, ...(await snapshotPlaces(plan, header, named))];
  const tables = new Tables(geometry, plan, active, blocked, options);
  for (const place of places) {
    named.mark(place.hostOffset, place.entryCount * ENTRY_BYTES);
    await tables.editL1(place, (high, low) => {
      named.mark(hostOffsetOf(high, low), clusterSize);
      return undefined;
    });
  }
  await tables.editL2(places, (table) => {
    for (let at = 0; at + ENTRY_BYTES <= table.lengthBytes; at += l2EntrySize) {
      const high = table.high(at);
      const low = table.low(at);
      if ((high & COMPRESSED_HIGH) === 0) {
        if (!externalData) named.mark(hostOffsetOf(high, low), clusterSize);
      } else {
        const start = compressedOffsetOf(geometry, high, low);
        named.mark(start, compressedLengthOf(geometry, high, low));
      }
    }
  });
  return named;
}

function placeOf(hostOffset: HostOffset, entryCount: number): L1Place {
  return { hostOffset, entryCount, owner: "", pointerAt: 0 };
}

async function snapshotPlaces(
  plan: PlannedFile,
  header: Qcow2Header,
  named: NamedBehindEnd,
): Promise<L1Place[]> {
  const { entries, lengthBytes } = await readSnapshotTable(header, {
    read: (hostOffset, length) => plan.read(hostOffset, length),
    refuse: () => {},
  });
  named.mark(header.snapshotsOffset, lengthBytes);
  // Others cannot be read by anybody, and are dropped.
  return entries
    .filter(({ isAligned, l1TableOffset }) => isAligned && Number.isSafeInteger(l1TableOffset))
    .filter(({ l1Size }) => l1Size * ENTRY_BYTES <= MAX_L1_BYTES)
    .map(({ l1TableOffset, l1Size }) => placeOf(l1TableOffset, l1Size));
}
