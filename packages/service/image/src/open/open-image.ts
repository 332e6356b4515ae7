/**
 * Opens an image: from a name, or from node options, to a backend.
 *
 * Above: the tool, and every library user. Below: the graph.
 *
 * 1. A name means a byte store; the format goes on top: the one given, or the one that probing finds.
 * 2. Node options (`json:`, `--image-opts`, objects) that name a driver are taken as they are; a `format` beside
 *    them goes on top when they name a byte store, and must agree with them otherwise.
 * 3. Closing the backend closes all that was opened for it.
 */
import { ALL_PERMISSIONS, PERMISSION, type Permissions } from "@blocklayer/block-api";
import { assert, BlockError, UnsupportedError } from "@blocklayer/bytes";
import {
  type BlockBackend,
  BlockGraph,
  type NodeOptions,
  parseImageOptions,
} from "@blocklayer/block-graph";
import { type CacheMode, parseCacheMode } from "./cache-mode.js";
import { nameOfOptions, parseFilename } from "./filename.js";
import { type LeafChoice, withLeafOptions } from "./leaf-options.js";
import { fileOpenGate } from "./open-gate.js";
import { isRecord } from "./is-record.js";
import { probeFile, type ProbeResult } from "./probe.js";
import type { ImageSource, OpenImageOptions } from "./types.js";

/** A reader's who lets nobody write: as qemu-img's `convert` holds its sources. */
const UNDISTURBED: Permissions = {
  held: PERMISSION.consistentRead,
  shared: ALL_PERMISSIONS & ~(PERMISSION.write | PERMISSION.resize),
};

/**
 * Opens an image.
 *
 * @throws BlockError `ENOENT` and other errnos of the store, `EINVAL` for options that make no sense;
 *   CorruptImageError
 * @example await using disk = await openImage("vm.qcow2", { drivers })
 */
export async function openImage(
  source: ImageSource,
  options: OpenImageOptions,
): Promise<BlockBackend> {
  const readOnly = options.readOnly ?? true;
  const cache = cacheOf(options);
  const leaf: LeafChoice = { cache, forceShare: options.forceShare === true };
  if (leaf.forceShare && !readOnly) {
    throw new BlockError("EINVAL", "force-share is for read-only images only");
  }
  assert(readOnly || options.keepWritersOut !== true, "who keeps writers out does not write");
  const node = withSnapshot(await imageNodeOptions(source, options), options);
  const openGate =
    options.openGate ??
    fileOpenGate({ drivers: options.drivers, cache, forceShare: leaf.forceShare });
  const graph = new BlockGraph({ drivers: options.drivers, openGate });
  const permissions = options.keepWritersOut === true ? { permissions: UNDISTURBED } : {};
  try {
    const { forCheck = false } = options;
    const how = { readOnly, writethrough: cache.writethrough, forCheck, ...permissions };
    return await graph.open(node, how);
  } catch (error) {
    await graph.close();
    throw error;
  }
}

/** The node options that an image and the options around it come to, the format found out. */
export async function imageNodeOptions(
  source: ImageSource,
  options: OpenImageOptions,
): Promise<NodeOptions> {
  const { drivers } = options;
  const leaf: LeafChoice = { cache: cacheOf(options), forceShare: options.forceShare === true };
  const given = withLeafOptions(givenOptions(source, options), leaf, drivers);
  const extra = { ...options.nodeOptions, ...(await backingOverride(options)) };
  const kind = drivers.find((driver) => driver.name === given.driver)?.kind;
  const isName = typeof source === "string" && options.imageOpts !== true && !isJson(source);
  // A name means a byte store, also one with a filter in front (blkdebug:…): a format goes on top.
  if (kind !== undefined && kind !== "protocol" && !(isName && kind === "filter")) {
    refuseOtherFormat(given, options);
    return { ...given, ...extra };
  }
  if (!isName && given.driver !== undefined && options.format === undefined) {
    return { ...given, ...extra };
  }
  const file = given.driver === undefined ? fileOf(given) : given;
  const rest = given.driver === undefined ? given : {};
  if (options.format !== undefined) return { ...rest, ...extra, driver: options.format, file };
  const found = await probed(source, file, options);
  return { ...rest, ...guardOf(found, drivers), ...extra, driver: found.format, file };
}

/** @throws UnsupportedError when the format cannot show a snapshot */
function withSnapshot(
  node: NodeOptions,
  { snapshot, drivers }: Pick<OpenImageOptions, "snapshot" | "drivers">,
): NodeOptions {
  if (snapshot === undefined) return node;
  const driver = drivers.find(({ name }) => name === node.driver);
  if (driver !== undefined && !Object.hasOwn(driver.openOptions, "snapshot.id")) {
    const message = `format '${driver.name}' cannot show an internal snapshot`;
    throw new UnsupportedError(message, { op: "load snapshot" });
  }
  if (typeof snapshot === "string") return { ...node, snapshot };
  const { id, name } = snapshot;
  return {
    ...node,
    ...(id === undefined ? {} : { "snapshot.id": id }),
    ...(name === undefined ? {} : { "snapshot.name": name }),
  };
}

/** The cache mode of open options. */
export function cacheOf({ cache = "writeback" }: Pick<OpenImageOptions, "cache">): CacheMode {
  return typeof cache === "string" ? parseCacheMode(cache) : cache;
}

function isJson(name: string): boolean {
  return name.startsWith("json:");
}

function givenOptions(source: ImageSource, options: OpenImageOptions): NodeOptions {
  if (typeof source !== "string") return source;
  return options.imageOpts === true
    ? parseImageOptions(source)
    : parseFilename(source, options.drivers);
}

function refuseOtherFormat(given: NodeOptions, { format }: OpenImageOptions): void {
  if (format === undefined || format === given.driver) return;
  throw new BlockError(
    "EINVAL",
    `the image's options say driver '${given.driver}', and the format given is '${format}'`,
  );
}

/** The byte store of options that name no driver: their `file`. */
function fileOf(given: NodeOptions): NodeOptions {
  const file = given.file;
  if (isRecord(file)) {
    const driver = typeof file["driver"] === "string" ? file["driver"] : "file";
    return { ...file, driver } as NodeOptions;
  }
  throw new BlockError("EINVAL", "the image's options name neither a driver nor a file");
}

async function probed(
  source: ImageSource,
  file: NodeOptions,
  options: OpenImageOptions,
): Promise<ProbeResult> {
  const name = typeof source === "string" ? source : nameOfOptions(source);
  if (options.allowProbing === false) {
    throw new BlockError("EINVAL", `image '${name}': the format must be given here`);
  }
  const found = await probeFile(file, options.drivers);
  if (!found.recognized) options.onProbedRaw?.(name);
  return found;
}

/** A disk that is raw only by guess must not become another format by what its guest writes. */
function guardOf(
  { format, recognized }: ProbeResult,
  drivers: OpenImageOptions["drivers"],
): { readonly probed?: true } {
  if (recognized) return {};
  const raw = drivers.find((driver) => driver.name === format);
  return raw !== undefined && Object.hasOwn(raw.openOptions, "probed") ? { probed: true } : {};
}

async function backingOverride(
  options: OpenImageOptions,
): Promise<{ readonly backing?: NodeOptions | null }> {
  const { backing } = options;
  if (backing === undefined || backing === null) return backing === null ? { backing } : {};
  const { backing: _own, format: _format, nodeOptions: _node, ...rest } = options;
  return {
    backing: await imageNodeOptions(backing, { ...rest, readOnly: true, imageOpts: false }),
  };
}
