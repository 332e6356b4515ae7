/**
 * Opening an image: header, tables, backing file, then a driver.
 *
 * Above: driver.ts (the definition), users without a graph. Below: header/decode, image.ts.
 *
 * 1. Opening reads and never writes, also for an image that is opened for writing [C15]; but a dirty one is repaired
 *    then, before anything else is read of it [C8].
 * 2. Memory is bounded by what the header may ask for: an L1 table of 32 MiB, a refcount table of 8 MiB;
 *    the latter is read only for images that are opened for writing.
 */
import {
  type BackingReference,
  type BlockChild,
  type OptionValues,
  parseOptions,
  type SnapshotSelector,
} from "@blocklayer/block-api";
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import { Qcow2Driver } from "./driver.js";
import { geometryOf } from "./geometry.js";
import { readHeader } from "./header/decode.js";
import { hasFeature, INCOMPATIBLE, type Qcow2Header } from "./header/header.js";
import { Qcow2Image } from "./image.js";
import type { L1Table } from "./mapping/l1-table.js";
import {
  cacheOptionsOf,
  type CodecFactory,
  codecMakerOf,
  compressedCacheModeOf,
  discardPolicyOf,
  lazyRefcountsOf,
  openOptions,
  overlapKindsOf,
  refuseMissingOptions,
} from "./open-options.js";
import { readTables } from "./read-tables.js";
import { readyForWriting } from "./repair/dirty-image.js";
import { snapshotOptionOf, viewSnapshot } from "./snapshot/open-snapshot.js";
import { planCaches } from "./writeback/l2-cache.js";

/** What opening needs. */
export interface OpenParts {
  readonly nodeName: string;
  readonly file: BlockChild;
  readonly readOnly: boolean;
  /** Opened to be checked or repaired: see `OpenContext`. */
  readonly forCheck?: boolean;
  /** Checked against `openOptions`, defaults filled in. */
  readonly options: OptionValues;
  /** The backing file that the user gave. It counts whatever the image names. */
  readonly backing: BlockChild | undefined;
  /** The external data file that the user gave. */
  readonly dataFile: BlockChild | undefined;
  /** Asked when the image has an external data file and the user gave none. */
  readonly openDataFile: ((reference: BackingReference) => MaybePromise<BlockChild>) | undefined;
  /** Makes the codec of compressed clusters when one is first met. */
  readonly createCodec?: CodecFactory | undefined;
  /** Asked when the image names a backing file and the user gave none. */
  readonly openBacking: (reference: BackingReference) => MaybePromise<BlockChild | undefined>;
}

/** An image's files, all open, and how it is opened. */
export type ImageFiles = Pick<
  OpenParts,
  "nodeName" | "file" | "backing" | "dataFile" | "readOnly" | "options" | "createCodec"
> & {
  /** The header is that of this snapshot's view. */
  readonly snapshot?: SnapshotSelector | undefined;
  /** The L1 table of the view; absent: the one that the header names. */
  readonly l1?: L1Table | undefined;
};

/** How to open an image without a graph. */
export interface OpenQcow2Options {
  /** The image file: `directChild(openMemory(…))`, say. */
  readonly file: BlockChild;
  /**
   * The backing file, already open; it is used also for an image that names none. Absent: what the image does not
   * hold reads as zeroes.
   */
  readonly backing?: BlockChild;
  /** The external data file of an image that has one: its guest data. */
  readonly dataFile?: BlockChild;
  readonly readOnly?: boolean;
  /** Opened to be checked or repaired: a corrupt image may be opened for writing, a dirty one stays dirty. */
  readonly forCheck?: boolean;
  /** As for QEMU's driver: `{ "l2-cache-size": "1M" }`. */
  readonly options?: Readonly<Record<string, unknown>>;
  readonly nodeName?: string;
  /** Makes the codec of compressed clusters; by default this platform's fastest. */
  readonly createCodec?: CodecFactory;
}

