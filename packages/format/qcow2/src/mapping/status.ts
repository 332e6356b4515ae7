/**
 * What is behind a guest range, without reading it.
 *
 * Above: driver.ts. Below: lookup.
 *
 * Runs of one kind are merged across slices and tables; a stretch of the disk without L2 tables is one
 * step, whatever its length. Subclusters without data in a cluster that has a host cluster name their place
 * in it, as in QEMU.
 */
import type { BlockStatus, BlockStatusOptions } from "@blocklayer/block-api";
import { assert, type MaybePromise } from "@blocklayer/bytes";
import { ENTRY_KIND, type GuestOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import { lookup, lookupSlow, Mapping } from "./lookup.js";

/** The answer so far. */
type Status = { -readonly [K in keyof BlockStatus]: BlockStatus[K] };

/** The extent that starts at a guest offset. Requires: the range lies on the disk. */
export function statusOf(
  image: Qcow2Image,
  offset: GuestOffset,
  lengthBytes: number,
  options?: BlockStatusOptions,
): MaybePromise<BlockStatus> {
  const mapping = new Mapping();
  let status: Status | undefined;
  for (let done = 0; done < lengthBytes; ) {
    if (!lookup(image, offset + done, lengthBytes - done, mapping)) {
      return statusSlow(image, offset, lengthBytes, mapping, status, options);
    }
    const next = describe(image, offset + done, mapping);
    if (status === undefined) status = next;
    else if (!merge(status, next)) break;
    done = status.lengthBytes;
  }
  return status as Status;
}

async function statusSlow(
  image: Qcow2Image,
  offset: GuestOffset,
  lengthBytes: number,
  mapping: Mapping,
  begun: Status | undefined,
  options?: BlockStatusOptions,
): Promise<BlockStatus> {
  let status = begun;
  for (let done = status?.lengthBytes ?? 0; done < lengthBytes; ) {
    const at = offset + done;
    const left = lengthBytes - done;
    let next: Status | undefined;
    const use = (): void => {
      next = describe(image, at, mapping);
    };
    if (lookup(image, at, left, mapping)) use();
    else await lookupSlow(image, at, left, mapping, use, options?.signal);
    assert(next !== undefined, "a lookup answers");
    if (status === undefined) status = next;
    else if (!merge(status, next)) break;
    done = status.lengthBytes;
  }
  return status as Status;
}

function describe(image: Qcow2Image, offset: GuestOffset, mapping: Mapping): Status {
  const { kind, lengthBytes } = mapping;
  switch (kind) {
    case ENTRY_KIND.normal:
      return {
        lengthBytes,
        allocated: true,
        data: true,
        zero: false,
        compressed: false,
        hostOffset: mapping.hostOffset,
        recurse: true,
      };
    case ENTRY_KIND.compressed:
      return { lengthBytes, allocated: true, data: true, zero: false, compressed: true };
    case ENTRY_KIND.unallocated:
    case ENTRY_KIND.unallocatedHosted: {
      const { backing } = image;
      const covered = backing !== undefined && image.backingCovers(offset);
      const length = covered ? Math.min(lengthBytes, backing.lengthBytes - offset) : lengthBytes;
      return {
        lengthBytes: length,
        allocated: false,
        data: false,
        zero: !covered,
        compressed: false,
        ...(kind === ENTRY_KIND.unallocated ? {} : { hostOffset: mapping.hostOffset }),
      };
    }
    case ENTRY_KIND.zeroAllocated:
      return {
        lengthBytes,
        allocated: true,
        data: false,
        zero: true,
        compressed: false,
        hostOffset: mapping.hostOffset,
      };
    default:
      return { lengthBytes, allocated: true, data: false, zero: true, compressed: false };
  }
}

/** Adds the extent behind, if it goes on in the same way. */
function merge(status: Status, next: Status): boolean {
  if (
    status.allocated !== next.allocated ||
    status.data !== next.data ||
    status.zero !== next.zero ||
    status.compressed !== next.compressed
  ) {
    return false;
  }
  const expected =
    status.hostOffset === undefined ? undefined : status.hostOffset + status.lengthBytes;
  if (next.hostOffset !== expected) return false;
  status.lengthBytes += next.lengthBytes;
  return true;
}
