/**
 * Reading a header: bytes to a checked Qcow2Header.
 *
 * Above: driver.ts, check, info. Below: extensions.ts, features.ts, header.ts.
 *
 * 1. The rules, their limits and their order are those of QEMU 7.2, so that an image which breaks
 *    several is refused with the same words.
 * 2. Nothing is read that the checked fields do not bound: at most one cluster, 2 MiB.
 * 3. Tables may lie past the end of the file: what is not there reads as zeroes, as in QEMU.
 *
 * Source: the qcow2 specification, "Header".
 */
import type { BlockChild } from "@blocklayer/block-api";
import {
  andThen,
  CorruptImageError,
  hex,
  IoVector,
  isAligned,
  type MaybePromise,
  readU64,
  UnsupportedError,
  viewOf,
} from "@blocklayer/bytes";
import {
  ENTRY_BYTES,
  EXTENDED_SUBCLUSTERS,
  geometryOf,
  MAX_CLUSTER_BITS,
  MAX_L1_BYTES,
  MAX_REFCOUNT_ORDER,
  MAX_REFCOUNT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_CLUSTER_BITS,
  SNAPSHOT_HEADER_BYTES,
} from "../geometry.js";
import {
  backingFormatIn,
  bitmapsExtensionIn,
  copyOf,
  dataFilenameIn,
  decodeText,
  featureNamesIn,
  isKnownExtension,
  splitExtensions,
} from "./extensions.js";
import {
  bitmapsAreConsistent,
  incompatibleFeatureNames,
  refuseUnsupported,
  unknownIncompatible,
} from "./features.js";
import {
  AUTOCLEAR,
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_POSITION,
  EXTENSION,
  type FeatureName,
  hasFeature,
  type HeaderExtension,
  INCOMPATIBLE,
  MAX_BACKING_NAME_BYTES,
  QCOW2_MAGIC,
  type Qcow2Header,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
  V3_MIN_HEADER_BYTES,
} from "./header.js";

/** Read at first; the rest of a longer cluster follows only when there is one. */
const FIRST_READ_BYTES = 65536;

type FixedFields = Omit<
  Qcow2Header,
  | "backingFilenameBytes"
  | "backingFilename"
  | "extensions"
  | "backingFormat"
  | "dataFilename"
  | "featureNames"
  | "unknownExtensions"
>;

/**
 * Reads and checks the header of an image.
 *
 * @param file - the image file; any byte range of it can be read
 * @throws CorruptImageError, UnsupportedError; BlockError of the file
 */
export function readHeader(file: BlockChild): MaybePromise<Qcow2Header> {
  const fileLengthBytes = file.lengthBytes;
  const first = new Uint8Array(Math.min(FIRST_READ_BYTES, fileLengthBytes));
  return andThen(readInto(file, 0, first), () => {
    const wanted = Math.min(firstClusterBytes(first), fileLengthBytes);
    if (wanted <= first.length) return decodeHeader(first, fileLengthBytes);
    const whole = new Uint8Array(wanted);
    whole.set(first);
    const rest = whole.subarray(first.length);
    return andThen(readInto(file, first.length, rest), () => decodeHeader(whole, fileLengthBytes));
  });
}

function readInto(file: BlockChild, offset: number, target: Uint8Array): MaybePromise<void> {
  return target.length === 0 ? undefined : file.readv(offset, IoVector.of(target));
}

/** The cluster size that a header names, or 0 when it is none that we take. */
function firstClusterBytes(bytes: Uint8Array): number {
  const clusterBits = bytes.length < 24 ? 0 : viewOf(bytes).getUint32(20);
  return clusterBits > MAX_CLUSTER_BITS ? 0 : 2 ** clusterBits;
}

/**
 * Decodes and checks a header.
 *
 * @param bytes - the first cluster, or as much of it as the file has
 * @param fileLengthBytes - length of the image file
 * @throws CorruptImageError when the bytes break a rule of the format; UnsupportedError when the
 *   image needs what this version does not have
 */