/**
 * Opens an image without a graph.
 *
 * @throws CorruptImageError, UnsupportedError; BlockError of the file, `EACCES` for a corrupt image that
 *   is to be written
 * @example
 * const disk = await openQcow2({ file: directChild(openMemory({ bytes })), readOnly: true });
 * const sector = new Uint8Array(512);
 * await disk.readv(0, IoVector.of(sector));
 */
export function openQcow2(given: OpenQcow2Options): Promise<Qcow2Driver> {
  return openDriver({
    nodeName: given.nodeName ?? "qcow2",
    file: given.file,
    readOnly: given.readOnly === true,
    forCheck: given.forCheck === true,
    options: parseOptions(openOptions, given.options ?? {}, "qcow2"),
    backing: given.backing,
    dataFile: given.dataFile,
    openDataFile: undefined,
    createCodec: given.createCodec,
    openBacking: () => undefined,
  });
}

/** Opens an image. */
export async function openDriver(parts: OpenParts): Promise<Qcow2Driver> {
  const { file, options, readOnly, nodeName } = parts;
  refuseMissingOptions(options);
  const snapshot = snapshotOptionOf(options);
  const found = await readHeader(file);
  overlapKindsOf(options);
  lazyRefcountsOf(options, found);
  const stored =
    readOnly || parts.forCheck === true ? found : await readyForWriting(file, found, nodeName);
  const view =
    snapshot === undefined ? undefined : await viewSnapshot(file, stored, snapshot, readOnly);
  const header = view?.header ?? stored;
  const dataFile = await dataFileOf(header, parts);
  const backing = parts.backing ?? (await openBackingOf(header, parts.openBacking));
  return new Qcow2Driver(
    await openImage(header, { ...parts, dataFile, backing, snapshot, l1: view?.l1 }),
  );
}

/** Opens an image whose header was read, and whose other files are open. */
export async function openImage(header: Qcow2Header, parts: ImageFiles): Promise<Qcow2Image> {
  const { file, options, readOnly, nodeName, snapshot, l1 } = parts;
  const geometry = geometryOf(header);
  const cacheSizes = planCaches(geometry, cacheOptionsOf(options));
  const makeCodec = codecMakerOf(options, header, parts.createCodec);
  const tables = await readTables(file, header, readOnly);
  return new Qcow2Image({
    nodeName,
    file,
    backing: parts.backing,
    dataFile: parts.dataFile,
    readOnly,
    header,
    ...tables,
    ...(l1 === undefined ? {} : { l1 }),
    snapshot,
    cacheSizes,
    overlapKinds: overlapKindsOf(options),
    lazyRefcounts: lazyRefcountsOf(options, header),
    discardPolicy: discardPolicyOf(options),
    compressedWriteCache: compressedCacheModeOf(options),
    makeCodec,
  });
}

/** @throws BlockError `EINVAL` when image and user disagree about whether there is one */
async function dataFileOf(header: Qcow2Header, parts: OpenParts): Promise<BlockChild | undefined> {
  const { dataFile, nodeName, openDataFile } = parts;
  const details = { op: "open", node: nodeName };
  if (!hasFeature(header.incompatible, INCOMPATIBLE.dataFile)) {
    if (dataFile === undefined) return undefined;
    const message = "'data-file' can only be set for images with an external data file";
    throw new BlockError("EINVAL", message, details);
  }
  if (dataFile !== undefined) return dataFile;
  if (header.dataFilename === undefined || openDataFile === undefined) {
    throw new BlockError("EINVAL", "'data-file' is required for this image", details);
  }
  return await openDataFile({ filename: header.dataFilename });
}

async function openBackingOf(
  header: Qcow2Header,
  openBacking: OpenParts["openBacking"],
): Promise<BlockChild | undefined> {
  const { backingFilename, backingFormat } = header;
  if (backingFilename === undefined || backingFilename === "") return undefined;
  return openBacking(
    backingFormat === undefined
      ? { filename: backingFilename }
      : { filename: backingFilename, format: backingFormat },
  );
}
