/**
 * The dirty bitmaps of an open image.
 *
 * Above: driver.ts (marks what is written), control.ts, writeback/prepare.ts, mapping/truncate.ts. Below: directory,
 * table, bits, store.
 *
 *   in the file, stored ──prepare for writing──▶ in use in the file, recording in memory ──store──▶ stored
 *                                                      │ crash
 *                                                      ▼
 *                                                 inconsistent: only `remove` is of use
 *
 * 1. Before the first write those that record are marked as in use in the file, durably: whoever finds them so
 *    knows that the file does not have all of their bits.
 * 2. One that does not record stays as it is in the file until it is changed: a crash does not harm it.
 * 3. `store` writes what changed beside what is there, then switches the header over: see store.ts.
 * 4. The bits of a bitmap are read when they are needed, and stay in memory from then on.
 *
 * Locking: `mark` anywhere; all others under the image lock, with no request in flight or before the first one.
 *
 * Source: the qcow2 specification, "Bitmaps"; QEMU's docs/interop/bitmaps.rst.
 */
import { BlockError, CorruptImageError, decodeName, MiB } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { OVERLAP } from "../refcount/overlap.js";
import { type BitmapsExtension, bitmapsExtensionIn } from "../header/extensions.js";
import { bitmapsAreConsistent } from "../header/features.js";
import { readTable } from "../read-tables.js";
import { Bits } from "./bits.js";
import { BITMAP_FLAG, type BitmapEntry, decodeDirectory, encodeDirectory } from "./directory.js";
import { freeReplaced, storeBitmaps } from "./store.js";
import { loadBits, type ReadBudget } from "./table.js";

/**
 * What may be read of tables and bits beyond twice the length of the file: tables can say "all ones" without clusters,
 * and many bitmaps can name one table.
 */
const BUDGET_MARGIN_BYTES: number = 64 * MiB;
/** However long the file says that it is: one with holes costs nothing. Four bitmaps of the greatest length. */
const MAX_BUDGET_BYTES: number = 2048 * MiB;
/** Memory that all bitmaps which record may come to need when everything is dirty. */
const MAX_RECORDING_BYTES: number = 4096 * MiB;

/** One bitmap of an open image. */
export interface Bitmap {
  readonly name: string;
  readonly nameBytes: Uint8Array;
  readonly granularityBits: number;
  readonly extraData: Uint8Array;
  /** Its place in the file; absent while it is not stored there. */
  stored: BitmapEntry | undefined;
  recording: boolean;
  inconsistent: boolean;
  /** Absent while they are only in the file. */
  bits: Bits | undefined;
  /** The file does not have it as it is here. */
  changed: boolean;
}

