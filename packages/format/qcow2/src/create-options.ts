/**
 * What may be asked of a new image: the options, their bounds, and the header that follows.
 *
 * Above: create.ts. Below: geometry.ts, header.
 *
 * 1. Names, defaults, bounds and words are qemu-img's, so that scripts and habits carry over. The
 *    order of the schema is the order in which qemu-img prints options.
 * 2. What this version cannot keep up later (encryption, …) it does not create.
 */
import {
  booleanOption,
  numberOption,
  type OptionSchema,
  type OptionValues,
  type PreallocationMode,
  stringOption,
} from "@blocklayer/block-api";
import {
  alignUp,
  BlockError,
  exactLog2,
  isPowerOfTwo,
  SECTOR_SIZE_BYTES,
  UnsupportedError,
  encodeName,
} from "@blocklayer/bytes";
import {
  ENTRY_BYTES,
  geometryOf,
  MAX_CLUSTER_BITS,
  MAX_L1_BYTES,
  MAX_REFCOUNT_ORDER,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_CLUSTER_BITS,
} from "./geometry.js";
import { withBackingFile } from "./header/encode.js";
import { encodeFeatureName } from "./header/extensions.js";
import {
  AUTOCLEAR,
  COMPATIBLE,
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_POSITION,
  EXTENSION,
  type FeatureName,
  type HeaderExtension,
  INCOMPATIBLE,
  MAX_BACKING_NAME_BYTES,
  type Qcow2Header,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
} from "./header/header.js";

/** Smaller clusters leave no room for a table of feature names: QEMU writes none there. */
export const MIN_CLUSTER_BITS_FOR_NAMES = 13;
const PREALLOCATIONS: readonly PreallocationMode[] = ["off", "metadata", "falloc", "full"];
const DEFAULT_CLUSTER_BYTES = 65536;
const DEFAULT_REFCOUNT_BITS = 16;

/** The features that have names in a new image, in QEMU's order. */
export const FEATURE_NAMES: readonly FeatureName[] = [
  { set: "incompatible", bit: 0, name: "dirty bit" },
  { set: "incompatible", bit: 1, name: "corrupt bit" },
  { set: "incompatible", bit: 2, name: "external data file" },
  { set: "incompatible", bit: 3, name: "compression type" },
  { set: "incompatible", bit: 4, name: "extended L2 entries" },
  { set: "compatible", bit: 0, name: "lazy refcounts" },
  { set: "autoclear", bit: 0, name: "bitmaps" },
  { set: "autoclear", bit: 1, name: "raw external data" },
];

/** The options of a new image. */
export const createOptions: OptionSchema = {
  encryption: { type: "boolean", help: "Encrypt with AES (not supported)" },
  "encrypt.format": { type: "string", help: "Encryption format (not supported)" },
  cluster_size: {
    type: "size",
    help: "Size of a cluster: a power of two from 512 to 2M",
    default: DEFAULT_CLUSTER_BYTES,
  },
  extended_l2: {
    type: "boolean",
    help: "32 subclusters in each cluster (version 3, clusters of 16k and more)",
    default: false,
  },
  preallocation: {
    type: "choice",
    choices: PREALLOCATIONS,
    help: "Space to set aside now: none, places, reserved by the file system, or written",
  },
  compression_type: {
    type: "choice",
    choices: ["zlib", "zstd"],
    help: "Method for compressed clusters",
    default: "zlib",
  },
  size: { type: "size", help: "Size of the virtual disk" },
  compat: {
    type: "choice",
    choices: ["0.10", "1.1", "v2", "v3"],
    help: "Version of the format: v2 (0.10) or v3 (1.1); v3 when absent",
  },
  backing_file: { type: "string", help: "Name of a base image" },
  backing_fmt: { type: "string", help: "Format of the base image" },
  data_file: { type: "string", help: "Name of an external data file" },
  data_file_raw: { type: "boolean", help: "The data file must stay valid as a raw image" },
  lazy_refcounts: {
    type: "boolean",
    help: "Postpone refcount updates, and repair after a crash",
    default: false,
  },
  refcount_bits: {
    type: "integer",
    help: "Width of a refcount in bits: a power of two up to 64",
    default: DEFAULT_REFCOUNT_BITS,
  },
};

/** Options that were checked together. */
export interface CreateRequest {
  readonly version: 2 | 3;
  /** A multiple of 512. */
  readonly virtualSize: number;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  /** A value of COMPRESSION_TYPE. */
  readonly compressionType: number;
  readonly preallocation: PreallocationMode;
  readonly lazyRefcounts: boolean;
  /** The incompatible features that follow from the options. */
  readonly incompatible: bigint;
  readonly backingFilename?: string;
  readonly backingFormat?: string;
  readonly dataFilename?: string;
  readonly dataFileRaw?: boolean;
}

