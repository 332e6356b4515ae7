/** The `raw` driver for a graph's registry, and the way to open one without a graph. */
import {
  alignUp,
  assert,
  BlockError,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import {
  type BlockChild,
  booleanOption,
  type CreateContext,
  type DriverDefinition,
  type MeasureContext,
  type MeasureResult,
  numberOption,
  type OptionSchema,
  type PreallocationMode,
} from "@blocklayer/block-api";
import { RawDriver, type RawOptions } from "./raw-driver.js";

const OPEN_OPTIONS: OptionSchema = {
  offset: { type: "size", help: "Where the disk starts in the file, in bytes", default: 0 },
  size: { type: "size", help: "Length of the disk in bytes, by default up to the file's end" },
  probed: {
    type: "boolean",
    help: "The format was guessed: refuse writes that would change the guess",
    default: false,
  },
};

const CREATE_OPTIONS: OptionSchema = {
  size: { type: "size", help: "Virtual disk size" },
  preallocation: {
    type: "choice",
    choices: ["off", "falloc", "full"],
    help: "Preallocation mode (allowed values: off, falloc, full)",
    default: "off",
  },
};

/** Every file is a raw disk, so any other format is likelier. */
const PROBE_SCORE = 1;

/** The `raw` driver. */
export const rawDriver: DriverDefinition = {
  name: "raw",
  kind: "format",
  passThrough: true,
  openOptions: OPEN_OPTIONS,
  createOptions: CREATE_OPTIONS,
  reopenOptions: ["offset", "size"],
  probe: () => PROBE_SCORE,
  open(context): RawDriver {
    const file = context.children.file;
    assert(file !== undefined, "a format has a file child");
    const size = context.options["size"];
    return openRaw(file, {
      offset: numberOption(context.options, "offset"),
      ...(typeof size === "number" ? { size } : {}),
      probed: booleanOption(context.options, "probed"),
      readOnly: context.readOnly,
    });
  },
  create: createRaw,
  measure: measureRaw,
};

/**
 * Opens a raw disk without a graph.
 *
 * @param file - its bytes; the caller keeps it open and within its limits
 * @throws BlockError `EINVAL` when the window is unaligned or does not lie in the file
 * @example const disk = openRaw(directChild(openMemory({ lengthBytes: 1024 ** 3 })))
 */
export function openRaw(file: BlockChild, options: RawOptions = {}): RawDriver {
  return new RawDriver(file, options);
}

/**
 * Gives the file the disk's length, rounded up to sectors as QEMU does. A file that cannot change its length
 * (a device) will do when it is long enough.
 */
function createRaw(context: CreateContext): MaybePromise<void> {
  const { file, options, signal } = context;
  const sizeBytes = alignUp(numberOption(options, "size"), SECTOR_SIZE_BYTES);
  const preallocation = options["preallocation"];
  if (!file.capabilities.truncate) {
    if (file.lengthBytes >= sizeBytes) return;
    throw new BlockError(
      "ENOSPC",
      `raw: ${file.nodeName} has ${file.lengthBytes} bytes and cannot grow to ${sizeBytes}`,
      { op: "create", node: file.nodeName, length: sizeBytes },
    );
  }
  return file.truncate(sizeBytes, {
    ...(isPreallocation(preallocation) ? { preallocation } : {}),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** A raw disk is as long as it is, whatever is in it. */
function measureRaw({ options }: MeasureContext): MeasureResult {
  const lengthBytes = alignUp(numberOption(options, "size"), SECTOR_SIZE_BYTES);
  return { requiredBytes: lengthBytes, fullyAllocatedBytes: lengthBytes };
}

function isPreallocation(value: unknown): value is PreallocationMode {
  return value === "off" || value === "falloc" || value === "full";
}