export class ImageBitmaps {
  readonly #image: Qcow2Image;
  /** Absent: not read yet. */
  #list: Bitmap[] | undefined;
  #recording: readonly Bits[] = [];
  /** What was removed, and is in the file still. */
  #removed: BitmapEntry[] = [];
  /** What may still be read: bits stay in memory. Absent: nothing was read yet. */
  #budget: ReadBudget | undefined;

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Notes a write. Requires: the range lies on the disk. */
  mark(offset: number, lengthBytes: number): void {
    for (const bits of this.#recording) bits.mark(offset, lengthBytes);
  }

  /** Whether the image has bitmaps that can be trusted, or was given some. */
  get any(): boolean {
    if (this.#list !== undefined) return this.#list.length > 0;
    return this.extension !== undefined;
  }

  /** The directory in the file; undefined when there is none, or it cannot be trusted. */
  get extension(): BitmapsExtension | undefined {
    const { header, geometry } = this.#image;
    if (!bitmapsAreConsistent(header)) return undefined;
    return bitmapsExtensionIn(header.extensions, geometry.clusterSize);
  }

  /** All bitmaps. Reads the directory the first time. @throws CorruptImageError */
  async list(): Promise<readonly Bitmap[]> {
    return await this.#load();
  }

  /** Reads the bits of a bitmap that are not in memory. @throws CorruptImageError */
  async bitsOf(bitmap: Bitmap): Promise<Bits> {
    if (bitmap.bits !== undefined) return bitmap.bits;
    const { file, geometry } = this.#image;
    const bits = new Bits(geometry.virtualSize, bitmap.granularityBits, geometry.clusterSize);
    if (bitmap.stored !== undefined) {
      const bytesLeft = Math.min(2 * file.lengthBytes + BUDGET_MARGIN_BYTES, MAX_BUDGET_BYTES);
      this.#budget ??= { bytesLeft };
      const budget = { ...this.#budget };
      await loadBits(file, geometry, bitmap.stored, bits, budget);
      // A read that failed can be tried again.
      this.#budget = budget;
    }
    bitmap.bits = bits;
    return bits;
  }

  /** Before the first write to the image: those that record begin to. */
  async prepare(): Promise<void> {
    if (!this.any) return;
    const active = (await this.#load()).filter((one) => one.recording && !one.inconsistent);
    this.#refuseTooMany(active);
    for (const one of active) await this.bitsOf(one);
    await this.#markInUse(active);
    this.#updateRecording();
  }

  add(bitmap: Bitmap): void {
    this.#list?.push(bitmap);
    this.#updateRecording();
  }

  remove(bitmap: Bitmap): void {
    this.#list = this.#list?.filter((one) => one !== bitmap);
    if (bitmap.stored !== undefined) this.#removed.push(bitmap.stored);
    this.#updateRecording();
  }

  /** From here on the file does not have the bitmap as it is. Requires: its bits are in memory. */
  change(bitmap: Bitmap): void {
    bitmap.changed = true;
  }

  /** Begins or ends to note writes. */
  async setRecording(bitmap: Bitmap, recording: boolean): Promise<void> {
    await this.bitsOf(bitmap);
    if (recording) await this.#markInUse([bitmap]);
    bitmap.recording = recording;
    bitmap.changed = true;
    this.#updateRecording();
  }

  /**
   * Before the disk gets another length: a table of the old length is not valid then, so nothing of it may be
   * taken for stored.
   *
   * @throws BlockError `ENOTSUP` when one is inconsistent: its length cannot be mended
   */
  async beforeResize(): Promise<void> {
    if (!this.any && this.#removed.length === 0) return;
    const all = await this.#load();
    const broken = all.find(({ inconsistent }) => inconsistent);
    if (broken !== undefined) {
      const message = `bitmap '${broken.name}' is inconsistent: remove it before the disk is resized`;
      throw new BlockError("ENOTSUP", message, { op: "truncate", node: this.#image.nodeName });
    }
    for (const one of all) await this.bitsOf(one);
    await this.#markInUse(all, this.#removed);
  }

  /** The disk has another length: what is new is clean. */
  resize(lengthBytes: number): void {
    for (const { bits } of this.#list ?? []) bits?.resize(lengthBytes);
  }

  /**
   * Writes what changed.
   *
   * @throws the error of a write: the file has what it had before, or has all, and what was replaced is not given
   *   back yet
   */
  async store(): Promise<void> {
    const list = this.#list;
    if (list === undefined) return;
    if (this.#removed.length === 0 && !list.some(({ changed }) => changed)) return;
    const replaced = await storeBitmaps(this.#image, list, this.#removed);
    // The file has all of them from here on, whatever follows.
    this.#removed = [];
    // Whoever writes next marks them as in use again.
    this.#recording = [];
    await freeReplaced(this.#image, replaced);
  }

  /** The file's bitmaps were found broken and are stale now: nothing of them is known any more. */
  forget(): void {
    this.#list = undefined;
    this.#removed = [];
    this.#recording = [];
    this.#budget = undefined;
  }

  /** A small file can name 65535 bitmaps of a disk without end: each write would make all of them grow. */
  #refuseTooMany(recording: readonly Bitmap[]): void {
    const { geometry, nodeName } = this.#image;
    const { virtualSize, clusterSize } = geometry;
    let bytes = 0;
    for (const { granularityBits } of recording) {
      bytes += new Bits(virtualSize, granularityBits, clusterSize).denseBytes;
    }
    if (bytes <= MAX_RECORDING_BYTES) return;
    const what = `noting writes in ${recording.length} bitmaps may take ${bytes} bytes of memory`;
    const message = `${nodeName}: ${what}, and ${MAX_RECORDING_BYTES} are allowed: remove some with qemu-img`;
    throw new BlockError("ENOMEM", message, { op: "write", node: nodeName });
  }

  #updateRecording(): void {
    this.#recording = (this.#list ?? [])
      .filter((one) => one.recording && !one.inconsistent)
      .flatMap(({ bits }) => bits ?? []);
  }

  async #load(): Promise<Bitmap[]> {
    this.#list ??= await readBitmaps(this.#image, this.extension);
    return this.#list;
  }

  /**
   * Sets the flag in the directory, in place and durably, of those that do not have it.
   *
   * @param removed - those of them that are in the file only
   */
  async #markInUse(
    bitmaps: readonly Bitmap[],
    removed: readonly BitmapEntry[] = [],
  ): Promise<void> {
    const { extension } = this;
    const isUnmarked = (entry: BitmapEntry | undefined): boolean =>
      entry !== undefined && (entry.flags & BITMAP_FLAG.inUse) === 0;
    const fresh = bitmaps.filter(({ stored }) => isUnmarked(stored));
    const gone = removed.filter(isUnmarked);
    for (const one of bitmaps) one.changed = true;
    if ((fresh.length === 0 && gone.length === 0) || extension === undefined) return;
    const { file, nodeName } = this.#image;
    const bytes = await readTable(file, extension.directoryOffset, extension.directoryBytes);
    const { entries } = decodeDirectory(bytes, extension.bitmapCount, this.#image.geometry);
    const unmarked = [...fresh.map(({ stored }) => stored), ...gone];
    const places = new Set(unmarked.map((entry) => entry?.tableOffset));
    const marked = entries.map((entry) => {
      return places.has(entry.tableOffset)
        ? { ...entry, flags: entry.flags | BITMAP_FLAG.inUse }
        : entry;
    });
    const changed = encodeDirectory(marked);
    if (changed.length > bytes.length) throw brokenDirectory(extension, nodeName);
    await this.#image.writeTable(extension.directoryOffset, changed, OVERLAP.bitmapDirectory);
    await this.#image.sync();
    // Only now: after a failure the next write marks them.
    for (const one of fresh) {
      if (one.stored === undefined) continue;
      one.stored = { ...one.stored, flags: one.stored.flags | BITMAP_FLAG.inUse };
    }
  }
}

/** The bitmaps that an image's file has. @throws CorruptImageError */
export async function readBitmaps(
  image: Pick<Qcow2Image, "file" | "geometry" | "nodeName">,
  extension: BitmapsExtension | undefined,
): Promise<Bitmap[]> {
  if (extension === undefined) return [];
  const { file, geometry, nodeName } = image;
  const { directoryOffset, directoryBytes, bitmapCount } = extension;
  if (directoryOffset + directoryBytes > file.lengthBytes) {
    throw brokenDirectory(extension, nodeName);
  }
  const bytes = await readTable(file, directoryOffset, directoryBytes);
  const { entries, isBroken } = decodeDirectory(bytes, bitmapCount, geometry);
  if (isBroken) throw brokenDirectory(extension, nodeName);
  return entries.map(bitmapOf);
}

function bitmapOf(entry: BitmapEntry): Bitmap {
  return {
    name: decodeName(entry.nameBytes),
    nameBytes: entry.nameBytes,
    granularityBits: entry.granularityBits,
    extraData: entry.extraData,
    stored: entry,
    recording: (entry.flags & BITMAP_FLAG.auto) !== 0,
    // Extra data may change what the bits mean, and nobody has said yet what it may be.
    inconsistent: (entry.flags & BITMAP_FLAG.inUse) !== 0 || entry.extraData.length > 0,
    bits: undefined,
    changed: false,
  };
}

function brokenDirectory(extension: BitmapsExtension, nodeName: string): CorruptImageError {
  return new CorruptImageError({
    structure: "bitmap directory",
    hostOffset: extension.directoryOffset,
    rule: `an entry breaks a rule, or does not fit the disk of '${nodeName}'`,
  });
}
