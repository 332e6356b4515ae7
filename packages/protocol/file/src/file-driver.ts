/**
 * The drivers `file` and `host_device`: the bytes of a file or block device of this machine.
 *
 * Above: the block graph, or whoever holds a `directChild` of it. Below: HostFile and its helpers.
 * 1. `flushToDisk` that failed once keeps failing on a file in the page cache: the kernel may have dropped the
 *    pages that it could not write, and would call the next sync a success.
 * 2. `close` lets go of the locks and the descriptor whatever else fails.
 * 3. With `cache.direct` the last block of a file whose length is not a multiple of the alignment reads as
 *    zeroes past the end; writing it makes the file longer.
 * No locking inside: requests go to the system side by side, and the graph keeps them off truncate, reopen and
 * close.
 */
import {
  alignDown,
  alignUp,
  assert,
  BlockError,
  type IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  type Permissions,
  type ReopenRequest,
  type RequestOptions,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { fdatasync } from "node:fs";
import { CachedReads } from "./cached-reads.js";
import type { FileExtent } from "./extent-cache.js";
import { canceledError, fileError } from "./file-error.js";
import {
  capabilitiesOf,
  limitsFor,
  lockedPermissions,
  mayKeepHoles,
  permissionsFor,
} from "./file-limits.js";
import { isOneHole, seekExtent, statusOf } from "./file-status.js";
import type { HostFile } from "./host-file.js";
import type { ImageLock, LockState } from "./image-lock.js";
import type { NativeFs } from "./native.js";
import { readAt, writeAt } from "./positional-io.js";
import { resizeFile } from "./resize.js";
import { FileSpace } from "./space.js";

/** What FileDriver stands on; made by `openFile` and the driver definitions. */
export interface FileParts {
  readonly file: HostFile;
  readonly native: NativeFs | undefined;
  readonly lock: ImageLock;
  readonly permissions: Permissions;
  readonly forceShare: boolean;
  readonly noFlush: boolean;
  readonly limits: BlockLimits;
  /** Opens the same name again, for `reopen`. */
  readonly openAgain: OpenAgain;
}

/** Opens the same file anew. */
export type OpenAgain = (how: {
  readonly readOnly: boolean;
  readonly direct: boolean;
}) => Promise<HostFile>;

/** One open file or block device. */
export class FileDriver implements BlockDriver {
  readonly driverName: "file" | "host_device";
  readonly filename: string;
  #limits: BlockLimits;
  #capabilities: BlockCapabilities;
  #file: HostFile;
  #space: FileSpace;
  #cachedReads: CachedReads;
  #lock: ImageLock;
  #noFlush: boolean;
  #permissions: Permissions;
  readonly #forceShare: boolean;
  readonly #native: NativeFs | undefined;
  readonly #openAgain: OpenAgain;
  #flushFailure: BlockError | undefined;
  #reads = 0;
  #readBytes = 0;
  #writes = 0;
  #writtenBytes = 0;
  #flushes = 0;

  /** Not for callers: see `openFile`. */
  constructor(parts: FileParts) {
    this.#file = parts.file;
    this.#native = parts.native;
    this.#lock = parts.lock;
    this.#permissions = parts.permissions;
    this.#forceShare = parts.forceShare;
    this.#noFlush = parts.noFlush;
    this.#limits = parts.limits;
    this.#openAgain = parts.openAgain;
    this.filename = parts.file.filename;
    this.driverName = parts.file.kind === "device" ? "host_device" : "file";
    this.#space = new FileSpace(parts.file, parts.native, parts.limits.requestAlignment);
    this.#cachedReads = new CachedReads(parts.file, parts.native);
    this.#capabilities = capabilitiesOf(parts.file, this.#space);
  }

  get lengthBytes(): number {
    return this.#file.lengthBytes;
  }

  get limits(): BlockLimits {
    return this.#limits;
  }

  get capabilities(): BlockCapabilities {
    return this.#capabilities;
  }

  /** How the file is guarded against other users. */
  get lockState(): LockState {
    return this.#lock.state;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const signal = options?.signal;
    this.#begin("read", signal);
    this.#reads++;
    this.#readBytes += target.lengthBytes;
    if (target.lengthBytes === 0) return;
    const [only, more] = target.parts;
    if (only !== undefined && more === undefined && this.#cachedReads.read(offset, only)) return;
    return readAt(this.#file, offset, target, signal);
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    assert(options?.compressed !== true, "a byte store gets no compressed writes");
    const signal = options?.signal;
    this.#beginChange("write", signal);
    this.#writes++;
    this.#writtenBytes += source.lengthBytes;
    if (source.lengthBytes === 0) return;
    const written = writeAt(this.#file, offset, source, signal);
    return options?.fua === true ? written.then(() => this.flushToDisk()) : written;
  }

  async writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): Promise<void> {
    this.#beginChange("write zeroes", options?.signal);
    this.#writes++;
    if (lengthBytes > 0) await this.#space.zero(offset, lengthBytes, options ?? {});
    this.#recheckCapabilities();
    if (options?.fua === true) await this.flushToDisk();
  }

  async discard(offset: number, lengthBytes: number, options?: RequestOptions): Promise<void> {
    this.#beginChange("discard", options?.signal);
    if (!this.#space.canPunch) return;
    await this.#space.discard(offset, lengthBytes);
    this.#recheckCapabilities();
  }

  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    this.#begin("block status", options?.signal);
    assert(lengthBytes > 0, "a status is asked for at least one byte");
    const file = this.#file;
    if (offset >= file.lengthBytes) return statusOf(false, offset, lengthBytes);
    if (options?.wantZero === false || file.kind === "device") {
      return statusOf(true, offset, lengthBytes);
    }
    if (this.#native === undefined) {
      return isOneHole(file).then((hole) => statusOf(!hole, offset, lengthBytes));
    }
    const extent = seekExtent(file, this.#native, offset);
    if (extent === undefined) return statusOf(true, offset, lengthBytes);
    const end = wholeUnits(extent, file.lengthBytes, this.#limits.requestAlignment);
    // Data that begins inside the first unit makes all of it data.
    if (end <= offset) return statusOf(true, offset, this.#limits.requestAlignment);
    return statusOf(extent.data, offset, Math.min(end - offset, lengthBytes));
  }

  async truncate(lengthBytes: number, options?: TruncateOptions): Promise<void> {
    this.#beginChange("truncate", options?.signal);
    await resizeFile(this.#file, this.#space, lengthBytes, options, () => this.flushToDisk());
  }

  /** Every write is with the operating system already. */
  flushToOs(): void {
    this.#begin("flush", undefined);
  }

  /**
   * Makes all that was written stable. With `cache.no-flush` it does nothing at all.
   *
   * @throws BlockError with the errno of the system; the first failure again and again (invariant 1)
   */
  flushToDisk(): MaybePromise<void> {
    this.#begin("flush", undefined);
    if (this.#flushFailure !== undefined) throw this.#flushFailure;
    if (this.#noFlush || this.#file.readOnly) return;
    this.#flushes++;
    const file = this.#file;
    file.dirty = false;
    return new Promise((resolve, reject) => {
      fdatasync(file.fd, (error) => {
        if (error === null) {
          resolve();
          return;
        }
        file.dirty = true;
        const failure = fileError(error, "flush", file);
        if (!file.direct) this.#flushFailure ??= failure;
        reject(failure);
      });
    });
  }

  /**
   * Changes read-only, `cache.direct` and `cache.no-flush`. The file is opened anew and must be the same one.
   * After failure: as before.
   */
  async reopen(request: ReopenRequest): Promise<void> {
    this.#begin("reopen", undefined);
    const direct = flagOf(request.options["cache.direct"], this.#file.direct);
    const noFlush = flagOf(request.options["cache.no-flush"], this.#noFlush);
    const asked = request.permissions ?? permissionsFor(this.#permissions, request.readOnly);
    if (this.#forceShare && !request.readOnly) {
      const message = `'${this.filename}': reopen: force-share=on needs read-only=on`;
      throw new BlockError("EINVAL", message, { op: "reopen", node: this.#file.nodeName });
    }
    if (direct !== this.#file.direct || request.readOnly !== this.#file.readOnly) {
      await this.#replaceFile(request.readOnly, direct, asked);
    } else {
      await this.#relock(asked);
    }
    this.#noFlush = noFlush;
    this.#file.extents.mayKeepHoles = mayKeepHoles(this.#lock.state, this.#permissions);
  }

  /** Another process may have made the file longer or shorter, and moved its holes. Locks follow the permissions. */
  async activate(): Promise<void> {
    this.#begin("activate", undefined);
    const file = this.#file;
    if (file.kind === "regular") file.lengthBytes = (await file.stat()).sizeBytes;
    file.extents.forget();
  }

  async close(): Promise<void> {
    if (this.#file.fd < 0) return;
    const failures: unknown[] = [];
    try {
      if (this.#file.dirty || this.#flushFailure !== undefined) await this.flushToDisk();
    } catch (error) {
      failures.push(error);
    }
    try {
      this.#lock.release();
      await this.#file.close();
    } catch (error) {
      failures.push(error);
    }
    if (failures.length > 0) throw failures[0];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The space that the file takes on its file system: less than its length where there are holes. */
  async allocatedBytes(): Promise<number> {
    this.#begin("stat", undefined);
    const { blocks } = await this.#file.stat();
    return blocks * SECTOR_SIZE_BYTES;
  }

  statistics(): Readonly<Record<string, number | boolean | string>> {
    return {
      reads: this.#reads,
      readBytes: this.#readBytes,
      cachedReads: this.#cachedReads.count,
      writes: this.#writes,
      writtenBytes: this.#writtenBytes,
      flushes: this.#flushes,
      direct: this.#file.direct,
      locks: this.#lock.state,
    };
  }

  async #relock(asked: Permissions): Promise<void> {
    const permissions = lockedPermissions(asked, this.#file.readOnly, this.#forceShare);
    await this.#lock.set(permissions);
    this.#permissions = permissions;
  }

  async #replaceFile(readOnly: boolean, direct: boolean, asked: Permissions): Promise<void> {
    const next = await this.#openAgain({ readOnly, direct });
    try {
      if (next.identity !== this.#file.identity) {
        throw new BlockError("EBUSY", `'${this.filename}' is another file by now`, {
          op: "reopen",
          node: next.nodeName,
        });
      }
      const limits = await limitsFor(next);
      if (this.#file.dirty) await this.flushToDisk();
      const permissions = lockedPermissions(asked, next.readOnly, this.#forceShare);
      const lock = await this.#lockFor(next, permissions);
      const old = this.#file;
      this.#file = next;
      this.#lock = lock;
      this.#permissions = permissions;
      this.#limits = limits;
      this.#space = new FileSpace(next, this.#native, limits.requestAlignment);
      this.#cachedReads = new CachedReads(next, this.#native);
      this.#capabilities = capabilitiesOf(next, this.#space);
      // All that was written is stable, so a failed close of the old descriptor loses nothing.
      await old.close().catch(() => undefined);
    } catch (error) {
      if (next !== this.#file) await next.close().catch(() => undefined);
      throw error;
    }
  }

  /** The new locks, first on the old descriptor (its own do not count as others'), then on the next. */
  async #lockFor(next: HostFile, permissions: Permissions): Promise<ImageLock> {
    await this.#lock.set(permissions);
    try {
      return this.#lock.copyTo(next);
    } catch (error) {
      await this.#lock.set(this.#permissions);
      throw error;
    }
  }

  /** What the file system turned out not to have. */
  #recheckCapabilities(): void {
    const { writeZeroes, discard } = this.#capabilities;
    if (writeZeroes !== this.#space.canZero || discard !== this.#space.canPunch) {
      this.#capabilities = capabilitiesOf(this.#file, this.#space);
    }
  }

  #begin(op: string, signal: AbortSignal | undefined): void {
    if (this.#file.fd < 0) {
      throw new BlockError("ECLOSED", `'${this.filename}' is closed: ${op} is refused`, {
        op,
        node: this.#file.nodeName,
      });
    }
    if (signal?.aborted === true) throw canceledError(op, this.#file, signal);
  }

  #beginChange(op: string, signal: AbortSignal | undefined): void {
    this.#begin(op, signal);
    if (!this.#file.readOnly) return;
    throw new BlockError("EACCES", `'${this.filename}' is open read-only: ${op} is refused`, {
      op,
      node: this.#file.nodeName,
    });
  }
}

function flagOf(value: unknown, fallback: boolean): boolean {
  return typeof value === "boolean" ? value : fallback;
}

/** An extent's end in whole request units: data is rounded up, a hole down, save at the end of the file. */
function wholeUnits(extent: FileExtent, lengthBytes: number, unit: number): number {
  if (extent.data) return alignUp(extent.end, unit);
  return extent.end < lengthBytes ? alignDown(extent.end, unit) : Number.MAX_SAFE_INTEGER;
}
