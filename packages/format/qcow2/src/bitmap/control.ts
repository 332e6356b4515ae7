/**
 * What users do with bitmaps: the contract's methods.
 *
 * Above: the graph, through `BlockDriver.bitmaps`. Below: bitmaps.ts.
 *
 * Each change is checked, takes the image lock, and is in memory when it resolves; bitmaps.ts says when it is stored.
 */
import type {
  BitmapControl,
  DirtyBitmap,
  DirtyBitmapOptions,
  DirtyRange,
} from "@blocklayer/block-api";
import { BlockError, encodeName, exactLog2, isPowerOfTwo } from "@blocklayer/bytes";
import { MAX_BITMAPS } from "../header/extensions.js";
import type { Qcow2Image } from "../image.js";
import type { Bitmap, ImageBitmaps } from "./bitmaps.js";
import {
  MAX_BITMAP_BYTES,
  MAX_BITMAP_NAME_BYTES,
  MAX_GRANULARITY_BITS,
  MIN_GRANULARITY_BITS,
  tableEntriesFor,
} from "./directory.js";

/** Bounds of the granularity that is taken when none is named, as QEMU's. */
const MIN_DEFAULT_GRANULARITY_BYTES = 4096;
const MAX_DEFAULT_GRANULARITY_BYTES = 65536;

/** The image, and what comes before and after each use of its bitmaps, in driver.ts. */
export interface BitmapGate {
  /** As it is now: the driver reads it anew when it is taken back from another process. */
  image(): Qcow2Image;
  /** For every use. @throws BlockError when the driver is closed, or the image is handed over */
  begin(op: string): void;
  /** For every change: refuses what may not be written, and prepares the image. */
  change(op: string, work: () => Promise<void>): Promise<void>;
  /** Flushes the image and stores its bitmaps. Takes the image lock. */
  store(): Promise<void>;
}

export class Qcow2Bitmaps implements BitmapControl {
  readonly #gate: BitmapGate;

  constructor(gate: BitmapGate) {
    this.#gate = gate;
  }

