/**
 * Handing an image over to another process, and taking it back: QEMU's inactivate and activate, as at the end and at
 * the beginning of a migration.
 *
 * Above: driver.ts. Below: the flush walk, the caches, header and tables.
 *
 * 1. What is handed over is whole: flushed, padded to whole sectors, and synced. Every step is tried, and each
 *    cache's error is told; after a failure nothing is handed over [S15].
 * 2. What is taken back is read anew, all of it: the image that `activate` gives shares nothing with the one before
 *    but its children, its options and its codec's maker. So nothing stale can be left in it.
 * 3. What the driver has told about the disk (cluster size, features) stays true, or the image is refused.
 *
 * Locking: the node is drained.
 */
import { BlockError } from "@blocklayer/bytes";
import { readHeader } from "./header/decode.js";
import { INCOMPATIBLE, type Qcow2Header } from "./header/header.js";
import type { Qcow2Image } from "./image.js";
import { readTables } from "./read-tables.js";
import { readyForWriting } from "./repair/dirty-image.js";
import { viewSnapshot } from "./snapshot/open-snapshot.js";
import { markCleanLocked } from "./writeback/dirty-bit.js";
import { BestEffort, flushToOs } from "./writeback/flush.js";

/** What does not bear on how the image is read. */
const STATE_BITS: bigint = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt;

/** What the driver does at the end of an image's time. */
export interface LastSteps {
  readonly storeBitmaps: () => Promise<void>;
  /** Makes the file end with whole sectors. */
  readonly padFile: () => Promise<void>;
}

/**
 * Makes the file all that the image is, and forgets what was read of it.
 *
 * @throws the first error of the walk, sync or caches, all of them in its cause; the image is as it was
 */
export async function inactivateImage(
  image: Qcow2Image,
  { storeBitmaps, padFile }: LastSteps,
): Promise<void> {
  const walk = new BestEffort(image.nodeName);
  if (!image.readOnly && image.touched) {
    await walk.attempt("flush", () => flushToOs(image));
    // Bitmaps that are stored claim that the disk is as they say.
    if (walk.succeeded) await walk.attempt("bitmaps", storeBitmaps);
    await walk.attempt("end of the file", padFile);
    await walk.attempt("sync", () => image.sync());
  }
  await walk.attempt("L2 cache", () => image.l2.empty());
  await walk.attempt("refcount cache", () => image.refcounts.empty());
  // The next owner need not repair what is in order [C8].
  if (walk.succeeded) await walk.attempt("dirty bit", () => markCleanLocked(image));
  walk.end();
  image.readCache.invalidate();
  image.compressedCache?.free();
  image.compressedCache = undefined;
  await image.releaseCodec();
}

/**
 * The image as its file is now.
 *
 * @throws what reading a header and tables throws; BlockError `EACCES` when it may not be written, `EINVAL` when it
 *   is another kind of image
 */
export async function activateImage(image: Qcow2Image): Promise<Qcow2Image> {
  const { file, nodeName, readOnly } = image;
  const found = await readHeader(file);
  refuseAnother(image.header, found, nodeName);
  const header = readOnly ? found : await readyForWriting(file, found, nodeName);
  const tables = await readTables(file, header, readOnly);
  const { snapshot } = image;
  const view = snapshot && (await viewSnapshot(file, header, snapshot, readOnly));
  return image.withTables({ header, ...tables, ...view });
}

function refuseAnother(before: Qcow2Header, now: Qcow2Header, nodeName: string): void {
  const kind = (header: Qcow2Header): readonly unknown[] => [
    header.version,
    header.clusterBits,
    header.refcountOrder,
    header.cryptMethod,
    header.compressionType,
    header.incompatible & ~STATE_BITS,
    header.backingFilename,
    header.backingFormat,
    header.dataFilename,
  ];
  const nowKind = kind(now);
  if (kind(before).every((one, i) => one === nowKind[i])) return;
  throw new BlockError(
    "EINVAL",
    `${nodeName}: the image is not the one that was handed over: its format or the files below it have changed. Open it anew`,
    { op: "activate", node: nodeName },
  );
}
