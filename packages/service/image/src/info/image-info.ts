/**
 * What is known about an image, in the words of `qemu-img info --output=json`.
 *
 * 1. The image is opened read-only and without its backing file: `info` works on a chain that is broken.
 * 2. A chain is walked by names, one image at a time; an image that comes twice ends it with an error, and so does
 *    the 200th.
 */
import { BlockError } from "@blocklayer/bytes";
import type { FormatInfo } from "@blocklayer/block-api";
import type { BlockBackend, BlockNode } from "@blocklayer/block-graph";
import { diskFormatInfo } from "./disk-format-info.js";
import { nameOfOptions, resolveName } from "../open/filename.js";
import { fileOpenGate } from "../open/open-gate.js";
import { openImage } from "../open/open-image.js";
import type { ImageSource, OpenImageOptions } from "../open/types.js";
import type { ImageInfo, SnapshotInfo } from "./types.js";

/** Longest chain that is followed. */
const MAX_CHAIN_LENGTH = 200;

/** Options of `imageInfo`. The image is always opened read-only and without its backing file. */
export type ImageInfoOptions = Omit<OpenImageOptions, "readOnly" | "backing">;

/**
 * Opens an image and tells about it.
 *
 * @throws what `openImage` throws
 * @example (await imageInfo("vm.qcow2", { drivers }))["virtual-size"]
 */
export async function imageInfo(
  source: ImageSource,
  options: ImageInfoOptions,
): Promise<ImageInfo> {
  const backend = await openImage(source, { ...options, readOnly: true, backing: null });
  try {
    return await backendInfo(backend, sourceName(source, backend));
  } finally {
    await backend.close();
  }
}

/**
 * Tells about an image and every image below it, the top first (`--backing-chain`).
 *
 * @throws BlockError `ELOOP` when the chain comes back to an image of its own; what `openImage` throws
 */
export async function imageInfoChain(
  source: ImageSource,
  options: ImageInfoOptions,
): Promise<readonly ImageInfo[]> {
  const gate = options.openGate ?? fileOpenGate(gateOptions(options));
  const chain: ImageInfo[] = [];
  const seen = new Set<string>();
  let next: ImageSource | undefined = source;
  let nextOptions = options;
  while (next !== undefined) {
    const info: ImageInfo = await imageInfo(next, nextOptions);
    refuseLoop(info.filename, seen);
    seen.add(info.filename);
    chain.push(info);
    next = undefined;
    const filename = info["backing-filename"];
    if (filename === undefined) break;
    const format = info["backing-filename-format"];
    const request = { kind: "backing", filename, image: info.filename } as const;
    const node = await gate(format === undefined ? request : { ...request, format });
    if (node === null) break;
    next = node;
    const { format: _format, imageOpts: _opts, nodeOptions: _node, ...rest } = options;
    nextOptions = rest;
  }
  return chain;
}

/** What is known about an open image. Snapshots and the like come from its driver. */
async function backendInfo(backend: BlockBackend, filename: string): Promise<ImageInfo> {
  const { root } = backend;
  const format = await diskFormatInfo(root);
  const actualSize = await allocatedBytesOf(root);
  return {
    filename,
    format: root.driverName,
    "virtual-size": backend.lengthBytes,
    ...(actualSize === undefined ? {} : { "actual-size": actualSize }),
    ...(format?.clusterSizeBytes === undefined ? {} : { "cluster-size": format.clusterSizeBytes }),
    "dirty-flag": format?.dirty === true,
    ...backingRows(filename, format),
    ...snapshotRows(format),
    ...specificRows(format),
  };
}

function gateOptions(options: ImageInfoOptions): Parameters<typeof fileOpenGate>[0] {
  return {
    drivers: options.drivers,
    ...(options.cache === undefined ? {} : { cache: options.cache }),
    forceShare: options.forceShare === true,
  };
}

function refuseLoop(filename: string, seen: ReadonlySet<string>): void {
  if (seen.has(filename)) {
    throw new BlockError(
      "ELOOP",
      `backing file '${filename}' stands in its own chain: the chain has no end`,
      { op: "open", node: filename },
    );
  }
  if (seen.size >= MAX_CHAIN_LENGTH) {
    throw new BlockError("ELOOP", `the chain is longer than ${MAX_CHAIN_LENGTH} images`, {
      op: "open",
      node: filename,
    });
  }
}

function sourceName(source: ImageSource, backend: BlockBackend): string {
  const { filename } = backend.root;
  if (filename !== undefined) return filename;
  return typeof source === "string" ? source : nameOfOptions(source);
}

/** The space that the byte stores below a node take, together; without an external data file, as in qemu-img. */
async function allocatedBytesOf(node: BlockNode): Promise<number | undefined> {
  if (node.driver.allocatedBytes !== undefined) return await node.driver.allocatedBytes();
  let sum: number | undefined;
  for (const role of ["file", "filtered"] as const) {
    const child = node.child(role);
    const bytes = child === undefined ? undefined : await allocatedBytesOf(child);
    if (bytes !== undefined) sum = (sum ?? 0) + bytes;
  }
  return sum;
}

function backingRows(filename: string, format: FormatInfo | undefined): Partial<ImageInfo> {
  const backing = format?.backingFilename;
  if (backing === undefined) return {};
  return {
    "backing-filename": backing,
    ...fullNameRow(filename, backing),
    ...(format?.backingFormat === undefined
      ? {}
      : { "backing-filename-format": format.backingFormat }),
  };
}

/** A relative name in an image that has no folder has no full name; that is no reason to tell nothing. */
function fullNameRow(filename: string, backing: string): Partial<ImageInfo> {
  try {
    return { "full-backing-filename": resolveName(filename, backing) };
  } catch {
    return {};
  }
}

function snapshotRows(format: FormatInfo | undefined): Partial<ImageInfo> {
  const snapshots = format?.snapshots ?? [];
  // The contract's records have the fields of qemu-img's JSON, as SnapshotInfo does.
  return snapshots.length === 0 ? {} : { snapshots: snapshots as unknown as SnapshotInfo[] };
}

function specificRows(format: FormatInfo | undefined): Partial<ImageInfo> {
  if (format === undefined || Object.keys(format.data).length === 0) return {};
  return { "format-specific": { type: format.type, data: format.data } };
}
