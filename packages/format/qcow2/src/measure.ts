/**
 * How long the file of a new image becomes, before there is one: qemu-img's `measure`.
 *
 * Above: the driver definition, and through it the measure service. Below: create-options.ts, bitmap/directory.ts.
 *
 * 1. Options that this version does not create with (extended L2 entries, preallocation, zstd, …) are measured all
 *    the same: the answer is about the format.
 * 2. The metadata is that of the whole disk, as if every cluster had its place: an image that is filled later does
 *    not outgrow what was measured.
 * 3. With a backing file, or with preallocated data, every cluster of a source counts as data.
 * 4. Sums stay exact: all are multiples of a cluster, and below 2^62.
 *
 * Source: the qcow2 specification; behaviour of qemu-img 7.2, watched from outside.
 */
import type {
  DiskRange,
  MeasureContext,
  MeasureResult,
  OptionValues,
  StoredBitmap,
} from "@blocklayer/block-api";
import { booleanOption, numberOption, stringOption } from "@blocklayer/block-api";
import {
  alignDown,
  alignUp,
  BlockError,
  divideRoundUp,
  UnsupportedError,
  encodeName,
} from "@blocklayer/bytes";
import { directoryEntryBytes } from "./bitmap/directory.js";
import { clusterBitsOf, refcountOrderOf } from "./create-options.js";
import { ENTRY_BYTES, MAX_L1_BYTES } from "./geometry.js";

/** With subclusters an L2 entry has a bitmap beside it. */
const EXTENDED_L2_ENTRY_BYTES = 16;
/** A subcluster is a 32nd of a cluster, and no smaller than a sector. */
const MIN_EXTENDED_CLUSTER_BYTES = 16384;

/** What of the options decides the length. */
interface MeasuredImage {
  readonly version: 2 | 3;
  /** A whole number of clusters. */
  readonly diskBytes: number;
  readonly clusterSize: number;
  readonly l2EntryBytes: number;
  readonly refcountBits: number;
  readonly countsEverything: boolean;
  readonly isPreallocated: boolean;
}

/**
 * Measures an image.
 *
 * @throws BlockError `EINVAL`, `EFBIG`; UnsupportedError for LUKS, whose header has its own length; what the source's
 *   data throws
 */
export async function measureQcow2(context: MeasureContext): Promise<MeasureResult> {
  const image = imageOf(context.options);
  const { source } = context;
  const metadataBytes = metadataBytesOf(image);
  const fullyAllocatedBytes = metadataBytes + image.diskBytes;
  const result = { requiredBytes: fullyAllocatedBytes, fullyAllocatedBytes };
  if (source === undefined) {
    return image.isPreallocated ? result : { ...result, requiredBytes: metadataBytes };
  }
  const hasBitmaps = source.bitmaps !== undefined && image.version >= 3;
  const bitmaps = hasBitmaps
    ? { bitmapsBytes: bitmapsBytesOf(image, source.bitmaps, context.options) }
    : {};
  if (image.countsEverything) return { ...result, ...bitmaps };
  const dataBytes = await touchedBytes(source.data, image.clusterSize);
  return { ...result, ...bitmaps, requiredBytes: metadataBytes + dataBytes };
}

function imageOf(options: OptionValues): MeasuredImage {
  if (stringOption(options, "encrypt.format") !== undefined) {
    throw new UnsupportedError("measuring an encrypted image is not supported", { op: "measure" });
  }
  const clusterSize = 2 ** clusterBitsOf(options);
  const compat = stringOption(options, "compat") ?? "v3";
  const version = compat === "0.10" || compat === "v2" ? 2 : 3;
  const isExtended = booleanOption(options, "extended_l2");
  if (isExtended && clusterSize < MIN_EXTENDED_CLUSTER_BYTES) {
    const message = `Extended L2 entries are only supported with cluster sizes of at least ${MIN_EXTENDED_CLUSTER_BYTES} bytes`;
    throw new BlockError("EINVAL", message, { op: "measure" });
  }
  const refcountBits = 2 ** refcountOrderOf(options, version);
  const preallocation = stringOption(options, "preallocation");
  const isPreallocated = preallocation === "falloc" || preallocation === "full";
  return {
    version,
    diskBytes: alignUp(numberOption(options, "size"), clusterSize),
    clusterSize,
    l2EntryBytes: isExtended ? EXTENDED_L2_ENTRY_BYTES : ENTRY_BYTES,
    refcountBits,
    isPreallocated,
    countsEverything: isPreallocated || stringOption(options, "backing_file") !== undefined,
  };
}

/** Header, L1 table, every L2 table, and the refcounts of all that. */
function metadataBytesOf(image: MeasuredImage): number {
  const { diskBytes, clusterSize, l2EntryBytes } = image;
  const dataClusters = diskBytes / clusterSize;
  const l2Tables = divideRoundUp(dataClusters * l2EntryBytes, clusterSize);
  if (l2Tables * ENTRY_BYTES > MAX_L1_BYTES) {
    const message = "The image size is too large (try using a larger cluster size)";
    throw new BlockError("EFBIG", message, { op: "measure" });
  }
  const l1Clusters = divideRoundUp(l2Tables * ENTRY_BYTES, clusterSize);
  const counted = 1 + l1Clusters + l2Tables;
  return (counted + refcountClusters(image, counted + dataClusters)) * clusterSize;
}

/** Refcount blocks and table for so many clusters, and for themselves: the least that is enough. */
function refcountClusters(image: MeasuredImage, countedClusters: number): number {
  const { clusterSize, refcountBits } = image;
  const blockEntries = (clusterSize * 8) / refcountBits;
  const tableEntries = clusterSize / ENTRY_BYTES;
  let clusters = 0;
  for (;;) {
    const blocks = divideRoundUp(countedClusters + clusters, blockEntries);
    const needed = blocks + divideRoundUp(blocks, tableEntries);
    // Ends soon: a round adds less than a sixtieth of what the round before it added.
    if (needed <= clusters) return clusters;
    clusters = needed;
  }
}

/** The new image's clusters that hold some of the data. Ranges are ascending: two may share a cluster. */
async function touchedBytes(
  ranges: AsyncIterable<DiskRange> | Iterable<DiskRange>,
  clusterSize: number,
): Promise<number> {
  let bytes = 0;
  let countedTo = 0;
  for await (const { offset, lengthBytes } of ranges) {
    const start = Math.max(countedTo, alignDown(offset, clusterSize));
    const end = alignUp(offset + lengthBytes, clusterSize);
    if (end <= start) continue;
    bytes += end - start;
    countedTo = end;
  }
  return bytes;
}

/** A directory, and for each bitmap a table and its bits: nothing when there is none. */
function bitmapsBytesOf(
  { clusterSize }: MeasuredImage,
  bitmaps: readonly StoredBitmap[],
  options: OptionValues,
): number {
  if (bitmaps.length === 0) return 0;
  const lengthBytes = numberOption(options, "size");
  let directoryBytes = 0;
  let clusters = 0;
  for (const { name, granularityBytes } of bitmaps) {
    const bits = divideRoundUp(lengthBytes, granularityBytes);
    const bitClusters = divideRoundUp(divideRoundUp(bits, 8), clusterSize);
    clusters += bitClusters + divideRoundUp(bitClusters * ENTRY_BYTES, clusterSize);
    directoryBytes += directoryEntryBytes(encodeName(name).length);
  }
  return (clusters + divideRoundUp(directoryBytes, clusterSize)) * clusterSize;
}
