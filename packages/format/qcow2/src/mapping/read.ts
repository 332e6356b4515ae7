/**
 * Reading guest data.
 *
 * Above: driver.ts, cow.ts. Below: lookup, compressed/read, the file and the backing child.
 *
 * A request that is one run in tables already in memory returns its child's promise, or nothing when
 * that has none: no lock, no closure. Others are cut into runs, several of which are read at once.
 */
import type { BlockChild, RequestOptions } from "@blocklayer/block-api";
import { andThen, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import { readCompressed } from "../compressed/read.js";
import { ENTRY_KIND, type GuestOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { TaskGroup } from "../task-group.js";
import { lookup, lookupSlow, Mapping } from "./lookup.js";

/** Runs of one request that are read at once. */
const MAX_PARALLEL_RUNS = 16;

/** The answer to the lookup of a fast read: used and done with before anything else can run. */
const scratch = new Mapping();

/** Fills the vector from a guest offset on. Requires: the range lies on the disk. */
export function readGuest(
  image: Qcow2Image,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  const length = target.lengthBytes;
  if (lookup(image, offset, length, scratch) && scratch.lengthBytes === length) {
    return readRun(image, scratch, offset, target, options);
  }
  return readRuns(image, offset, target, options);
}

async function readRuns(
  image: Qcow2Image,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): Promise<void> {
  const length = target.lengthBytes;
  const mapping = new Mapping();
  const group = new TaskGroup(MAX_PARALLEL_RUNS);
  try {
    for (let done = 0; done < length && !group.failed; ) {
      const at = offset + done;
      const start = (): void => {
        const part = target.slice(done, done + mapping.lengthBytes);
        done += mapping.lengthBytes;
        group.add(readRun(image, mapping, at, part, options));
      };
      if (lookup(image, at, length - done, mapping)) start();
      else await lookupSlow(image, at, length - done, mapping, start, options?.signal);
      await group.room();
    }
  } catch (error) {
    group.fail(error);
  }
  await group.drain();
}

/** Starts the I/O of one run. The mapping is used before this returns, not after. */
function readRun(
  image: Qcow2Image,
  mapping: Mapping,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  switch (mapping.kind) {
    case ENTRY_KIND.normal:
      return image.readHost(mapping.hostOffset, target, options);
    case ENTRY_KIND.unallocated:
    case ENTRY_KIND.unallocatedHosted:
      return readBacking(image, offset, target, options);
    case ENTRY_KIND.compressed:
      return readCompressed(image, mapping, offset, target, options);
    default:
      target.fill(0);
  }
}

/** What no cluster holds: the backing file, and zeroes where it ends. */
function readBacking(
  image: Qcow2Image,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  const { backing } = image;
  if (backing === undefined || offset >= image.geometry.virtualSize) return target.fill(0);
  if (image.file.debugEvent !== undefined) {
    return andThen(image.event("read_backing_aio"), () =>
      readBackingNow(backing, offset, target, options),
    );
  }
  return readBackingNow(backing, offset, target, options);
}

function readBackingNow(
  backing: BlockChild,
  offset: GuestOffset,
  target: IoVector,
  options?: RequestOptions,
): MaybePromise<void> {
  const inside = backing.lengthBytes - offset;
  if (inside >= target.lengthBytes) return backing.readv(offset, target, options);
  target.fill(0, Math.max(0, inside));
  if (inside > 0) return backing.readv(offset, target.slice(0, inside), options);
}
