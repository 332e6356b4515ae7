/**
 * What a user of a graph holds: a disk, any byte range of it, from 0 to its length.
 *
 * Above: services and users. Below: the root node's NodeIo.
 *
 * 1. A request that goes past the end is refused with `EIO`, one of length 0 does nothing, and after `close` every
 *    one is refused with `ECLOSED`.
 * 2. The hot path makes no promise of its own: `readv` and `writev` return what the driver returns.
 * 3. With `writethrough` a write resolves when the bytes are stable.
 */
import { BlockError, hex, IoVector, KiB, type MaybePromise } from "@blocklayer/bytes";
import { CoMutex } from "@blocklayer/co-lock";
import {
  type BitmapControl,
  type BlockCapabilities,
  type BlockChild,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  type CheckOptions,
  type CheckResult,
  PERMISSION,
  type RequestOptions,
  type SnapshotControl,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { inactiveError } from "./activation.js";
import type { ChangeRights } from "./at-rest.js";
import { updatePermissions } from "./attach.js";
import { BackendBitmaps } from "./bitmaps.js";
import { type LayeredStatus, refuseForeignBase, statusAbove } from "./block-status.js";
import { ChildHandle } from "./child-handle.js";
import { ErrorCollector, release } from "./close.js";
import type { Edge } from "./edge.js";
import { type Extent, type ExtentOptions, listExtents } from "./extents.js";
import type { GraphState } from "./graph-state.js";
import type { NodeIo } from "./node-io.js";
import type { BlockNode } from "./node.js";
import { readableOf, type ReadableOptions } from "./readable.js";
import {
  closedError,
  pastTheEnd,
  readOnlyError,
  refuseAborted,
  refuseBadRange,
} from "./request-checks.js";
import { BackendSnapshots, snapshotKeeper } from "./snapshots.js";

const DEFAULT_CHUNK_BYTES: number = 256 * KiB;
const FUA: WriteOptions = { fua: true };

export class BlockBackend implements AsyncDisposable {
  /** The node at the top. */
  readonly root: BlockNode;
  readonly #state: GraphState;
  readonly #edge: Edge;
  readonly #io: NodeIo;
  readonly #writethrough: boolean;
  /** One `truncate` or repair at a time has the permission for it. */
  readonly #resizing: CoMutex = new CoMutex("truncate");
  readonly #rights: ChangeRights = {
    refuseClosed: (op) => this.#refuseClosed(op),
    refuseReadOnly: (op) => {
      if (this.readOnly) throw this.#changeError(op);
    },
  };
  #bitmaps: BackendBitmaps | undefined = undefined;
  #snapshots: BackendSnapshots | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #closed = false;

  /** @internal */
  constructor(state: GraphState, edge: Edge, writethrough: boolean) {
    this.#state = state;
    this.#edge = edge;
    this.root = edge.node;
    this.#io = edge.node.io;
    this.#writethrough = writethrough;
  }

  /** Current length in bytes. */
  get lengthBytes(): number {
    return this.#io.driver.lengthBytes;
  }

  get readOnly(): boolean {
    return (this.#edge.permissions.held & PERMISSION.write) === 0;
  }

  /** What suits the root node best. Requests need not keep to it. */
  get limits(): BlockLimits {
    return this.root.driver.limits;
  }

  /** What the root node can do; what it cannot, the graph makes up for or skips. */
  get capabilities(): BlockCapabilities {
    return this.root.driver.capabilities;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** @internal */
  get edge(): Edge {
    return this.#edge;
  }

  /**
   * Reads into a new buffer.
   *
   * @throws BlockError `EIO` past the end, `ENOMEM` for more than memory can hold, and what the drivers throw
   */
  async read(
    offset: number,
    lengthBytes: number,
    options?: RequestOptions,
  ): Promise<Uint8Array<ArrayBuffer>> {
    this.#check("read", offset, lengthBytes, options);
    const bytes = this.#allocate(lengthBytes);
    await this.readv(offset, IoVector.of(bytes), options);
    return bytes;
  }

  /** Fills a buffer of the caller. */
  readInto(offset: number, target: Uint8Array, options?: RequestOptions): Promise<void> {
    return promised(() => this.readv(offset, IoVector.of(target), options));
  }

  /** Fills a vector. The hot path: it may return plainly, and throw plainly. */
  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const length = target.lengthBytes;
    this.#check("read", offset, length, options);
    if (length === 0) return undefined;
    return this.#io.readv(offset, target, options);
  }

  /**
   * Writes a buffer. Resolved: readers see it. It survives a crash after the next `flush`.
   *
   * @throws BlockError `EPERM` when read-only, `EIO` past the end, and what the drivers throw
   */
  write(offset: number, bytes: Uint8Array, options?: WriteOptions): Promise<void> {
    return promised(() => this.writev(offset, IoVector.of(bytes), options));
  }

  /** Writes a vector. The hot path, as `readv`. */
  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const length = source.lengthBytes;
    this.#checkChange("write", offset, length, options);
    if (length === 0) return undefined;
    if (!this.#writethrough) return this.#io.writev(offset, source, options);
    return this.#io.writev(offset, source, options === undefined ? FUA : { ...options, ...FUA });
  }

  /** Makes a range read as zeroes, as cheaply as the drivers can. */
  async writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): Promise<void> {
    this.#checkChange("write zeroes", offset, lengthBytes, options);
    if (lengthBytes === 0) return;
    const passed = this.#writethrough ? { ...options, ...FUA } : options;
    await this.#io.writeZeroes(offset, lengthBytes, passed);
  }

  /** Says that a range is no longer needed. Afterwards it reads as before or as zeroes. */
  async discard(offset: number, lengthBytes: number, options?: RequestOptions): Promise<void> {
    this.#checkChange("discard", offset, lengthBytes, options);
    if (lengthBytes === 0) return;
    await this.#io.discard(offset, lengthBytes, options);
  }

  /** Makes everything written so far survive a crash. */
  async flush(options?: RequestOptions): Promise<void> {
    this.#refuseClosed("flush");
    await this.root.flush(options);
  }

  /**
   * Sets the length. Takes the permission to resize for as long as it lasts, unless it is held already.
   *
   * @throws BlockError `EPERM` when another user of a node does not share that permission
   */
  async truncate(lengthBytes: number, options?: TruncateOptions): Promise<void> {
    this.#refuseClosed("truncate");
    refuseBadRange("truncate", this.root.name, lengthBytes, 0);
    if (this.readOnly) throw this.#changeError("truncate");
    await this.#whileResizing("truncate", () => this.root.truncate(lengthBytes, options));
  }

  /**
   * Internal snapshots, where the root node's format keeps them, or a node that it passes through: see
   * `snapshotKeeper`. These nodes are at rest while they change.
   */
  get snapshots(): SnapshotControl | undefined {
    const keeper = snapshotKeeper(this.root);
    const snapshots = keeper?.driver.snapshots;
    if (keeper === undefined || snapshots === undefined) return undefined;
    this.#snapshots ??= new BackendSnapshots(this.root, keeper, snapshots, {
      ...this.#rights,
      whileResizing: (work) => this.#whileResizing("apply snapshot", work),
    });
    return this.#snapshots;
  }

  /**
   * Looks for broken metadata, and mends it when `fix` says so. A repair takes the permission to resize for as long as
   * it lasts, since the file may grow, and lets no other request run.
   *
   * @throws BlockError `EPERM` for a repair when read-only, or when another user does not share that permission;
   *   UnsupportedError when the format has no checks
   */
  async check(options: CheckOptions = {}): Promise<CheckResult> {
    this.#refuseClosed("check");
    if (options.fix === undefined) return await this.root.check(options);
    if (this.readOnly) throw this.#changeError("repair");
    return await this.#whileResizing("check", () => this.root.check(options));
  }

  /** Dirty bitmaps, where the root node's format keeps them. The node is at rest while they change. */
  get bitmaps(): BitmapControl | undefined {
    const { bitmaps } = this.root.driver;
    if (bitmaps === undefined) return undefined;
    this.#bitmaps ??= new BackendBitmaps(this.root, bitmaps, this.#rights);
    return this.#bitmaps;
  }

  /** The extent at `offset` as the root node alone sees it. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    this.#checkStatus(offset, lengthBytes, options);
    return this.#io.blockStatus(offset, lengthBytes, options);
  }

  /**
   * The extent at `offset` as all layers above `base` see it.
   *
   * @param base - a node of the backing chain; `undefined`: all layers
   * @throws BlockError `EINVAL` when `base` is not below the root
   */
  blockStatusAbove(
    base: BlockNode | undefined,
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<LayeredStatus> {
    this.#checkStatus(offset, lengthBytes, options);
    refuseForeignBase(this.root, base);
    return statusAbove(this.root, base, offset, lengthBytes, options);
  }

  /** The extents of the whole chain, neighbours of one kind as one, as they are asked for. */
  extents(options: ExtentOptions = {}): AsyncGenerator<Extent, void, undefined> {
    this.#refuseClosed("map");
    return listExtents(this.root, options);
  }

  /**
   * The disk as a driver sees a child, for a format's `create`: it grows when written past its end, if the backend
   * holds `resize`. Not to be used after `close`.
   */
  asChild(): BlockChild {
    this.#refuseClosed("use as a child");
    return new ChildHandle(this.#edge);
  }

  /** The disk's bytes as a stream that reads no further ahead than its consumer asks. */
  readable(options: ReadableOptions = {}): ReadableStream<Uint8Array> {
    const { start = 0, end = this.lengthBytes, chunkBytes = DEFAULT_CHUNK_BYTES } = options;
    this.#check("read", start, end - start, options);
    if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1) {
      throw new BlockError("EINVAL", `chunkBytes ${chunkBytes} is no positive whole number`);
    }
    return readableOf(this, start, end, chunkBytes, options.signal);
  }

  /**
   * Flushes, and closes every node that only this backend used. A second call gives the first one's result.
   *
   * @throws the first error; the backend is closed all the same
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    const errors = new ErrorCollector();
    // With other users the node stays: what this backend has in flight must still end, and be stable.
    if (this.root.parentEdges.size > 1 || this.root.isPinned) {
      await this.root.drain();
      this.root.resume();
      await errors.try(() => this.root.flush());
    }
    await errors.try(() => release(this.#state, this.#edge));
    this.#state.backends.delete(this);
    errors.throwFirst();
  }

  /** One at a time, and with the permission that others may not share. */
  async #whileResizing<T>(op: string, work: () => MaybePromise<T>): Promise<T> {
    const lease = await this.#resizing.acquire();
    try {
      this.#refuseClosed(op);
      if ((this.#edge.permissions.held & PERMISSION.resize) !== 0) return await work();
      await this.#setResize(true);
      try {
        this.#refuseClosed(op);
        return await work();
      } finally {
        await this.#setResize(false);
      }
    } finally {
      lease.release();
    }
  }

  async #setResize(isHeld: boolean): Promise<void> {
    const { held, shared } = this.#edge.permissions;
    const next = isHeld ? held | PERMISSION.resize : held & ~PERMISSION.resize;
    await updatePermissions({ edges: new Map([[this.#edge, { held: next, shared }]]) });
  }

  #allocate(lengthBytes: number): Uint8Array<ArrayBuffer> {
    try {
      return new Uint8Array(lengthBytes);
    } catch (cause) {
      const message = `node '${this.root.name}': read: no memory for ${lengthBytes} bytes`;
      throw new BlockError("ENOMEM", message, { op: "read", node: this.root.name, cause });
    }
  }

  #refuseClosed(op: string): void {
    if (this.#closed) throw closedError(op, `the backend of node '${this.root.name}'`);
  }

  #check(op: string, offset: number, length: number, options?: RequestOptions): void {
    if (this.#closed) this.#refuseClosed(op);
    refuseBadRange(op, this.root.name, offset, length);
    if (offset + length > this.#io.driver.lengthBytes) {
      throw pastTheEnd(op, this.root.name, offset, length, this.lengthBytes);
    }
    if (options?.signal !== undefined) refuseAborted(op, this.root.name, options.signal);
  }

  #checkChange(op: string, offset: number, length: number, options?: RequestOptions): void {
    this.#check(op, offset, length, options);
    if (this.readOnly) throw this.#changeError(op);
  }

  #changeError(op: string): BlockError {
    const { isInactive, name } = this.root;
    return isInactive ? inactiveError(op, `node '${name}'`) : readOnlyError(op, name);
  }

  #checkStatus(offset: number, length: number, options?: RequestOptions): void {
    this.#check("block status", offset, length, options);
    if (length > 0) return;
    const message = `node '${this.root.name}': block status of no bytes at ${hex(offset)}`;
    throw new BlockError("EINVAL", message, { op: "block status", node: this.root.name, offset });
  }
}

/** The driver's very promise where there is one: an async function would make a second, and wait a turn for it. */
function promised(work: () => MaybePromise<void>): Promise<void> {
  try {
    return Promise.resolve(work());
  } catch (error) {
    return Promise.reject(error as Error);
  }
}
