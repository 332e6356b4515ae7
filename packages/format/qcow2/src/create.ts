/**
 * Making an empty image, byte for byte as qemu-img 7.2 makes it.
 *
 * Above: the driver definition, and through it the create service. Below: create-options.ts says
 * what is wanted, create-layout.ts where it lies, header/encode.ts writes the header, mapping/preallocate.ts sets aside.
 *
 * 1. The magic is written last, alone, and after a flush: a file whose creation was cut off is not
 *    taken for an image.
 * 2. An external data file is made by the caller; it gets its length here, and its clusters their names.
 * 3. Everything that the image names is written or zeroed, so that a device with old bytes on it
 *    gives the same image as an empty file.
 *
 * Source: the qcow2 specification, "Header", "Host cluster management".
 */
import {
  type BlockChild,
  type CreateContext,
  parseOptions,
  type PreallocationMode,
  type RequestOptions,
} from "@blocklayer/block-api";
import { BlockError, IoVector, viewOf, writeU64 } from "@blocklayer/bytes";
import { writeRefcount } from "@blocklayer/metadata-cache";
import { type CreateLayout, planCreate } from "./create-layout.js";
import { type CreateRequest, newHeader, requestOf } from "./create-options.js";
import { ENTRY_BYTES, type Geometry, geometryOf } from "./geometry.js";
import { encodeHeader } from "./header/encode.js";
import type { Qcow2Header } from "./header/header.js";
import { writeHostZeroes } from "./host-zeroes.js";
import type { Qcow2Image } from "./image.js";
import { nameClusters } from "./mapping/external-data.js";
import { preallocate } from "./mapping/preallocate.js";
import { openImage } from "./open.js";
import { openOptions } from "./open-options.js";
import { flushToOs } from "./writeback/flush.js";
import { prepareForWriting } from "./writeback/prepare.js";

const MAGIC_BYTES = 4;

/**
 * Writes an empty image.
 *
 * @param context - `file`: any byte range of it can be written; `options`: checked by createOptions
 * @throws BlockError `EINVAL` for options that do not go together, `EFBIG` when the disk is too
 *   large for its clusters, `ENOSPC` when the backing file name or the image does not fit;
 *   UnsupportedError; errors of the file
 *
 * **After failure:** the file has no magic, unless writing the magic itself failed.
 */
export async function createQcow2(context: CreateContext): Promise<void> {
  const { file, signal } = context;
  const io: RequestOptions = signal === undefined ? {} : { signal };
  const request = requestOf(context.options);
  const geometry = geometryOf(request);
  const layout = planCreate(geometry);
  const { clusterSize, l1Size } = geometry;
  const header = newHeader(request, {
    l1Size,
    l1TableOffset: layout.l1Cluster * clusterSize,
    refcountTableOffset: layout.refcountTableCluster * clusterSize,
    refcountTableClusters: layout.refcountTableClusters,
  });
  const head = encodeHeader(header);
  const magic = head.slice(0, MAGIC_BYTES);
  head.fill(0, 0, MAGIC_BYTES);
  await clear(file, head, layout.lengthBytes, io);
  await writeTables(file, geometry, layout, io);
  if (!file.capabilities.truncate) {
    await writeHostZeroes(file, layout.l1Cluster * clusterSize, l1Size * ENTRY_BYTES, io);
  }
  if (request.dataFilename !== undefined) {
    await prepareDataFile(context, header, request);
  } else if (request.preallocation !== "off") {
    await preallocateNew(file, header, request.preallocation, io);
  }
  await file.flush(io);
  await file.writev(0, IoVector.of(magic), io);
  await file.flush(io);
}

/**
 * Makes the data file as long as the disk, durably: an image that looks whole has it. One that is to be valid as a raw
 * image has every cluster named from the start: what is written into it directly is then seen through the image as well.
 * In another one, clusters that are set aside read as zeroes.
 */