export function decodeHeader(bytes: Uint8Array, fileLengthBytes: number): Qcow2Header {
  const fields = decodeFields(copyOf(bytes, 0, V3_HEADER_BYTES), bytes);
  const clusterSize = 2 ** fields.clusterBits;
  if (bytes.length < Math.min(clusterSize, fileLengthBytes)) {
    broken("the first cluster is cut off");
  }
  const { backingFileOffset } = fields;
  if (backingFileOffset > clusterSize) broken("Invalid backing file offset");
  const extensionEnd = backingFileOffset === 0 ? clusterSize : backingFileOffset;
  checkCompressionType(fields);
  refuseUnknownFeatures(fields, bytes, extensionEnd);
  checkSubclusters(fields);
  checkRawDataFile(fields);
  checkTables(fields, clusterSize);
  const extensions = splitExtensions(bytes, fields.headerLength, extensionEnd);
  const backing = decodeBackingName(fields, clusterSize, bytes);
  const backingFormat = backingFormatIn(extensions);
  const dataFilename = dataFilenameIn(extensions);
  checkExtensions(fields, extensions, clusterSize);
  refuseUnsupported(fields);
  return {
    ...fields,
    ...backing,
    extensions,
    ...(backingFormat === undefined ? {} : { backingFormat }),
    ...(dataFilename === undefined ? {} : { dataFilename }),
    featureNames: featureNamesIn(extensions),
    unknownExtensions: extensions.filter(({ type }) => !isKnownExtension(type)),
  };
}

function broken(rule: string): never {
  throw new CorruptImageError({ structure: "header", hostOffset: 0, rule });
}

/** The numbers of the header, checked one by one but not yet against each other. */
function decodeFields(head: Uint8Array, bytes: Uint8Array): FixedFields {
  const view = viewOf(head);
  if (view.getUint32(0) !== QCOW2_MAGIC) broken("Image is not in qcow2 format");
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    throw new UnsupportedError(`header: Unsupported qcow2 version ${version}`, { op: "open" });
  }
  const clusterBits = view.getUint32(20);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    broken(`Unsupported cluster size: 2^${clusterBits}`);
  }
  const headerLength = version === 2 ? V2_HEADER_BYTES : view.getUint32(100);
  if (version === 3 && headerLength < V3_MIN_HEADER_BYTES) broken("qcow2 header too short");
  if (headerLength > 2 ** clusterBits) broken("qcow2 header exceeds cluster size");
  const hasType = headerLength > COMPRESSION_TYPE_POSITION;
  return {
    version,
    backingFileOffset: readU64(view, 8, "header: backing_file_offset"),
    backingFileSize: view.getUint32(16),
    clusterBits,
    virtualSize: readU64(view, 24, "header: size"),
    cryptMethod: view.getUint32(32),
    l1Size: view.getUint32(36),
    l1TableOffset: readU64(view, 40, "header: l1_table_offset"),
    refcountTableOffset: readU64(view, 48, "header: refcount_table_offset"),
    refcountTableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotsOffset: readU64(view, 64, "header: snapshots_offset"),
    incompatible: version === 2 ? 0n : view.getBigUint64(72),
    compatible: version === 2 ? 0n : view.getBigUint64(80),
    autoclear: version === 2 ? 0n : view.getBigUint64(88),
    refcountOrder: version === 2 ? 4 : view.getUint32(96),
    headerLength,
    compressionType: hasType ? view.getUint8(COMPRESSION_TYPE_POSITION) : COMPRESSION_TYPE.zlib,
    unknownFields: hasType
      ? copyOf(bytes, COMPRESSION_TYPE_POSITION + 1, headerLength)
      : new Uint8Array(0),
  };
}

function checkCompressionType({ compressionType, incompatible }: FixedFields): void {
  const bitSet = hasFeature(incompatible, INCOMPATIBLE.compressionType);
  if (compressionType > COMPRESSION_TYPE.zstd) {
    const message = `header: unknown compression type: ${compressionType}`;
    throw new UnsupportedError(message, { op: "open" });
  }
  if (compressionType === COMPRESSION_TYPE.zlib && bitSet) {
    broken("Compression type incompatible feature bit must not be set");
  }
  if (compressionType !== COMPRESSION_TYPE.zlib && !bitSet) {
    broken("Compression type incompatible feature bit must be set");
  }
}