/** Where the tables of a new image lie. */
export type TablePlaces = Pick<
  Qcow2Header,
  "l1Size" | "l1TableOffset" | "refcountTableOffset" | "refcountTableClusters"
>;

/**
 * Checks the options against each other.
 *
 * @param options - checked against createOptions
 * @throws BlockError `EINVAL`, `EFBIG`; UnsupportedError
 */
export function requestOf(options: OptionValues): CreateRequest {
  const compat = stringOption(options, "compat") ?? "v3";
  const version = compat === "0.10" || compat === "v2" ? 2 : 3;
  const clusterBits = clusterBitsOf(options);
  refuseUnsupportedOptions(options);
  const extendedL2 = extendedL2Of(options, version, clusterBits);
  const refcountOrder = refcountOrderOf(options, version);
  const backing = backingOf(options);
  const dataFile = dataFileOf(options, version);
  const compressionType = compressionTypeOf(options, version);
  const virtualSize = alignUp(numberOption(options, "size"), SECTOR_SIZE_BYTES);
  const preallocation = preallocationOf(options);
  const lazyRefcounts = lazyRefcountsOf(options, version);
  const incompatible =
    extendedL2 |
    (dataFile.dataFilename === undefined ? 0n : INCOMPATIBLE.dataFile) |
    (compressionType === COMPRESSION_TYPE.zlib ? 0n : INCOMPATIBLE.compressionType);
  const sizes = { version, virtualSize, clusterBits, refcountOrder, incompatible } as const;
  const request = { ...sizes, compressionType, preallocation, lazyRefcounts };
  const tooLarge = geometryOf(request).l1Size > MAX_L1_BYTES / ENTRY_BYTES;
  if (tooLarge || !Number.isSafeInteger(virtualSize)) {
    throw new BlockError(
      "EFBIG",
      "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    );
  }
  return { ...request, ...backing, ...dataFile };
}

function invalid(message: string): never {
  throw new BlockError("EINVAL", message, { op: "create" });
}

/** Binary logarithm of the cluster size. */
export function clusterBitsOf(options: OptionValues): number {
  const size = (options["cluster_size"] ?? DEFAULT_CLUSTER_BYTES) as number;
  const bits = isPowerOfTwo(size) ? exactLog2(size) : 0;
  if (bits >= MIN_CLUSTER_BITS && bits <= MAX_CLUSTER_BITS) return bits;
  return invalid("Cluster size must be a power of two between 512 and 2048k");
}

/** The feature bit of extended L2 entries, or 0. */
function extendedL2Of(options: OptionValues, version: 2 | 3, clusterBits: number): bigint {
  if (!booleanOption(options, "extended_l2")) return 0n;
  const only = "Extended L2 entries are only supported with";
  if (version === 2) {
    invalid(`${only} compatibility level 1.1 and above (use version=v3 or greater)`);
  }
  if (clusterBits < MIN_EXTENDED_CLUSTER_BITS) {
    invalid(`${only} cluster sizes of at least ${2 ** MIN_EXTENDED_CLUSTER_BITS} bytes`);
  }
  return INCOMPATIBLE.extendedL2;
}

/** Binary logarithm of the refcount width. */
export function refcountOrderOf(options: OptionValues, version: 2 | 3): number {
  const bits = (options["refcount_bits"] ?? DEFAULT_REFCOUNT_BITS) as number;
  if (!isPowerOfTwo(bits) || bits > 2 ** MAX_REFCOUNT_ORDER) {
    invalid("Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (version === 2 && bits !== DEFAULT_REFCOUNT_BITS) {
    invalid(
      "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
    );
  }
  return exactLog2(bits);
}

function lazyRefcountsOf(options: OptionValues, version: 2 | 3): boolean {
  const lazy = booleanOption(options, "lazy_refcounts");
  if (!lazy || version === 3) return lazy;
  const level = "compatibility level 1.1 and above (use version=v3 or greater)";
  return invalid(`Lazy refcounts only supported with ${level}`);
}

function compressionTypeOf(options: OptionValues, version: 2 | 3): number {
  if (stringOption(options, "compression_type") !== "zstd") return COMPRESSION_TYPE.zlib;
  if (version === 3) return COMPRESSION_TYPE.zstd;
  return invalid(
    "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  );
}

function refuseUnsupportedOptions(options: OptionValues): void {
  const format = stringOption(options, "encrypt.format");
  const unsupported: string[] = [];
  if (booleanOption(options, "encryption") || format !== undefined) unsupported.push("encryption");
  if (unsupported.length === 0) return;
  const message = `creating an image with ${unsupported.join(", ")} is not supported yet`;
  throw new UnsupportedError(message, { op: "create" });
}

function preallocationOf(options: OptionValues): PreallocationMode {
  const word = stringOption(options, "preallocation") ?? "off";
  const mode = PREALLOCATIONS.find((one) => one === word) ?? "off";
  const hidesBacking = mode !== "off" && !booleanOption(options, "extended_l2");
  if (hidesBacking && stringOption(options, "backing_file") !== undefined) {
    invalid(
      "Backing file and preallocation can only be used at the same time if extended_l2 is on",
    );
  }
  return mode;
}

function backingOf(
  options: OptionValues,
): Pick<CreateRequest, "backingFilename" | "backingFormat"> {
  const backingFilename = stringOption(options, "backing_file");
  const backingFormat = stringOption(options, "backing_fmt");
  if (backingFilename === undefined) {
    return backingFormat === undefined
      ? {}
      : invalid("Backing format cannot be used without backing file");
  }
  if (backingFilename === "") invalid("Expected backing file name, got empty string");
  // C programs, QEMU among them, would read another name.
  if (backingFilename.includes("\0")) invalid("The backing file name holds a zero byte");
  if (encodeName(backingFilename).length > MAX_BACKING_NAME_BYTES) {
    invalid(`Backing file name is longer than ${MAX_BACKING_NAME_BYTES} bytes`);
  }
  return { backingFilename, ...(backingFormat === undefined ? {} : { backingFormat }) };
}

function dataFileOf(
  options: OptionValues,
  version: 2 | 3,
): Pick<CreateRequest, "dataFilename" | "dataFileRaw"> {
  const dataFilename = stringOption(options, "data_file");
  const dataFileRaw = booleanOption(options, "data_file_raw");
  if (dataFileRaw && stringOption(options, "backing_file") !== undefined) {
    invalid("Backing file and data-file-raw cannot be used at the same time");
  }
  if (dataFilename === undefined) {
    return dataFileRaw ? invalid("data-file-raw requires data-file") : {};
  }
  if (version < 3) {
    const level = "compatibility level 1.1 and above (use version=v3 or greater)";
    invalid(`External data files are only supported with ${level}`);
  }
  if (dataFilename === "") invalid("Expected data file name, got empty string");
  if (dataFilename.includes("\0")) invalid("The data file name holds a zero byte");
  return { dataFilename, dataFileRaw };
}

/** The header of a new image. */
export function newHeader(request: CreateRequest, places: TablePlaces): Qcow2Header {
  const { version, clusterBits, compressionType } = request;
  const named = version === 3 && clusterBits >= MIN_CLUSTER_BITS_FOR_NAMES;
  const { dataFilename } = request;
  const extensions = [
    ...(dataFilename === undefined ? [] : [dataFileExtension(dataFilename)]),
    ...(named ? [featureNameExtension()] : []),
  ];
  const bare: Qcow2Header = {
    version,
    backingFileOffset: 0,
    backingFileSize: 0,
    clusterBits,
    virtualSize: request.virtualSize,
    cryptMethod: 0,
    ...places,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: request.incompatible,
    compatible: request.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0n,
    autoclear: request.dataFileRaw === true ? AUTOCLEAR.rawDataFile : 0n,
    refcountOrder: request.refcountOrder,
    headerLength: version === 2 ? V2_HEADER_BYTES : V3_HEADER_BYTES,
    compressionType,
    unknownFields: new Uint8Array(
      version === 2 ? 0 : V3_HEADER_BYTES - COMPRESSION_TYPE_POSITION - 1,
    ),
    extensions,
    ...(dataFilename === undefined ? {} : { dataFilename }),
    featureNames: named ? FEATURE_NAMES : [],
    unknownExtensions: [],
  };
  return withBackingFile(bare, request.backingFilename, request.backingFormat);
}

function dataFileExtension(name: string): HeaderExtension {
  return { type: EXTENSION.dataFile, data: encodeName(name) };
}

/** The table of feature names of a new image. */
export function featureNameExtension(): HeaderExtension {
  const rows = FEATURE_NAMES.map(encodeFeatureName);
  const data = new Uint8Array(rows.reduce((sum, row) => sum + row.length, 0));
  let at = 0;
  for (const row of rows) {
    data.set(row, at);
    at += row.length;
  }
  return { type: EXTENSION.featureNames, data };
}