  get #image(): Qcow2Image {
    return this.#gate.image();
  }

  get #bitmaps(): ImageBitmaps {
    return this.#image.bitmaps;
  }

  get canStore(): boolean {
    return this.#image.geometry.version >= 3;
  }

  get diskBytes(): number {
    return this.#image.geometry.virtualSize;
  }

  async list(): Promise<readonly DirtyBitmap[]> {
    this.#gate.begin("list bitmaps");
    return await this.#locked(async () => (await this.#bitmaps.list()).map(shownOf));
  }

  add(name: string, options: DirtyBitmapOptions = {}): Promise<void> {
    return this.#changeLocked("add bitmap", async () => {
      const bitmap = this.#newBitmap(name, options);
      const list = await this.#bitmaps.list();
      if (list.some((one) => one.name === name)) {
        throw this.#error("EEXIST", `Bitmap already exists: ${name}`);
      }
      if (list.length >= MAX_BITMAPS) {
        throw this.#error("EFBIG", `Maximum number of persistent bitmaps is already reached`);
      }
      await this.#bitmaps.bitsOf(bitmap);
      this.#bitmaps.add(bitmap);
    });
  }

  remove(name: string): Promise<void> {
    return this.#changeLocked("remove bitmap", async () => {
      this.#bitmaps.remove(await this.#find(name));
    });
  }

  clear(name: string): Promise<void> {
    return this.#changeLocked("clear bitmap", async () => {
      const bitmap = await this.#usable(name);
      (await this.#bitmaps.bitsOf(bitmap)).clear();
      this.#bitmaps.change(bitmap);
    });
  }

  setRecording(name: string, recording: boolean): Promise<void> {
    return this.#changeLocked(recording ? "enable bitmap" : "disable bitmap", async () => {
      await this.#bitmaps.setRecording(await this.#usable(name), recording);
    });
  }

  mark(name: string, ranges: readonly DirtyRange[]): Promise<void> {
    return this.#changeLocked("mark bitmap", async () => {
      const bitmap = await this.#usable(name);
      const bits = await this.#bitmaps.bitsOf(bitmap);
      for (const { offset, lengthBytes } of ranges) {
        if (!(offset >= 0 && lengthBytes >= 0 && offset + lengthBytes <= bits.lengthBytes)) {
          throw this.#error("EINVAL", `bitmap '${name}': a range is not on the disk`);
        }
        bits.mark(offset, lengthBytes);
      }
      this.#bitmaps.change(bitmap);
    });
  }

  async dirtyRanges(name: string, from: number, limit: number): Promise<readonly DirtyRange[]> {
    this.#gate.begin("read bitmap");
    return await this.#locked(async () => {
      const bits = await this.#bitmaps.bitsOf(await this.#usable(name));
      const ranges: DirtyRange[] = [];
      for (let at = from; ranges.length < limit; ) {
        const range = bits.nextRange(at);
        if (range === undefined) break;
        ranges.push({ offset: range.start, lengthBytes: range.end - range.start });
        at = range.end;
      }
      return ranges;
    });
  }

  store(): Promise<void> {
    return this.#gate.change("store bitmaps", () => this.#gate.store());
  }

  #newBitmap(name: string, { granularityBytes, recording = true }: DirtyBitmapOptions): Bitmap {
    const { clusterSize, virtualSize } = this.#image.geometry;
    if (!this.canStore) {
      throw this.#error("ENOTSUP", "Cannot store dirty bitmaps in qcow2 v2 files");
    }
    const granularity =
      granularityBytes ??
      Math.min(MAX_DEFAULT_GRANULARITY_BYTES, Math.max(MIN_DEFAULT_GRANULARITY_BYTES, clusterSize));
    if (!isPowerOfTwo(granularity) || granularity < 2 ** MIN_GRANULARITY_BITS) {
      throw this.#error("EINVAL", "Granularity must be power of 2 and at least 512");
    }
    const granularityBits = exactLog2(granularity);
    if (granularityBits > MAX_GRANULARITY_BITS) {
      throw this.#error("EINVAL", "Granularity exceeds maximum (2147483648 bytes)");
    }
    const nameBytes = encodeName(name);
    if (nameBytes.length === 0 || nameBytes.length > MAX_BITMAP_NAME_BYTES) {
      const rule = `a bitmap's name has 1 to ${MAX_BITMAP_NAME_BYTES} bytes`;
      throw this.#error("EINVAL", `'${name}': ${rule}, not ${nameBytes.length}`);
    }
    const entries = tableEntriesFor(virtualSize, granularityBits, clusterSize);
    if (entries * clusterSize > MAX_BITMAP_BYTES) {
      throw this.#error(
        "EFBIG",
        "Too much space will be occupied by the bitmap. Use larger granularity",
      );
    }
    return {
      name,
      nameBytes,
      granularityBits,
      extraData: new Uint8Array(0),
      stored: undefined,
      recording,
      inconsistent: false,
      bits: undefined,
      changed: true,
    };
  }

  async #find(name: string): Promise<Bitmap> {
    const found = (await this.#bitmaps.list()).find((one) => one.name === name);
    if (found === undefined) throw this.#error("ENOENT", `Dirty bitmap '${name}' not found`);
    return found;
  }

  async #usable(name: string): Promise<Bitmap> {
    const bitmap = await this.#find(name);
    if (!bitmap.inconsistent) return bitmap;
    const message = `Bitmap '${name}' is inconsistent and cannot be used. Remove it from the image`;
    throw this.#error("EINVAL", message);
  }

  #error(code: "EINVAL" | "EEXIST" | "ENOENT" | "EFBIG" | "ENOTSUP", message: string): BlockError {
    return new BlockError(code, message, { op: "bitmap", node: this.#image.nodeName });
  }

  #changeLocked(op: string, work: () => Promise<void>): Promise<void> {
    return this.#gate.change(op, () => this.#locked(work));
  }

  async #locked<T>(work: () => Promise<T>): Promise<T> {
    const lease = await this.#image.lock.acquire();
    try {
      return await work();
    } finally {
      lease.release();
    }
  }
}

function shownOf({ name, granularityBits, recording, inconsistent }: Bitmap): DirtyBitmap {
  return { name, granularityBytes: 2 ** granularityBits, recording, inconsistent };
}