function refuseUnknownFeatures(fields: FixedFields, bytes: Uint8Array, extensionEnd: number): void {
  const unknown = unknownIncompatible(fields.incompatible);
  if (unknown === 0n) return;
  let names: FeatureName[] = [];
  try {
    names = featureNamesIn(splitExtensions(bytes, fields.headerLength, extensionEnd));
  } catch (error) {
    // A broken extension area only costs the names: the refusal matters more.
    if (!(error instanceof CorruptImageError)) throw error;
  }
  const list = incompatibleFeatureNames(unknown, names).join(", ");
  throw new UnsupportedError(`header: Unsupported qcow2 feature(s): ${list}`, { op: "open" });
}

function checkSubclusters({ clusterBits, incompatible }: FixedFields): void {
  const extended = hasFeature(incompatible, INCOMPATIBLE.extendedL2);
  if (!extended || clusterBits >= MIN_EXTENDED_CLUSTER_BITS) return;
  broken(`Unsupported subcluster size: ${2 ** clusterBits / EXTENDED_SUBCLUSTERS}`);
}

function checkRawDataFile({ incompatible, autoclear }: FixedFields): void {
  const isRaw = hasFeature(autoclear, AUTOCLEAR.rawDataFile);
  if (!isRaw || hasFeature(incompatible, INCOMPATIBLE.dataFile)) return;
  broken("the data file is said to be raw, and there is none");
}

function checkTables(fields: FixedFields, clusterSize: number): void {
  if (fields.refcountOrder > MAX_REFCOUNT_ORDER) {
    broken("Reference count entry width too large; may not exceed 64 bits");
  }
  if (fields.cryptMethod > 2) broken(`Unsupported encryption method ${fields.cryptMethod}`);
  const refcountBytes = fields.refcountTableClusters * clusterSize;
  if (refcountBytes === 0) broken("Image does not contain a reference count table");
  const checkTable = (name: string, offset: number, bytes: number, maxBytes: number): void => {
    if (bytes > maxBytes) broken(`${name} too large`);
    if (!isAligned(offset, clusterSize) || !Number.isSafeInteger(offset + bytes)) {
      broken(`${name} offset invalid (${hex(offset)})`);
    }
  };
  const { refcountTableOffset, snapshotsOffset, l1TableOffset } = fields;
  const snapshotBytes = fields.snapshotCount * SNAPSHOT_HEADER_BYTES;
  const maxSnapshotBytes = MAX_SNAPSHOTS * SNAPSHOT_HEADER_BYTES;
  const l1Bytes = fields.l1Size * ENTRY_BYTES;
  checkTable("Reference count table", refcountTableOffset, refcountBytes, MAX_REFCOUNT_TABLE_BYTES);
  checkTable("Snapshot table", snapshotsOffset, snapshotBytes, maxSnapshotBytes);
  checkTable("Active L1 table", l1TableOffset, l1Bytes, MAX_L1_BYTES);
  if (fields.l1Size < geometryOf(fields).l1Size) broken("L1 table is too small");
}

function decodeBackingName(
  { backingFileOffset, backingFileSize }: FixedFields,
  clusterSize: number,
  bytes: Uint8Array,
): Pick<Qcow2Header, "backingFilenameBytes" | "backingFilename"> {
  if (backingFileOffset === 0) return {};
  if (backingFileSize > Math.min(MAX_BACKING_NAME_BYTES, clusterSize - backingFileOffset)) {
    broken("Backing file name too long");
  }
  const stored = copyOf(bytes, backingFileOffset, backingFileOffset + backingFileSize);
  const backingFilename = decodeText(stored);
  if (backingFilename === "") return { backingFilenameBytes: stored };
  return { backingFilenameBytes: stored, backingFilename };
}

function checkExtensions(
  fields: FixedFields,
  extensions: readonly HeaderExtension[],
  clusterSize: number,
): void {
  const isLuks = fields.cryptMethod === 2;
  if (!isLuks && extensions.some(({ type }) => type === EXTENSION.encryption)) {
    broken("CRYPTO header extension only expected with LUKS encryption method");
  }
  // Without its autoclear bit the bitmaps extension is stale, and nobody reads it.
  if (bitmapsAreConsistent(fields)) bitmapsExtensionIn(extensions, clusterSize);
}
