/**
 * The qcow2 driver: the contract's methods, each handed to the module that does it.
 *
 * Above: the block graph, or whoever holds one from `openQcow2`. Below: image.ts and the folders.
 *
 * 1. Reads go straight to mapping/read.ts. Everything that changes the image passes `#change`, which
 *    refuses what must not be written, prepares the image before its first write, and marks it as corrupt
 *    when its metadata cannot be trusted any more.
 * 2. `close` lets go of the codec and flushes, in any state but inactive.
 */
import type {
  BitmapControl,
  BackingReference,
  BlockCapabilities,
  BlockDriver,
  BlockLimits,
  BlockStatus,
  BlockStatusOptions,
  CheckOptions,
  CheckResult,
  AmendDriverOptions,
  FormatInfo,
  OptionValues,
  ReopenRequest,
  RequestOptions,
  SnapshotControl,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import { limitsOf, MAX_TRANSFER_BYTES, parseOptions } from "@blocklayer/block-api";
import {
  alignUp,
  andThen,
  BlockError,
  IoVector,
  type MaybePromise,
  UnsupportedError,
} from "@blocklayer/bytes";
import { activateImage, inactivateImage } from "./activation.js";
import { amendImage } from "./amend/amend.js";
import { requestOf } from "./amend/options.js";
import { changeBacking, makeEmpty } from "./backing/change.js";
import { Qcow2Bitmaps } from "./bitmap/control.js";
import { checkQcow2 } from "./check/check.js";
import { writeCompressed } from "./compressed/write.js";
import { readHeader } from "./header/decode.js";
import type { Qcow2Image } from "./image.js";
import { imageInfoOf } from "./info.js";
import { discardGuest } from "./mapping/discard.js";
import { readGuest } from "./mapping/read.js";
import { statusOf } from "./mapping/status.js";
import { truncateGuest } from "./mapping/truncate.js";
import { writeGuest } from "./mapping/write.js";
import { zeroGuest } from "./mapping/zero.js";
import {
  compressedCacheModeOf,
  discardPolicyOf,
  lazyRefcountsOf,
  openOptions,
  overlapKindsOf,
} from "./open-options.js";
import { readRefcountTable } from "./read-tables.js";
import { readyForWriting } from "./repair/dirty-image.js";
import { reloadImage, repairOpenImage } from "./repair/open-image.js";
import { DamageError } from "./refcount/damage.js";
import { Qcow2Snapshots } from "./snapshot/control.js";
import { statisticsOf, withCompressedCacheRow } from "./statistics.js";
import {
  settleCompressedCache,
  wantsCompressedCache,
} from "./writeback/compressed-cache-switch.js";
import { markClean } from "./writeback/dirty-bit.js";
import { BestEffort, flushLocked, flushToOs } from "./writeback/flush.js";
import { markCorrupt, prepareForWriting } from "./writeback/prepare.js";

/** Compressed data is read by whole sectors, so the file reaches to the end of the last one. */
const COMPRESSED_SECTOR_BYTES = 512;

export class Qcow2Driver implements BlockDriver {
  readonly driverName = "qcow2";
  readonly limits: BlockLimits;
  readonly snapshots: SnapshotControl;
  readonly bitmaps: BitmapControl;
  #image: Qcow2Image;
  #capabilities: BlockCapabilities;
  #closed = false;
  /** Handed over to another process: see activation.ts. */
  #inactive = false;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.bitmaps = new Qcow2Bitmaps({
      image: () => this.#image,
      begin: (op) => this.#refuseIdle(op),
      change: (op, work) => this.#change(op, work),
      store: async () => {
        await flushLocked(this.#image);
        await this.#storeBitmaps();
      },
    });
    this.snapshots = new Qcow2Snapshots({
      image: () => this.#image,
      begin: (op, offset, options) => this.#beginBeside(op, offset, options),
      change: (op, work) => this.#change(op, work),
    });
    const { clusterSize, subclusterSize } = image.geometry;
    this.limits = limitsOf({
      maxTransfer: MAX_TRANSFER_BYTES,
      optimalTransfer: clusterSize,
      writeZeroesAlignment: subclusterSize,
      discardAlignment: clusterSize,
    });
    this.#capabilities = capabilitiesOf(image);
  }

  get capabilities(): BlockCapabilities {
    return this.#capabilities;
  }

  get lengthBytes(): number {
    return this.#image.geometry.virtualSize;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.#begin("read", offset, target.lengthBytes, options);
    return readGuest(this.#image, offset, target, options);
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    this.#begin("write", offset, source.lengthBytes, options);
    const image = this.#image;
    if (options?.compressed === true) {
      if (image.geometry.externalData) {
        throw new UnsupportedError("compressed data cannot lie in an external data file", {
          op: "write",
          node: image.nodeName,
        });
      }
      const { signal } = options;
      return this.#change("write", () => {
        image.bitmaps.mark(offset, source.lengthBytes);
        return writeCompressed(image, offset, source, signal === undefined ? {} : { signal });
      });
    }
    // The fast way, for images that are being written already: no closure, no promise of our own.
    if (image.writePrepared && image.failure === undefined && !this.#closed) {
      let written: MaybePromise<void>;
      try {
        image.bitmaps.mark(offset, source.lengthBytes);
        written = writeGuest(image, offset, source, options);
      } catch (error) {
        return this.#failed(error);
      }
      return written instanceof Promise ? written.catch(this.#rethrow) : written;
    }
    return this.#change("write", () => {
      image.bitmaps.mark(offset, source.lengthBytes);
      return writeGuest(image, offset, source, options);
    });
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options: WriteZeroesOptions = {},
  ): MaybePromise<void> {
    this.#begin("write zeroes", offset, lengthBytes, options);
    return this.#change("write zeroes", () => {
      this.#image.bitmaps.mark(offset, lengthBytes);
      return zeroGuest(this.#image, offset, lengthBytes, options);
    });
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    this.#begin("discard", offset, lengthBytes, options);
    return this.#change("discard", () => {
      this.#image.bitmaps.mark(offset, lengthBytes);
      return discardGuest(this.#image, offset, lengthBytes, options);
    });
  }

  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    this.#begin("block status", offset, lengthBytes, options);
    return statusOf(this.#image, offset, lengthBytes, options);
  }

  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    this.#begin("truncate", 0, 0, options);
    return this.#change("truncate", () => truncateGuest(this.#image, lengthBytes, options));
  }

  flushToOs(): MaybePromise<void> {
    if (this.#image.readOnly || this.#inactive) return;
    let flushed: MaybePromise<void>;
    try {
      flushed = flushToOs(this.#image);
    } catch (error) {
      return this.#failed(error);
    }
    return flushed instanceof Promise ? flushed.catch(this.#rethrow) : flushed;
  }

  flushToDisk(): void {}

  async reopen(request: ReopenRequest): Promise<void> {
    const image = this.#image;
    this.#refuseIdle("reopen");
    if (image.snapshot !== undefined && !request.readOnly) {
      throw new BlockError("EACCES", "reopen: a snapshot can only be read", {
        op: "reopen",
        node: image.nodeName,
      });
    }
    const options = parseOptions(openOptions, request.options, "qcow2");
    const given = Object.keys(request.options);
    const lazy = given.includes("lazy-refcounts")
      ? lazyRefcountsOf(options, image.header)
      : image.lazyRefcounts;
    const overlapKinds = overlapKindsOf(options);
    if (image.readOnly && !request.readOnly) {
      const header = await readyForWriting(image.file, image.header, image.nodeName);
      if (header === image.header) {
        image.refcountTable = await readRefcountTable(image.file, header, false);
      } else await reloadImage(image, header, false);
    }
    if (!image.readOnly && (request.readOnly || lazy !== image.lazyRefcounts)) {
      await this.flushToOs();
      if (request.readOnly) {
        await this.#storeBitmaps();
        await this.#padFile();
        // Whoever only reads has nothing to sync when it closes.
        if (image.touched) await image.sync();
      }
      await this.#locked(() => markClean(image));
    }
    // What may fail comes first: after that nothing has changed.
    await settleCompressedCache(
      image,
      given.includes("compressed-write-cache") ? compressedCacheModeOf(options) : undefined,
    );
    image.lazyRefcounts = lazy;
    image.readOnly = request.readOnly;
    this.#capabilities = capabilitiesOf(image);
    const policy = discardPolicyOf(options);
    for (const reason of ["request", "snapshot", "other"] as const) {
      if (given.includes(`pass-discard-${reason}`)) image.frees.policy[reason] = policy[reason];
    }
    if (given.some((name) => name.startsWith("overlap-check"))) {
      image.overlap.reset(overlapKinds);
      image.writePrepared = false;
      image.preparing = undefined;
    }
  }

  async inactivate(): Promise<void> {
    this.#refuseClosed("inactivate");
    if (this.#inactive) return;
    try {
      await inactivateImage(this.#image, {
        storeBitmaps: () => this.#storeBitmaps(),
        padFile: () => this.#padFile(),
      });
    } catch (error) {
      await this.#failed(error);
    }
    this.#inactive = true;
  }

  async activate(): Promise<void> {
    this.#refuseClosed("activate");
    if (!this.#inactive) return;
    this.#image = await activateImage(this.#image);
    this.#inactive = false;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    const image = this.#image;
    const walk = new BestEffort(image.nodeName);
    const writes = !image.readOnly && image.touched && !this.#inactive;
    this.#closed = true;
    if (writes) {
      await walk.attempt("flush", () => this.flushToOs());
      // Bitmaps that are stored claim that the disk is as they say.
      if (walk.succeeded) await walk.attempt("bitmaps", () => this.#storeBitmaps());
      await walk.attempt("end of the file", () => this.#padFile());
      await walk.attempt("data file", () => image.externalData?.child.flush());
      await walk.attempt("sync", () => image.file.flush());
      // Only when all that went well are the refcounts to be believed again.
      if (walk.succeeded)
        await walk.attempt("dirty bit", () => this.#locked(() => markClean(image)));
    }
    await walk.attempt("compressed cache", () => image.compressedCache?.free());
    await walk.attempt("codec", () => image.releaseCodec());
    walk.end();
  }

  formatInfo(): MaybePromise<FormatInfo> {
    this.#refuseClosed("info");
    const info = imageInfoOf(this.#image.file, this.#image.header);
    return wantsCompressedCache(this.#image) ? andThen(info, withCompressedCacheRow) : info;
  }

  statistics(): Readonly<Record<string, number | boolean | string>> {
    return statisticsOf(this.#image);
  }

  async check(options: CheckOptions = {}): Promise<CheckResult> {
    const image = this.#image;
    this.#refuseIdle("check");
    await this.flushToOs();
    const { file, header, snapshot } = image;
    // A snapshot's view has a header of its own: a check is of the image.
    const stored = snapshot === undefined ? header : await readHeader(file);
    const { fix } = options;
    // A check sees the file: refcounts that were put off belong there now.
    if (image.lazyRefcounts) await this.#locked(() => image.refcounts.write());
    if (fix === undefined) return checkQcow2(file, stored, options);
    if (snapshot !== undefined || image.readOnly) {
      const message = "check: the image is open read-only, and cannot be repaired";
      throw new BlockError("EACCES", message, { op: "check", node: image.nodeName });
    }
    image.refuseFailed();
    return this.#locked(() => repairOpenImage(image, { ...options, fix }));
  }

  async #locked<T>(work: () => MaybePromise<T>): Promise<T> {
    const lease = await this.#image.lock.acquire();
    try {
      return await work();
    } finally {
      lease.release();
    }
  }

  changeBacking(reference: BackingReference | undefined): Promise<void> {
    this.#begin("rebase", 0, 0);
    return this.#change("rebase", () => changeBacking(this.#image, reference));
  }

  makeEmpty(): Promise<void> {
    this.#begin("make empty", 0, 0);
    return this.#change("make empty", () => makeEmpty(this.#image));
  }

  async amend(values: OptionValues, options: AmendDriverOptions = {}): Promise<void> {
    this.#begin("amend", 0, 0, options);
    requestOf(this.#image.header, values);
    const { signal, onProgress = () => {} } = options;
    await this.#change("amend", async () => {
      const old = this.#image;
      const io = signal === undefined ? {} : { signal };
      // An image that takes this one's place finds its bitmaps in the file. They claim that the disk is as they say.
      await flushLocked(old);
      await this.#storeBitmaps();
      // Asked again: those that were only in memory may stand in the way.
      const request = requestOf(old.header, values);
      this.#image = await amendImage(old, request, onProgress, io);
      if (this.#image === old) return;
      old.compressedCache?.free();
      await settleCompressedCache(this.#image);
      await old.releaseCodec();
    });
  }

  /** Runs a change of the image, with everything that comes before and after each. */
  async #change<T>(op: string, work: () => MaybePromise<T>): Promise<T> {
    const image = this.#image;
    this.#refuseIdle(op);
    if (image.readOnly) {
      throw new BlockError("EACCES", `${op}: the image is open read-only`, {
        op,
        node: image.nodeName,
      });
    }
    try {
      image.refuseFailed();
      if (!image.writePrepared) await prepareForWriting(image);
      return await work();
    } catch (error) {
      return this.#failed(error);
    }
  }

  readonly #rethrow = (error: unknown): Promise<never> => this.#failed(error);

  /** A failure on its way to the caller: damage that a writer found fails the node [C16]. */
  async #failed(error: unknown): Promise<never> {
    if (error instanceof DamageError) await markCorrupt(this.#image, error);
    throw error;
  }

  /** What is written next is noted anew, also after a failure: the image is prepared for writing again. */
  async #storeBitmaps(): Promise<void> {
    const image = this.#image;
    const lease = await image.lock.acquire();
    try {
      await image.bitmaps.store();
    } finally {
      image.writePrepared = false;
      image.preparing = undefined;
      lease.release();
    }
  }

  /** Makes the file end with whole sectors, as readers of compressed data expect. */
  async #padFile(): Promise<void> {
    const { file, wroteCompressed, frozen } = this.#image;
    if (!wroteCompressed || frozen) return;
    const end = file.lengthBytes;
    const padded = alignUp(end, COMPRESSED_SECTOR_BYTES);
    if (padded > end) await file.writev(end, IoVector.allocate(padded - end));
  }

  #begin(op: string, offset: number, length: number, options?: RequestOptions): void {
    if (options?.signal?.aborted === true) {
      throw new BlockError("ECANCELED", `${op}: the request was aborted`, { op, offset, length });
    }
    const idle = this.#closed || this.#inactive;
    if (offset >= 0 && offset + length <= this.lengthBytes && !idle) return;
    this.#refuseIdle(op);
    throw new BlockError("EINVAL", `${op}: the range is not on the disk`, { op, offset, length });
  }

  #refuseIdle(op: string): void {
    this.#refuseClosed(op);
    if (!this.#inactive) return;
    const { nodeName } = this.#image;
    throw new BlockError(
      "EBUSY",
      `${op}: the image is inactive, since it was handed over to another process: activate it first`,
      { op, node: nodeName },
    );
  }

  /** As `#begin`, for what does not lie on the disk. */
  #beginBeside(op: string, offset: number, options?: RequestOptions): void {
    this.#begin(op, 0, 0, options);
    this.#refuseIdle(op);
    if (Number.isSafeInteger(offset) && offset >= 0) return;
    throw new BlockError("EINVAL", `${op}: offset ${offset} is none`, { op });
  }

  #refuseClosed(op: string): void {
    if (!this.#closed) return;
    throw new BlockError("ECLOSED", `${op}: the image is closed`, { op });
  }
}

function capabilitiesOf({ readOnly, geometry }: Qcow2Image): BlockCapabilities {
  const write = !readOnly;
  return {
    write,
    // Compressed data has no place of its own in a file where each cluster has one.
    compressedWrite: write && !geometry.externalData,
    writeZeroes: write,
    discard: write,
    fua: false,
    truncate: write,
    backing: true,
  };
}