async function prepareDataFile(
  { file, dataFile, signal }: CreateContext,
  header: Qcow2Header,
  { dataFileRaw, dataFilename = "", preallocation }: CreateRequest,
): Promise<void> {
  if (dataFile === undefined) {
    const message = `nobody made the external data file '${dataFilename}' of the new image`;
    throw new BlockError("EINVAL", message, { op: "create", node: file.nodeName });
  }
  const io = signal === undefined ? {} : { signal };
  const image = await openNew(file, header, dataFile);
  const { virtualSize, clusterSize } = image.geometry;
  const isNamed = dataFileRaw !== true && preallocation !== "off";
  if (isNamed) await image.externalData?.clearPast(0, virtualSize, clusterSize, preallocation);
  await image.externalData?.resize(virtualSize, preallocation);
  if (dataFileRaw === true) await nameClusters(image, 0, virtualSize);
  else if (isNamed) await preallocate(image, 0, virtualSize, preallocation, io);
  await flushToOs(image);
  await dataFile.flush(io);
}

/** Gives every cluster its place, in an image that has no magic yet. */
async function preallocateNew(
  file: BlockChild,
  header: Qcow2Header,
  mode: Exclude<PreallocationMode, "off">,
  io: RequestOptions,
): Promise<void> {
  const image = await openNew(file, header, undefined);
  await preallocate(image, 0, image.geometry.virtualSize, mode, io);
  await flushToOs(image);
}

/**
 * Opens an image that has no magic yet. Its refcounts are not lazy now: it is to be clean when it is made. Slices are
 * whole L2 tables, as QEMU's are: they bound what is placed in one run.
 */
async function openNew(
  file: BlockChild,
  header: Qcow2Header,
  dataFile: BlockChild | undefined,
): Promise<Qcow2Image> {
  const image = await openImage(header, {
    nodeName: file.nodeName,
    file,
    dataFile,
    backing: undefined,
    readOnly: false,
    options: parseOptions(
      openOptions,
      {
        "lazy-refcounts": false,
        "l2-cache-entry-size": 2 ** header.clusterBits,
      },
      "qcow2",
    ),
  });
  await prepareForWriting(image);
  return image;
}

/** Takes away what the store held, and writes the header without its magic. */
async function clear(
  file: BlockChild,
  head: Uint8Array,
  lengthBytes: number,
  io: RequestOptions,
): Promise<void> {
  if (file.capabilities.truncate) {
    if (file.lengthBytes > 0) await file.truncate(0, io);
    await file.truncate(lengthBytes, io);
    await file.writev(0, IoVector.of(head), io);
    return;
  }
  if (file.lengthBytes < lengthBytes) {
    const message = `the new image needs ${lengthBytes} bytes; '${file.nodeName}' has ${file.lengthBytes}`;
    throw new BlockError("ENOSPC", message, { op: "create", node: file.nodeName });
  }
  await file.writev(0, IoVector.of(head), io);
  // An old image here must lose its magic before its tables are overwritten.
  await file.flush(io);
}

async function writeTables(
  file: BlockChild,
  geometry: Geometry,
  layout: CreateLayout,
  io: RequestOptions,
): Promise<void> {
  const { clusterSize } = geometry;
  for (const [index, cluster] of layout.refcountBlocks.entries()) {
    if (cluster === 0) continue;
    const block = refcountBlock(geometry, layout, index);
    await file.writev(cluster * clusterSize, IoVector.of(block), io);
  }
  const live = {
    cluster: layout.refcountTableCluster,
    clusterCount: layout.refcountTableClusters,
    blocks: layout.refcountBlocks,
  };
  for (const { cluster, clusterCount, blocks } of [...layout.staleTables, live]) {
    const table = new Uint8Array(clusterCount * clusterSize);
    const view = viewOf(table);
    for (const [index, block] of blocks.entries()) {
      writeU64(view, index * ENTRY_BYTES, block * clusterSize);
    }
    await file.writev(cluster * clusterSize, IoVector.of(table), io);
  }
}

function refcountBlock(geometry: Geometry, layout: CreateLayout, index: number): Uint8Array {
  const { clusterSize, refcountBits, refcountBlockEntries } = geometry;
  const block = new Uint8Array(clusterSize);
  const first = index * refcountBlockEntries;
  const count = Math.min(refcountBlockEntries, layout.usedEnd - first);
  for (let i = 0; i < count; i++) {
    if (layout.isUsed(first + i)) writeRefcount(block, refcountBits, i, 1);
  }
  return block;
}
