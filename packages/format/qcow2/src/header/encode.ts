/**
 * Writing a header: a Qcow2Header to bytes, and to the file.
 *
 * Above: create.ts; the driver, when a feature bit, a table or the backing file changes.
 * Below: extensions.ts.
 *
 * 1. What decode.ts did not understand comes out as it went in: extensions, fields, feature bits.
 * 2. The layout is fields, extensions in their order, the end mark, the backing file name. So the
 *    offset of the name follows from the rest, and the field of that name in the value is ignored.
 * 3. A header that does not fit into the first cluster is refused before a byte is written.
 *
 * Source: the qcow2 specification, "Header", "Header extensions".
 */
import type { BlockChild } from "@blocklayer/block-api";
import {
  alignUp,
  assert,
  BlockError,
  encodeName,
  IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
  viewOf,
  writeU64,
} from "@blocklayer/bytes";
import { extensionBytes } from "./extensions.js";
import {
  COMPRESSION_TYPE_POSITION,
  EXTENSION,
  type HeaderExtension,
  MAX_BACKING_FORMAT_BYTES,
  MAX_BACKING_NAME_BYTES,
  QCOW2_MAGIC,
  type Qcow2Header,
} from "./header.js";

/** Type and length of the end mark. */
const END_MARK_BYTES = 8;

/** Where the parts of a header come to lie. */
export interface HeaderLayout {
  /** Zero when there is no backing file. */
  readonly backingFileOffset: number;
  readonly backingFileSize: number;
  /** All of it, up to the end of the backing file name. */
  readonly lengthBytes: number;
}

/** Computes where encodeHeader puts the backing file name, and how long all is. */
export function layoutOf(header: Qcow2Header): HeaderLayout {
  const end = extensionsEnd(header);
  const backingFileSize = backingNameOf(header).length;
  const backingFileOffset = backingFileSize === 0 ? 0 : end;
  return { backingFileOffset, backingFileSize, lengthBytes: end + backingFileSize };
}

/** Where the extensions end, with their end mark. */
export function extensionsEnd(header: Qcow2Header): number {
  let end = header.headerLength + END_MARK_BYTES;
  for (const extension of header.extensions) end += extensionBytes(extension);
  return end;
}

/**
 * The bytes of a header, from the start of the file to the end of the backing file name.
 *
 * @throws BlockError `ENOSPC` when they do not fit into a cluster; `EINVAL` when the backing file
 *   name is too long
 */
export function encodeHeader(header: Qcow2Header): Uint8Array {
  const layout = layoutOf(header);
  if (layout.backingFileSize > MAX_BACKING_NAME_BYTES) {
    throw new BlockError(
      "EINVAL",
      `header: the backing file name has ${layout.backingFileSize} bytes; ${MAX_BACKING_NAME_BYTES} are allowed`,
    );
  }
  if (layout.lengthBytes > 2 ** header.clusterBits) {
    throw new BlockError(
      "ENOSPC",
      `header: ${layout.lengthBytes} bytes do not fit into a cluster of ${2 ** header.clusterBits}`,
    );
  }
  const bytes = new Uint8Array(layout.lengthBytes);
  encodeFields(bytes, header, layout);
  let at = header.headerLength;
  const view = viewOf(bytes);
  for (const extension of header.extensions) {
    view.setUint32(at, extension.type);
    view.setUint32(at + 4, extension.data.length);
    bytes.set(extension.data, at + 8);
    at += extensionBytes(extension);
  }
  if (layout.backingFileSize > 0) bytes.set(backingNameOf(header), layout.backingFileOffset);
  return bytes;
}

/**
 * Writes a header into its file. Whoever changes a pointer has synced what it points to [C6].
 *
 * The rest of the last sector becomes zeroes; what lies behind it in the cluster means nothing.
 *
 * @throws BlockError as encodeHeader, before anything is written; those of the file
 */
export function writeHeader(file: BlockChild, header: Qcow2Header): MaybePromise<void> {
  const bytes = encodeHeader(header);
  const padded = new Uint8Array(alignUp(bytes.length, SECTOR_SIZE_BYTES));
  padded.set(bytes);
  return file.writev(0, IoVector.of(padded));
}

/**
 * The same header with another backing file.
 *
 * @param filename - as it is to be stored; `undefined`: no backing file
 * @param format - the backing file's format; `undefined`: none is recorded
 * @throws BlockError `EINVAL` when the format's name is too long
 */
export function withBackingFile(
  header: Qcow2Header,
  filename: string | undefined,
  format: string | undefined,
): Qcow2Header {
  const {
    backingFilename: _name,
    backingFilenameBytes: _bytes,
    backingFormat: _f,
    ...rest
  } = header;
  const extensions = header.extensions.filter(({ type }) => type !== EXTENSION.backingFormat);
  if (format !== undefined) extensions.unshift(backingFormatExtension(format));
  const changed: Qcow2Header = {
    ...rest,
    extensions,
    ...(format === undefined ? {} : { backingFormat: format }),
    ...(filename === undefined
      ? {}
      : { backingFilename: filename, backingFilenameBytes: encodeName(filename) }),
  };
  const { backingFileOffset, backingFileSize } = layoutOf(changed);
  return { ...changed, backingFileOffset, backingFileSize };
}

/** The same header with another name for its external data file. */
export function withDataFile(header: Qcow2Header, dataFilename: string): Qcow2Header {
  const named = { type: EXTENSION.dataFile, data: encodeName(dataFilename) };
  const isThere = header.extensions.some(({ type }) => type === EXTENSION.dataFile);
  const extensions = isThere
    ? header.extensions.map((one) => (one.type === EXTENSION.dataFile ? named : one))
    : [named, ...header.extensions];
  return { ...header, extensions, dataFilename };
}

/** The extension that names a backing format. */
function backingFormatExtension(format: string): HeaderExtension {
  const data = encodeName(format);
  if (data.length <= MAX_BACKING_FORMAT_BYTES) return { type: EXTENSION.backingFormat, data };
  throw new BlockError("EINVAL", `header: backing format name '${format}' is too long`);
}

/** The backing file name as stored; empty when there is none. */
export function backingNameOf(header: Qcow2Header): Uint8Array {
  if (header.backingFilenameBytes !== undefined) return header.backingFilenameBytes;
  return encodeName(header.backingFilename ?? "");
}

function encodeFields(bytes: Uint8Array, header: Qcow2Header, layout: HeaderLayout): void {
  const view = viewOf(bytes);
  view.setUint32(0, QCOW2_MAGIC);
  view.setUint32(4, header.version);
  writeU64(view, 8, layout.backingFileOffset);
  view.setUint32(16, layout.backingFileSize);
  view.setUint32(20, header.clusterBits);
  writeU64(view, 24, header.virtualSize);
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Size);
  writeU64(view, 40, header.l1TableOffset);
  writeU64(view, 48, header.refcountTableOffset);
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  writeU64(view, 64, header.snapshotsOffset);
  if (header.version === 2) {
    const features = header.incompatible | header.compatible | header.autoclear;
    assert(features === 0n && header.refcountOrder === 4, "a version 2 header has no features");
    return;
  }
  view.setBigUint64(72, header.incompatible);
  view.setBigUint64(80, header.compatible);
  view.setBigUint64(88, header.autoclear);
  view.setUint32(96, header.refcountOrder);
  view.setUint32(100, header.headerLength);
  if (header.headerLength <= COMPRESSION_TYPE_POSITION) return;
  view.setUint8(COMPRESSION_TYPE_POSITION, header.compressionType);
  bytes.set(header.unknownFields, COMPRESSION_TYPE_POSITION + 1);
}
