/**
 * Going back to a snapshot.
 *
 * Above: control.ts. Below: the other files of this folder, refcount/adjust.ts.
 *
 * Order on disk, each step durable before the next:
 *   1. the refcounts of all that the snapshot names are raised; COPIED is cleared in its L2 tables, which the disk is
 *      about to share; a new L1 table names them;
 *   2. the header: the disk's length and the L1 table, in one sector, at once. When the length stays, and the L1 table
 *      fits into a sector, that one is written over instead, as QEMU does;
 *   3. the refcounts of all that the disk named before are lowered.
 * So a crash leaves the disk as it was or as it was in the snapshot, and leaks at most. QEMU writes over L1 tables of
 * any length, and the disk's length on its own.
 *
 * All that the disk names afterwards is shared with the snapshot: no COPIED flag is to be set [C13].
 */
import type { SnapshotSelector } from "@blocklayer/block-api";
import {
  BlockError,
  SECTOR_SIZE_BYTES,
  UnsupportedError,
  viewOf,
  writeU64,
} from "@blocklayer/bytes";
import { ENTRY_BYTES } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { L1Table } from "../mapping/l1-table.js";
import { HEADER_SIZE_POSITION, writeHeaderField } from "../mapping/grow-l1.js";
import { allocateClusters } from "../refcount/allocate.js";
import { lowerBy, type Progress, raiseBy, refuseLower, refuseRaise } from "../refcount/adjust.js";
import { DamageError } from "../refcount/damage.js";
import { lowerAfterFailure, lowerNow } from "../refcount/free.js";
import { headerWaitsForTable } from "../writeback/order.js";
import { madeBut } from "./change.js";
import { clearCopiedInL2, rewriteL1, withoutCopied } from "./copied.js";
import { readSnapshotDisk, type SnapshotDisk } from "./l1.js";
import { addReferences, refcountFull, References } from "./references.js";
import { entryOf, loadSnapshotTable } from "./stored-table.js";
import type { SnapshotEntry } from "./table.js";

const OP = "apply snapshot";

/** Makes the disk what it was in a snapshot. Requires: see change.ts. */
export async function applySnapshot(
  image: Qcow2Image,
  which: SnapshotSelector,
): Promise<SnapshotEntry> {
  refuseBitmaps(image);
  const table = await loadSnapshotTable(image.file, image.header);
  const entry = entryOf(table, which, OP);
  const disk = await readSnapshotDisk(image.file, image.header, entry);
  refuseNewLength(image, disk);
  const gained = new References(image, OP);
  await addReferences(image, gained, disk.l1);
  const lost = new References(image, OP);
  await addReferences(image, lost, image.l1);
  await refuseRaise(image, gained.counters, (cluster) => refcountFull(image, cluster, OP));
  await refuseLower(image, lost.counters, gained.counters);
  await refuseUncounted(image, disk.l1);
  const { hostOffset, entryCount } = image.l1;
  const isInPlace = fitsInPlace(image, disk);
  const l1 = await writeShared(image, disk, gained, isInPlace);
  await (isInPlace ? writeOver(image, l1) : switchDisk(image, disk, l1));
  image.readCache.invalidate();
  try {
    await lowerBy(image, lost.counters, "snapshot");
    const lengthBytes = isInPlace ? 0 : entryCount * ENTRY_BYTES;
    if (lengthBytes > 0) await lowerNow(image, { hostOffset, lengthBytes, reason: "snapshot" });
  } catch (error) {
    throw madeBut(`${OP}: the disk is that of the snapshot`, error);
  }
  return entry;
}

/** As QEMU: a bitmap would have to tell what changes now. */
function refuseBitmaps(image: Qcow2Image): void {
  if (!image.bitmaps.any) return;
  const message =
    "the image has dirty bitmaps, which would not tell what changes: remove them first";
  throw new BlockError("EBUSY", message, { op: OP, node: image.nodeName });
}

function refuseNewLength(image: Qcow2Image, { virtualSize }: SnapshotDisk): void {
  if (virtualSize === image.header.virtualSize || image.geometry.version >= 3) return;
  const message =
    "qcow2: the snapshot has another disk length, and that of a version 2 image with snapshots cannot be changed";
  throw new UnsupportedError(message, { op: OP, node: image.nodeName });
}

/** A snapshot's L1 table that no refcount protects may be anything soon. */
async function refuseUncounted(image: Qcow2Image, l1: L1Table): Promise<void> {
  const own = new References(image, OP);
  own.add(l1.hostOffset, l1.entryCount * ENTRY_BYTES);
  await refuseLower(image, own.counters);
}

/** Whether the L1 table can be changed at once where it lies: it is one sector, and the header stays as it is. */
function fitsInPlace(image: Qcow2Image, { virtualSize, l1Size }: SnapshotDisk): boolean {
  const { l1, header } = image;
  const isSameDisk = virtualSize === header.virtualSize && l1Size === l1.entryCount;
  const isOneSector =
    l1Size * ENTRY_BYTES <= SECTOR_SIZE_BYTES && l1.hostOffset % SECTOR_SIZE_BYTES === 0;
  return isSameDisk && isOneSector;
}

/** Step 1. **After failure:** nothing is taken or raised, or it leaks. */
async function writeShared(
  image: Qcow2Image,
  disk: SnapshotDisk,
  gained: References,
  isInPlace: boolean,
): Promise<L1Table> {
  const bytes = isInPlace ? 0 : disk.l1Size * ENTRY_BYTES;
  const clusters = Math.ceil(bytes * image.perCluster);
  const offset = clusters > 0 ? await allocateClusters(image, clusters) : 0;
  const progress: Progress = { done: 0 };
  try {
    await raiseBy(image, gained.counters, progress);
    const l1 = withoutCopied(disk.l1, isInPlace ? image.l1.hostOffset : offset, disk.l1Size);
    if (clusters > 0) await image.writeTable(offset, l1.encode(), 0);
    await clearCopiedInL2(image, disk.l1);
    await image.l2.flush();
    await headerWaitsForTable(image);
    return l1;
  } catch (error) {
    if (image.failure === undefined && !(error instanceof DamageError)) {
      await lowerAfterFailure(image, offset, bytes);
      await lowerBy(image, gained.counters, "never", progress.done).catch(() => undefined);
    }
    throw error;
  }
}

/** Step 2, in place. A failure leaves it unknown which table counts: the node fails. */
async function writeOver(image: Qcow2Image, l1: L1Table): Promise<void> {
  try {
    await rewriteL1(image, l1);
    await image.sync();
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
}

/** Step 2: `size`, `crypt_method`, `l1_size` and `l1_table_offset` lie side by side. */
async function switchDisk(image: Qcow2Image, disk: SnapshotDisk, l1: L1Table): Promise<void> {
  const field = new Uint8Array(24);
  const view = viewOf(field);
  writeU64(view, 0, disk.virtualSize);
  view.setUint32(8, image.header.cryptMethod);
  view.setUint32(12, disk.l1Size);
  writeU64(view, 16, l1.hostOffset);
  await writeHeaderField(image, HEADER_SIZE_POSITION, field);
  image.changeHeader({
    virtualSize: disk.virtualSize,
    l1Size: disk.l1Size,
    l1TableOffset: l1.hostOffset,
  });
  image.l1 = l1;
}
