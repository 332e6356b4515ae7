/** Makes up what a new image will be: its options complete, its size known, its backing image looked at. */
import { BlockError } from "@blocklayer/bytes";
import { type DriverDefinition, type OptionValues, parseOptions } from "@blocklayer/block-api";
import { parseFilename, resolveName } from "../open/filename.js";
import { openImage } from "../open/open-image.js";
import { inPrintOrder } from "./print-order.js";
import { Store } from "./store.js";
import type { BackingChoice, CreateImageOptions, CreatePlan } from "./types.js";

/** All that creation needs. */
export interface FullCreatePlan {
  readonly shown: CreatePlan;
  readonly store: Store;
  /** The external data file, for formats and options that have one. */
  readonly dataStore?: Store;
  readonly format: DriverDefinition;
  readonly formatOptions: OptionValues;
  readonly storeOptions: OptionValues;
  readonly sizeBytes: number;
}

/**
 * Checks and completes the options. Changes nothing.
 *
 * @throws BlockError `EINVAL` and others, as `createImage`
 */
export async function planCreation(options: CreateImageOptions): Promise<FullCreatePlan> {
  const format = formatOf(options);
  const store = new Store(parseFilename(options.filename, options.drivers), options.drivers);
  const { backing, rest } = splitOptions(options);
  refuseBadBacking(options, format, backing);
  const sizeBytes = await sizeOf(options, rest["size"], backing);
  const own: Record<string, unknown> = { ...rest, size: sizeBytes };
  if (backing !== undefined) {
    own["backing_file"] = backing.filename;
    own["backing_fmt"] = backing.format;
  }
  const { forFormat, forStore } = distribute(own, format, store);
  const formatSchema = format.createOptions ?? {};
  const storeSchema = store.definition.createOptions ?? {};
  const formatOptions = parseOptions(formatSchema, forFormat, format.name);
  const storeOptions = parseOptions(storeSchema, forStore, store.definition.name);
  const dataStore = dataStoreOf(options, formatOptions, store, backing);
  const given = new Set(Object.keys(own).filter((name) => own[name] !== undefined));
  const shown: CreatePlan = {
    filename: options.filename,
    format: format.name,
    sizeBytes,
    options: inPrintOrder(
      { schema: formatSchema, values: { ...formatOptions, size: sizeBytes } },
      { schema: storeSchema, values: storeOptions },
      given,
    ),
  };
  const plan = { shown, store, format, formatOptions, storeOptions, sizeBytes };
  return dataStore === undefined ? plan : { ...plan, dataStore };
}

/** The name counts from the image's folder, as it will when the image is opened. */
function dataStoreOf(
  { drivers, filename }: CreateImageOptions,
  formatOptions: OptionValues,
  store: Store,
  backing: BackingChoice | undefined,
): Store | undefined {
  const name = textOf(formatOptions["data_file"]);
  if (name === undefined) return undefined;
  const resolved = resolveName(filename, name);
  const dataStore = new Store(parseFilename(resolved, drivers), drivers);
  const refuse = (other: string): never => {
    const message = `the data file cannot be the same file as the ${other}, which would be emptied`;
    throw new BlockError("EINVAL", message, { op: "create" });
  };
  if (dataStore.filename === store.filename) refuse("image");
  if (backing !== undefined && resolveName(filename, backing.filename) === resolved) {
    refuse("backing file");
  }
  return dataStore;
}

function formatOf({ drivers, format = "raw" }: CreateImageOptions): DriverDefinition {
  const definition = drivers.find((driver) => driver.name === format);
  if (definition === undefined) {
    throw new BlockError("EINVAL", `Unknown file format '${format}'`, { op: "create" });
  }
  if (definition.kind !== "format" || definition.create === undefined) {
    throw new BlockError("ENOTSUP", `Format driver '${format}' does not support image creation`, {
      op: "create",
    });
  }
  return definition;
}

/** `backing` in both its spellings, and the other options. */
function splitOptions(options: CreateImageOptions): {
  readonly backing: BackingChoice | undefined;
  readonly rest: Readonly<Record<string, unknown>>;
} {
  const { backing_file: file, backing_fmt: fmt, ...rest } = options.options ?? {};
  const filename = options.backing?.filename ?? textOf(file);
  const format = options.backing?.format ?? textOf(fmt);
  if (filename === undefined) {
    if (format === undefined) return { backing: undefined, rest };
    throw new BlockError("EINVAL", "a backing format is given, and no backing file", {
      op: "create",
    });
  }
  return { backing: format === undefined ? { filename } : { filename, format }, rest };
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function refuseBadBacking(
  options: CreateImageOptions,
  format: DriverDefinition,
  backing: BackingChoice | undefined,
): void {
  if (backing === undefined) return;
  if (!Object.hasOwn(format.createOptions ?? {}, "backing_file")) {
    throw new BlockError("ENOTSUP", `Backing file not supported for file format '${format.name}'`, {
      op: "create",
    });
  }
  if (backing.filename === options.filename) {
    throw new BlockError(
      "EINVAL",
      "Error: Trying to create an image with the same filename as the backing file",
      { op: "create" },
    );
  }
  if (backing.format === undefined) {
    throw new BlockError("EINVAL", "Backing file specified without backing format", {
      op: "create",
    });
  }
  if (!options.drivers.some((driver) => driver.name === backing.format)) {
    throw new BlockError("EINVAL", `Unknown backing file format '${backing.format}'`, {
      op: "create",
    });
  }
}

/** The size: given once, or the backing image's. The backing image is opened even when its size is not needed. */
async function sizeOf(
  options: CreateImageOptions,
  sizeOption: unknown,
  backing: BackingChoice | undefined,
): Promise<number> {
  if (options.sizeBytes !== undefined && sizeOption !== undefined) {
    throw new BlockError("EINVAL", "The image size must be specified only once", { op: "create" });
  }
  const given =
    options.sizeBytes ??
    parseOptions({ size: { type: "size", help: "" } }, { size: sizeOption }, "create")["size"];
  const backingBytes =
    backing === undefined || options.unsafeNoBackingCheck === true
      ? undefined
      : await backingLength(options, backing);
  if (typeof given === "number") return given;
  if (backingBytes !== undefined) return backingBytes;
  throw new BlockError("EINVAL", "Image creation needs a size parameter", { op: "create" });
}

async function backingLength(options: CreateImageOptions, backing: BackingChoice): Promise<number> {
  const { drivers, openGate, signal } = options;
  const name = resolveName(options.filename, backing.filename);
  const disk = await openImage(name, {
    drivers,
    readOnly: true,
    ...(backing.format === undefined ? {} : { format: backing.format }),
    ...(openGate === undefined ? {} : { openGate }),
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    return disk.lengthBytes;
  } finally {
    await disk.close();
  }
}

/** Each option to the format if it knows it, else to the store; what neither knows, the format refuses. */
function distribute(
  options: Readonly<Record<string, unknown>>,
  format: DriverDefinition,
  store: Store,
): {
  readonly forFormat: Readonly<Record<string, unknown>>;
  readonly forStore: Readonly<Record<string, unknown>>;
} {
  const forFormat: Record<string, unknown> = {};
  const forStore: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    const isForStore =
      !Object.hasOwn(format.createOptions ?? {}, name) &&
      Object.hasOwn(store.definition.createOptions ?? {}, name);
    (isForStore ? forStore : forFormat)[name] = value;
  }
  return { forFormat, forStore };
}
