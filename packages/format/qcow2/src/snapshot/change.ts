/**
 * What surrounds every change of snapshots.
 *
 * Above: create, apply, delete, vm-state. Below: writeback/flush, the overlap scan.
 *
 * 1. Before: nothing is dirty, nothing freed waits, and the file is synced. So tables can be read as they are, and a
 *    crash during the change finds either all of what was written before or what C1 allows.
 * 2. After, also after a failure: the overlap index is built anew, since tables came, went and changed their kind.
 *
 * Requires: no request is in flight; writes are prepared.
 */
import { assert, BlockError, UnsupportedError } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { DamageError } from "../refcount/damage.js";
import { OVERLAP } from "../refcount/overlap.js";
import { scanMetadata } from "../refcount/overlap-scan.js";
import { writeDown } from "../writeback/flush.js";

/** Runs a change of snapshots under the image lock. */
export async function changeSnapshots<T>(
  image: Qcow2Image,
  op: string,
  work: () => Promise<T>,
): Promise<T> {
  refuseExternalData(image, op);
  const lease = await image.lock.acquire();
  try {
    assert(image.pending.size === 0, "snapshots change while no allocation is in flight");
    image.refuseFailed();
    await settle(image);
    image.l2Kinds = OVERLAP.activeL2 | OVERLAP.inactiveL2;
    try {
      const result = await work();
      try {
        await settle(image);
      } catch (error) {
        throw madeBut(`${op} is done`, error);
      }
      return result;
    } finally {
      await rescan(image);
      image.l2Kinds = OVERLAP.activeL2;
    }
  } finally {
    lease.release();
  }
}

/** @throws UnsupportedError: a snapshot would share clusters of the data file, which nothing counts */
export function refuseExternalData(image: Qcow2Image, op: string): void {
  if (image.externalData === undefined) return;
  const message = `${op}: an image with an external data file can have no internal snapshots`;
  throw new UnsupportedError(message, { op, node: image.nodeName });
}

/** The error of a change that is made and durable, when something that comes after it failed. */
export function madeBut(done: string, error: unknown): unknown {
  if (!(error instanceof BlockError) || error instanceof DamageError) return error;
  const message = `${done}, but what follows failed: ${error.message}; check the image for leaks`;
  const { node, op = "snapshot" } = error;
  return new BlockError(error.code, message, {
    op,
    cause: error,
    ...(node === undefined ? {} : { node }),
  });
}

/** Makes all durable, until nothing is left to do. */
async function settle(image: Qcow2Image): Promise<void> {
  await writeDown(image);
  await image.sync();
}

/** Builds the overlap index anew. When that fails the next change does it before it begins. */
async function rescan(image: Qcow2Image): Promise<void> {
  image.overlap.reset();
  try {
    await scanMetadata(image);
  } catch {
    image.writePrepared = false;
    image.preparing = undefined;
  }
}
