/**
 * What `info` says of an image: its header and its snapshots in qemu-img's words.
 *
 * Above: the driver's `formatInfo`. Below: header, snapshot/table.
 *
 * A snapshot table that cannot be read in full is an error, as it is for qemu-img: half a list would hide it. The disk
 * itself opens and reads all the same.
 */
import { decodeName } from "@blocklayer/bytes";
import type { BlockChild, FormatInfo, StoredBitmap } from "@blocklayer/block-api";
import type { MaybePromise } from "@blocklayer/bytes";
import {
  COMPATIBLE,
  COMPRESSION_TYPE,
  hasFeature,
  hasRawDataFile,
  INCOMPATIBLE,
  type Qcow2Header,
} from "./header/header.js";
import { readBitmaps } from "./bitmap/bitmaps.js";
import { BITMAP_FLAG, type BitmapEntry } from "./bitmap/directory.js";
import { geometryOf } from "./geometry.js";
import { type BitmapsExtension, bitmapsExtensionIn } from "./header/extensions.js";
import { bitmapsAreConsistent } from "./header/features.js";
import { loadSnapshotTable } from "./snapshot/stored-table.js";
import type { SnapshotEntry } from "./snapshot/table.js";

const NANOSECONDS = 1_000_000_000n;

/**
 * The facts of a header, named and ordered as in `qemu-img info --output=json`.
 *
 * @returns `data` has for version 2: `compat`, `compression-type`, `refcount-bits`; for version 3
 *   also `lazy-refcounts`, `corrupt`, `extended-l2`
 */
export function formatInfoOf(
  header: Qcow2Header,
  bitmaps: readonly BitmapEntry[] = [],
): FormatInfo {
  const { incompatible, backingFilename, backingFormat } = header;
  const isCorrupt = hasFeature(incompatible, INCOMPATIBLE.corrupt);
  const compressionType = header.compressionType === COMPRESSION_TYPE.zstd ? "zstd" : "zlib";
  const refcountBits = 2 ** header.refcountOrder;
  return {
    type: "qcow2",
    clusterSizeBytes: 2 ** header.clusterBits,
    vmStateOffset: geometryOf(header).vmStateOffset,
    dirty: hasFeature(incompatible, INCOMPATIBLE.dirty),
    corrupt: isCorrupt,
    ...(backingFilename === undefined ? {} : { backingFilename }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    ...(header.version === 2 ? {} : { bitmaps: bitmaps.map(storedBitmap) }),
    data:
      header.version === 2
        ? {
            compat: "0.10",
            "compression-type": compressionType,
            "refcount-bits": refcountBits,
          }
        : {
            compat: "1.1",
            "compression-type": compressionType,
            "lazy-refcounts": hasFeature(header.compatible, COMPATIBLE.lazyRefcounts),
            ...(bitmaps.length === 0 ? {} : { bitmaps: bitmaps.map(bitmapRow) }),
            "refcount-bits": refcountBits,
            ...dataFileRows(header),
            corrupt: isCorrupt,
            "extended-l2": hasFeature(incompatible, INCOMPATIBLE.extendedL2),
          },
  };
}

function bitmapRow(entry: BitmapEntry): Readonly<Record<string, unknown>> {
  const { flags, name, granularityBytes } = storedBitmap(entry);
  return { flags, name, granularity: granularityBytes };
}

function storedBitmap({ flags, nameBytes, granularityBits }: BitmapEntry): StoredBitmap {
  return {
    flags: [
      ...((flags & BITMAP_FLAG.inUse) === 0 ? [] : (["in-use"] as const)),
      ...((flags & BITMAP_FLAG.auto) === 0 ? [] : (["auto"] as const)),
    ],
    name: decodeName(nameBytes),
    granularityBytes: 2 ** granularityBits,
  };
}

function dataFileRows(header: Qcow2Header): Readonly<Record<string, string | boolean>> {
  const { dataFilename, incompatible } = header;
  if (!hasFeature(incompatible, INCOMPATIBLE.dataFile)) return {};
  return {
    ...(dataFilename === undefined ? {} : { "data-file": dataFilename }),
    "data-file-raw": hasRawDataFile(header),
  };
}

/**
 * The facts of an image: those of its header, its bitmaps and its snapshots. Answers without a promise when there
 * are none of the two.
 *
 * @throws CorruptImageError when an entry of the snapshot table or of the bitmap directory breaks a rule; BlockError
 *   of the file
 */
export function imageInfoOf(file: BlockChild, header: Qcow2Header): MaybePromise<FormatInfo> {
  const geometry = geometryOf(header);
  const bitmaps = bitmapsAreConsistent(header)
    ? bitmapsExtensionIn(header.extensions, geometry.clusterSize)
    : undefined;
  if (header.snapshotCount === 0 && bitmaps === undefined) return formatInfoOf(header);
  return longInfoOf(file, header, bitmaps);
}

async function longInfoOf(
  file: BlockChild,
  header: Qcow2Header,
  extension: BitmapsExtension | undefined,
): Promise<FormatInfo> {
  const parts = { file, geometry: geometryOf(header), nodeName: file.nodeName };
  const bitmaps = await readBitmaps(parts, extension);
  const info = formatInfoOf(
    header,
    bitmaps.flatMap(({ stored }) => stored ?? []),
  );
  return header.snapshotCount === 0 ? info : await withSnapshots(info, file, header);
}

async function withSnapshots(
  info: FormatInfo,
  file: BlockChild,
  header: Qcow2Header,
): Promise<FormatInfo> {
  const { entries } = await loadSnapshotTable(file, header);
  return { ...info, snapshots: entries.map(rowOf) };
}

/** One snapshot, with the names of `qemu-img info --output=json`. */
function rowOf(entry: SnapshotEntry): Readonly<Record<string, number | string>> {
  const { id, name, vmClockNanoseconds, icount } = entry;
  return {
    id,
    name,
    "vm-state-size": Number(entry.vmStateBytes),
    "date-sec": entry.dateSeconds,
    "date-nsec": entry.dateNanoseconds,
    "vm-clock-sec": Number(vmClockNanoseconds / NANOSECONDS),
    "vm-clock-nsec": Number(vmClockNanoseconds % NANOSECONDS),
    ...(icount === undefined ? {} : { icount: Number(icount) }),
  };
}
