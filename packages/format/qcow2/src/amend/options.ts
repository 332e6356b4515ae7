/**
 * What may be changed of an image that is there: the options, and whether they go together with it.
 *
 * Above: amend.ts, the driver definition. Below: header, create-options.
 *
 * 1. Names and words are qemu-img's. What it refuses is refused here, and more: see `requestOf`.
 */
import {
  booleanOption,
  type OptionSchema,
  type OptionValues,
  stringOption,
} from "@blocklayer/block-api";
import {
  BlockError,
  exactLog2,
  isPowerOfTwo,
  SECTOR_SIZE_BYTES,
  UnsupportedError,
} from "@blocklayer/bytes";
import { createOptions } from "../create-options.js";
import { MAX_REFCOUNT_ORDER } from "../geometry.js";
import { bitmapsAreConsistent } from "../header/features.js";
import {
  COMPATIBLE,
  hasFeature,
  hasRawDataFile,
  INCOMPATIBLE,
  type Qcow2Header,
} from "../header/header.js";

/** Widths that version 2 has: 16 bits. */
const V2_REFCOUNT_ORDER = 4;

/** The options of `amend`. None has a default: what is not given stays. */
export const amendOptions: OptionSchema = Object.fromEntries(
  [
    "backing_file",
    "backing_fmt",
    "compat",
    "data_file",
    "data_file_raw",
    "lazy_refcounts",
    "refcount_bits",
    "size",
  ].flatMap((name) => {
    const spec = createOptions[name];
    if (spec === undefined) return [];
    const { default: _, ...rest } = spec;
    return [[name, rest]];
  }),
);

/** What is to change; absent: stays. */
export interface AmendRequest {
  readonly version: 2 | 3;
  readonly refcountOrder: number;
  readonly lazyRefcounts: boolean;
  readonly sizeBytes: number | undefined;
  /** As it is to be stored. */
  readonly dataFilename: string | undefined;
  /** The external data file need not be valid as a raw image any more. */
  readonly givesUpRaw: boolean;
}

/**
 * Checks the options against each other and against the image, before anything changes.
 *
 * @throws BlockError `EINVAL`; UnsupportedError
 */
export function requestOf(header: Qcow2Header, options: OptionValues): AmendRequest {
  refuseElsewhere(options);
  const dataFile = dataFileOf(header, options);
  const compat = stringOption(options, "compat");
  const version = compat === undefined ? header.version : versionOf(compat);
  const refcountOrder = refcountOrderOf(header, version, options);
  const wasLazy = hasFeature(header.compatible, COMPATIBLE.lazyRefcounts);
  const lazyRefcounts =
    options["lazy_refcounts"] === undefined
      ? wasLazy && version >= 3
      : booleanOption(options, "lazy_refcounts");
  if (lazyRefcounts && version < 3) {
    invalid(
      "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
    );
  }
  if (version < header.version) refuseDowngrade(header);
  const size = options["size"];
  // As for qemu-img, a size of 0 is none.
  const sizeBytes = typeof size === "number" && size > 0 ? size : undefined;
  if (sizeBytes !== undefined && sizeBytes % SECTOR_SIZE_BYTES !== 0) {
    invalid("The new size must be a multiple of 512");
  }
  return { version, refcountOrder, lazyRefcounts, sizeBytes, ...dataFile };
}

function versionOf(compat: string): 2 | 3 {
  return compat === "0.10" || compat === "v2" ? 2 : 3;
}

function invalid(message: string): never {
  throw new BlockError("EINVAL", message, { op: "amend" });
}

/** What another command does. */
function refuseElsewhere(options: OptionValues): void {
  if (options["backing_file"] !== undefined || options["backing_fmt"] !== undefined) {
    invalid("Cannot amend the backing file. You can use 'rebase' instead.");
  }
}

/**
 * What changes of an external data file. Guest data stays where it is: it cannot move into the image or out of it, and
 * it cannot become raw, since clusters may hold something else than what they show.
 */
function dataFileOf(
  header: Qcow2Header,
  options: OptionValues,
): Pick<AmendRequest, "dataFilename" | "givesUpRaw"> {
  const dataFilename = stringOption(options, "data_file");
  if (dataFilename !== undefined) {
    if (!hasFeature(header.incompatible, INCOMPATIBLE.dataFile)) {
      invalid("data-file can only be set for images that use an external data file");
    }
    // QEMU takes the name away, and then the image does not open any more.
    if (dataFilename === "") invalid("Expected data file name, got empty string");
    if (dataFilename.includes("\0")) invalid("The data file name holds a zero byte");
  }
  const isRaw = hasRawDataFile(header);
  const wantsRaw =
    options["data_file_raw"] === undefined ? isRaw : booleanOption(options, "data_file_raw");
  if (wantsRaw && !isRaw) invalid("data-file-raw cannot be set on existing images");
  return { dataFilename, givesUpRaw: isRaw && !wantsRaw };
}

function refcountOrderOf(header: Qcow2Header, version: 2 | 3, options: OptionValues): number {
  const bits = options["refcount_bits"];
  if (typeof bits !== "number") {
    if (version < 3 && header.refcountOrder !== V2_REFCOUNT_ORDER) {
      invalid("compat=0.10 requires refcount_bits=16");
    }
    return header.refcountOrder;
  }
  if (!isPowerOfTwo(bits) || bits > 2 ** MAX_REFCOUNT_ORDER) {
    invalid("Refcount width must be a power of two and may not exceed 64 bits");
  }
  const order = exactLog2(bits);
  if (version < 3 && order !== V2_REFCOUNT_ORDER) {
    invalid(
      "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)",
    );
  }
  return order;
}

/** Features that version 2 has no place for. Another compression matters only where something is compressed: version.ts. */
function refuseDowngrade(header: Qcow2Header): void {
  if (hasFeature(header.incompatible, INCOMPATIBLE.dataFile)) {
    throw new UnsupportedError("Cannot downgrade an image with a data file", { op: "amend" });
  }
  const incompatible = header.incompatible & ~INCOMPATIBLE.dirty & ~INCOMPATIBLE.compressionType;
  if (incompatible !== 0n) {
    const bits = incompatible.toString(16);
    throw new UnsupportedError(
      `Cannot downgrade an image with incompatible features 0x${bits} set`,
      { op: "amend" },
    );
  }
  if (header.snapshotCount > 0) {
    throw new UnsupportedError("Internal snapshots prevent downgrade of image", { op: "amend" });
  }
  if (bitmapsAreConsistent(header)) {
    throw new UnsupportedError("Bitmaps prevent downgrade of image: version 2 cannot keep them", {
      op: "amend",
    });
  }
}
