/**
 * What happens once before the first write to an image, and when it turns out to be corrupt.
 *
 * Above: driver.ts. Below: overlap scan, the header's feature fields.
 *
 * 1. Autoclear bits of features that this version does not maintain are cleared, durably, before
 *    anything else changes [C15]. Reading never does this.
 * 2. Bitmaps that record are in use in the file before anything changes: see bitmap/bitmaps.ts.
 * 3. Damage that a writer finds marks a version 3 image as corrupt, and fails the node [C16].
 */
import { viewOf } from "@blocklayer/bytes";
import { INCOMPATIBLE } from "../header/header.js";
import { autoclearForWriting, refuseWriting } from "../header/features.js";
import type { Qcow2Image } from "../image.js";
import { OVERLAP } from "../refcount/overlap.js";
import { scanMetadata } from "../refcount/overlap-scan.js";

/** Where `incompatible_features` lies in a version 3 header. */
export const HEADER_INCOMPATIBLE_POSITION = 72;
/** Where `autoclear_features` lies. */
const HEADER_AUTOCLEAR_POSITION = 88;

/** Prepares an image for its first write. Many writers may call this at once: it is done once. */
export function prepareForWriting(image: Qcow2Image): Promise<void> {
  image.preparing ??= prepare(image).catch((error: unknown) => {
    image.preparing = undefined;
    throw error;
  });
  return image.preparing;
}

async function prepare(image: Qcow2Image): Promise<void> {
  const lease = await image.lock.acquire();
  try {
    refuseWriting(image.header, image.nodeName);
    await scanMetadata(image);
    const autoclear = autoclearForWriting(image.header);
    if (autoclear !== image.header.autoclear) {
      await writeFeatures(image, HEADER_AUTOCLEAR_POSITION, autoclear);
      image.changeHeader({ autoclear });
    }
    await image.bitmaps.prepare();
    image.writePrepared = true;
    image.touched = true;
  } finally {
    lease.release();
  }
}

/** Sets the corrupt bit, as well as that can still be done, and fails the node. */
export async function markCorrupt(image: Qcow2Image, cause: unknown): Promise<void> {
  if (image.failure !== undefined) return;
  image.fail(cause);
  if (image.geometry.version < 3) return;
  const incompatible = image.header.incompatible | INCOMPATIBLE.corrupt;
  try {
    await writeFeatures(image, HEADER_INCOMPATIBLE_POSITION, incompatible);
    image.changeHeader({ incompatible });
  } catch {
    // The node has failed already, and its first cause is what is reported.
  }
}

/** Writes one of the header's feature fields, durably. */
export async function writeFeatures(
  image: Qcow2Image,
  position: number,
  bits: bigint,
): Promise<void> {
  const field = new Uint8Array(8);
  viewOf(field).setBigUint64(0, bits);
  await image.writeTable(position, field, OVERLAP.header);
  await image.sync();
}
