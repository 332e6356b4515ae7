/**
 * From version 2 to version 3, and back.
 *
 * Above: amend.ts, with the node drained. Below: header/replace.ts; mapping, for what version 2 has no flag for.
 *
 * Downgrade, on disk: everything that reads as zeroes by its flag becomes data or, where no backing file can show
 * through, unallocated; flush, sync; then the header [C6]. A crash before that leaves the version 3 image with the same
 * disk.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { alignUp, IoVector, UnsupportedError } from "@blocklayer/bytes";
import { featureNameExtension, MIN_CLUSTER_BITS_FOR_NAMES } from "../create-options.js";
import { ENTRY_KIND, type GuestOffset } from "../geometry.js";
import {
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_POSITION,
  EXTENSION,
  type HeaderExtension,
  type Qcow2Header,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
} from "../header/header.js";
import { replaceHeader } from "../header/replace.js";
import type { Qcow2Image } from "../image.js";
import { dropPast } from "../mapping/shrink.js";
import { writeGuest } from "../mapping/write.js";
import { mapOnce, unmapClusters } from "../mapping/zero.js";
import { flushLocked } from "../writeback/flush.js";
import type { AmendProgress } from "./refcount-width.js";

/** Zero bytes that are written at a time. */
const ZERO_BUFFER_BYTES = 2 ** 20;

/** Makes a version 3 header of a version 2 one. Holds: the image lock. */
export async function upgrade(image: Qcow2Image): Promise<void> {
  const { header } = image;
  const named = header.clusterBits >= MIN_CLUSTER_BITS_FOR_NAMES;
  const extensions = named
    ? withFeatureNames(header.extensions, featureNameExtension())
    : header.extensions;
  await replaceHeader(image, {
    ...header,
    version: 3,
    headerLength: V3_HEADER_BYTES,
    compressionType: COMPRESSION_TYPE.zlib,
    unknownFields: new Uint8Array(V3_HEADER_BYTES - COMPRESSION_TYPE_POSITION - 1),
    extensions,
  });
}

/** Behind the backing format, in front of what nobody knows, as QEMU has it. */
function withFeatureNames(
  extensions: readonly HeaderExtension[],
  names: HeaderExtension,
): readonly HeaderExtension[] {
  const known = extensions.filter(({ type }) => type === EXTENSION.backingFormat);
  const others = extensions.filter(
    ({ type }) => type !== EXTENSION.backingFormat && type !== EXTENSION.featureNames,
  );
  return [...known, names, ...others];
}

/**
 * Version 2 knows zlib only: an image of another compression can become one while nothing in it is compressed.
 *
 * @throws UnsupportedError
 */
export async function refuseOtherCompression(image: Qcow2Image): Promise<void> {
  if (image.header.compressionType === COMPRESSION_TYPE.zlib) return;
  const { virtualSize } = image.geometry;
  for (let at: GuestOffset = 0; at < virtualSize; ) {
    const { kind, lengthBytes } = await mapOnce(image, at, virtualSize - at);
    if (kind === ENTRY_KIND.compressed) {
      const message =
        "Cannot downgrade an image with zstd compression type and existing compressed clusters";
      throw new UnsupportedError(message, { op: "amend", node: image.nodeName, offset: at });
    }
    at += lengthBytes;
  }
}

/** Makes a version 2 image. Requires: the header was found to have nothing that version 2 has no place for. */
export async function downgrade(
  image: Qcow2Image,
  progress: AmendProgress,
  options: RequestOptions,
): Promise<void> {
  await dropPast(image, image.geometry.virtualSize);
  await expandZeroes(image, progress, options);
  await flushLocked(image);
  await image.sync();
  const lease = await image.lock.acquire();
  try {
    await replaceHeader(image, versionTwo(image.header));
  } finally {
    lease.release();
  }
}

function versionTwo(header: Qcow2Header): Qcow2Header {
  return {
    ...header,
    version: 2,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    headerLength: V2_HEADER_BYTES,
    compressionType: COMPRESSION_TYPE.zlib,
    unknownFields: new Uint8Array(),
    extensions: header.extensions.filter(({ type }) => type !== EXTENSION.featureNames),
    featureNames: [],
  };
}

/** Leaves no entry with the zero flag. */
async function expandZeroes(
  image: Qcow2Image,
  progress: AmendProgress,
  { signal }: RequestOptions,
): Promise<void> {
  const { virtualSize, clusterSize } = image.geometry;
  const hasBacking = image.backing !== undefined || image.header.backingFilename !== undefined;
  const zeroes = new Uint8Array(Math.min(ZERO_BUFFER_BYTES, alignUp(virtualSize, 512)));
  for (let at: GuestOffset = 0; at < virtualSize; ) {
    signal?.throwIfAborted();
    const { kind, lengthBytes } = await mapOnce(image, at, virtualSize - at);
    if (kind === ENTRY_KIND.zeroAllocated || (kind === ENTRY_KIND.zeroPlain && hasBacking)) {
      for (let done = 0; done < lengthBytes; ) {
        const part = zeroes.subarray(0, Math.min(zeroes.length, lengthBytes - done));
        await writeGuest(image, at + done, IoVector.of(part));
        done += part.length;
      }
    } else if (kind === ENTRY_KIND.zeroPlain) {
      await unmapClusters(image, at, alignUp(at + lengthBytes, clusterSize));
    }
    at += lengthBytes;
    progress(at, virtualSize);
  }
}
