/** Images in a sparse store, of which everything new lies far out in the file. */
import {
  type BlockDriver,
  type CheckResult,
  directChild,
  parseOptions,
} from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { checkQcow2, openQcow2, Qcow2Driver, readHeader } from "../../src/index.js";
import { openImage } from "../../src/open.js";
import { openOptions } from "../../src/open-options.js";
import type { Qcow2Image } from "../../src/image.js";
import { allocateClusters } from "../../src/refcount/allocate.js";
import { lowerAfterFailure } from "../../src/refcount/free.js";
import { prepareForWriting } from "../../src/writeback/prepare.js";

/** An open disk, and the image behind it. */
export interface FarDisk {
  readonly disk: Qcow2Driver;
  readonly image: Qcow2Image;
}

/** Opens an image; clusters are taken from `cluster` on, though those before it are free. */
export async function openFar(store: BlockDriver, cluster: number): Promise<FarDisk> {
  const file = directChild(store);
  const image = await openImage(await readHeader(file), {
    nodeName: "far",
    file,
    dataFile: undefined,
    backing: undefined,
    readOnly: false,
    options: parseOptions(openOptions, {}, "qcow2"),
  });
  image.allocator.cursor = cluster;
  return { disk: new Qcow2Driver(image), image };
}

/**
 * Has the refcount table grow so that it counts a cluster. What the table leaves behind is free, and would be taken
 * next: so this comes before anything is to lie far out.
 */
export async function growRefcountTable(store: BlockDriver, cluster: number): Promise<void> {
  const { disk, image } = await openFar(store, cluster);
  await prepareForWriting(image);
  const taken = await allocateClusters(image, 1);
  await lowerAfterFailure(image, taken, image.geometry.clusterSize);
  await disk.close();
}

/** What a check of the file finds. */
export async function checkOf(store: BlockDriver): Promise<CheckResult> {
  const file = directChild(store);
  return checkQcow2(file, await readHeader(file));
}

/** The lines of a check. */
export async function findingsOf(store: BlockDriver): Promise<readonly string[]> {
  return (await checkOf(store)).findings.map(({ message }) => message);
}

/** A range of the disk as a fresh reader sees it. */
export async function readBack(
  store: BlockDriver,
  offset: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const disk = await openQcow2({ file: directChild(store), readOnly: true });
  const bytes = new Uint8Array(lengthBytes);
  await disk.readv(offset, IoVector.of(bytes));
  await disk.close();
  return bytes;
}
