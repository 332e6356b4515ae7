/**
 * VM state: what the L1 table maps behind the end of the disk.
 *
 * Above: control.ts, create, mapping/truncate.ts. Below: mapping/read and write, L1 table.
 *
 * 1. It begins where the first L1 entry maps that the disk does not need, so it moves when the disk's length changes:
 *    before the disk grows over it, it is dropped. Otherwise the guest would find it on its disk.
 * 2. No backing file shows through, and what was never written is zero.
 *
 * Source: the qcow2 specification, "Snapshots": VM state.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { BlockError, type IoVector } from "@blocklayer/bytes";
import { ENTRY_BYTES, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { L1Table } from "../mapping/l1-table.js";
import { readGuest } from "../mapping/read.js";
import { growL1 } from "../mapping/grow-l1.js";
import { writeGuest } from "../mapping/write.js";
import { lowerBy, refuseLower } from "../refcount/adjust.js";
import { refuseExternalData } from "./change.js";
import { rewriteL1 } from "./copied.js";
import { addReferences, References } from "./references.js";

const MAX_L1_ENTRIES: number = MAX_L1_BYTES / ENTRY_BYTES;

/** Reads VM state; what lies behind all that was ever written is zero. */
export async function readVmState(
  image: Qcow2Image,
  offset: number,
  target: IoVector,
  options?: RequestOptions,
): Promise<void> {
  await image.event("vmstate_load");
  const { vmStateOffset, l2CoverageBytes } = image.geometry;
  const mappedEnd = Math.min(image.l1.entryCount * l2CoverageBytes, Number.MAX_SAFE_INTEGER);
  const mapped = mappedEnd - vmStateOffset - offset;
  const inside = Math.max(0, Math.min(target.lengthBytes, mapped));
  target.fill(0, inside);
  if (inside > 0) await readGuest(image, vmStateOffset + offset, target.slice(0, inside), options);
}

/**
 * Writes VM state. Requires: writes are prepared; no request to the disk is in flight, since the L1 table may move.
 *
 * @throws BlockError `EFBIG` when no L1 table could map it, or not within 2^53 - 1
 */
export async function writeVmState(
  image: Qcow2Image,
  offset: number,
  source: IoVector,
  options?: RequestOptions,
): Promise<void> {
  refuseExternalData(image, "write VM state");
  await image.event("vmstate_save");
  const { vmStateOffset, l2CoverageBytes } = image.geometry;
  const start = vmStateOffset + offset;
  const end = start + source.lengthBytes;
  const needed = Math.ceil(end / l2CoverageBytes);
  if (needed > MAX_L1_ENTRIES || !Number.isSafeInteger(end)) {
    const message =
      needed > MAX_L1_ENTRIES
        ? "VM state at that offset would need an L1 table longer than 32 MiB"
        : "VM state at that offset would lie behind 2^53 - 1, counted from the start of the disk";
    throw new BlockError("EFBIG", message, { op: "write VM state", offset });
  }
  if (needed > image.l1.entryCount) {
    const lease = await image.lock.acquire();
    try {
      await growL1(image, roomyLength(image.l1.entryCount, needed));
    } finally {
      lease.release();
    }
  }
  await writeGuest(image, start, source, options);
}

/** VM state comes piece by piece: the table grows by halves, as in QEMU, not with each piece. */
function roomyLength(entryCount: number, needed: number): number {
  let length = Math.max(1, entryCount);
  while (length < needed) length = Math.ceil((length * 3) / 2);
  return Math.min(length, MAX_L1_ENTRIES);
}

/**
 * Makes the disk's VM state empty. Snapshots keep theirs.
 *
 * Holds: the image lock. Order on disk [C3]: the L1 entries, sync; then the clusters are free.
 */
export async function dropVmState(image: Qcow2Image): Promise<void> {
  const { l1, geometry } = image;
  const first = geometry.l1Size;
  if (l1.nextAllocated(first, l1.entryCount) >= l1.entryCount) return;
  refuseExternalData(image, "drop VM state");
  const references = new References(image, "drop VM state");
  await addReferences(image, references, l1, first);
  await refuseLower(image, references.counters);
  await rewriteL1(image, new L1Table(l1.hostOffset, l1.halves.slice().fill(0, 2 * first)));
  await image.sync();
  await lowerBy(image, references.counters, "never");
}
