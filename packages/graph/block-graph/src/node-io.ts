/**
 * The way of a request from the users of a node to its driver: tracked, padded, split, emulated.
 *
 * Above: BlockBackend and ChildHandle, which have checked range and permissions. Below: the driver, through
 * AlignedIo when its limits ask for it.
 *
 * 1. The driver sees only requests that satisfy its limits, and none of length 0.
 * 2. A driver without alignment gets the caller's own vector, and the caller its very promise.
 * 3. On a node with alignment every change passes through its one AlignedIo, which keeps read-modify-writes from
 *    undoing what another request put beside them.
 * 4. `fua` without the driver's help is a write and then a flush of the node, with all that is below it; a drain or a
 *    close waits for both.
 * 5. Padding makes no disk longer, save up to the end of its last sector: a write whose padding would is refused,
 *    unless a user of the node may resize it. (QEMU refuses to open such a disk.)
 * 6. Reads behind the end of the driver's disk are zeroes; writes there reach the driver, which grows.
 */
import { AlignedIo, type AlignedArena } from "@blocklayer/aligned-io";
import {
  alignDown,
  alignUp,
  assert,
  BlockError,
  hex,
  type IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import { andThen } from "@blocklayer/bytes";
import type {
  BlockDriver,
  BlockStatus,
  BlockStatusOptions,
  RequestOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import { edgeListener, type NodeDevice, nodeDevice } from "./announcing-device.js";
import { fixedPieces, forEachPiece } from "./pieces.js";
import { readOnlyError } from "./request-checks.js";
import type { RequestKind, RequestTracker } from "./request-tracker.js";
import { deviceDiscard, deviceWriteZeroes, type ZeroTarget } from "./zero-and-discard.js";

/** What NodeIo needs of its node. */
export interface NodeIoHost {
  readonly name: string;
  readonly driver: BlockDriver;
  readonly tracker: RequestTracker;
  readonly arena: AlignedArena;
  /** Whether a user may change the length. */
  readonly mayResize: boolean;
  /** A flush that a drain does not hold up. Requires: a request in flight asks for it. */
  flushWithin(options?: RequestOptions): MaybePromise<void>;
}

export class NodeIo implements ZeroTarget {
  readonly name: string;
  readonly driver: BlockDriver;
  /** The driver as requests reach it: itself, unless it listens to what the graph does. */
  readonly device: NodeDevice;
  readonly #host: NodeIoHost;
  readonly #tracker: RequestTracker;
  #aligned: AlignedIo | undefined;
  #maxTransfer = 0;
  #requestAlignment = 1;

  constructor(host: NodeIoHost) {
    this.name = host.name;
    this.driver = host.driver;
    this.device = nodeDevice(host.driver);
    this.#host = host;
    this.#tracker = host.tracker;
    this.limitsChanged();
  }

  /** To be called after a reopen. Requires: the node is drained. */
  limitsChanged(): void {
    const { requestAlignment, memoryAlignment, maxTransfer } = this.driver.limits;
    const trivial = requestAlignment === 1 && memoryAlignment === 1;
    this.#aligned = trivial
      ? undefined
      : new AlignedIo(this.device, this.#host.arena, edgeListener(this.driver));
    this.#maxTransfer = maxTransfer;
    this.#requestAlignment = requestAlignment;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const tracker = this.#tracker;
    const length = target.lengthBytes;
    if (!tracker.clear || options?.serialising === true) {
      return this.#tracked("read", offset, length, options, () =>
        this.#deviceRead(offset, target, options),
      );
    }
    const request = tracker.begin("read", offset, length, false);
    try {
      return tracker.settle(request, this.#deviceRead(offset, target, options));
    } catch (error) {
      tracker.end(request, false);
      throw error;
    }
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const { capabilities } = this.driver;
    if (!capabilities.write) throw readOnlyError("write", this.name);
    if (options === undefined) return this.#trackedWrite(offset, source, undefined);
    if (options.compressed === true && !capabilities.compressedWrite) {
      throw this.#unsupported("compressed write", offset, source.lengthBytes);
    }
    if (options.fua !== true || capabilities.fua)
      return this.#trackedWrite(offset, source, options);
    const passed = { ...options, fua: false };
    return this.#thenFlush(options, () => this.#trackedWrite(offset, source, passed));
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options: WriteZeroesOptions = {},
  ): MaybePromise<void> {
    const { capabilities } = this.driver;
    if (!capabilities.write) throw readOnlyError("write zeroes", this.name);
    const emulateFua = options.fua === true && !capabilities.fua;
    const passed = emulateFua ? { ...options, fua: false } : options;
    const zero = (): MaybePromise<void> =>
      this.#tracked("write", offset, lengthBytes, options, () =>
        deviceWriteZeroes(this, offset, lengthBytes, passed),
      );
    return emulateFua ? this.#thenFlush(options, zero) : zero();
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    const { capabilities } = this.driver;
    if (!capabilities.write) throw readOnlyError("discard", this.name);
    if (!capabilities.discard) return undefined;
    return this.#tracked("write", offset, lengthBytes, options, () =>
      deviceDiscard(this, offset, lengthBytes, options),
    );
  }

  /** The extent at `offset`, asked for in aligned units and cut to what was asked. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    const start = alignDown(offset, this.#requestAlignment);
    const end = alignUp(offset + lengthBytes, this.#requestAlignment);
    const status = this.#tracked("other", offset, lengthBytes, options, () =>
      this.driver.blockStatus(start, end - start, options),
    );
    return andThen(status, (found) => cutStatus(found, offset - start, lengthBytes));
  }

  /** A write without tracking, of any alignment. Requires: a request of the caller covers the range. */
  deviceWrite(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    if (this.#aligned !== undefined) {
      this.#refusePaddedGrowth(offset, source.lengthBytes);
      return this.#aligned.writev(offset, source, options);
    }
    if (source.lengthBytes <= this.#maxTransfer) {
      return this.device.writev(offset, source, options);
    }
    return this.#pieces(offset, source, (at, piece) => this.device.writev(at, piece, options));
  }

  /** A change that is no write of bytes, in order with the read-modify-writes around it. */
  deviceChange(
    offset: number,
    lengthBytes: number,
    send: () => MaybePromise<void>,
    options?: RequestOptions,
  ): MaybePromise<void> {
    return this.#aligned === undefined
      ? send()
      : this.#aligned.change(offset, lengthBytes, send, options);
  }

  #deviceRead(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const end = this.driver.lengthBytes;
    if (offset + target.lengthBytes > end) {
      const inside = Math.max(end - offset, 0);
      target.fill(0, inside);
      if (inside === 0) return undefined;
      return this.#deviceRead(offset, target.slice(0, inside), options);
    }
    if (this.#aligned !== undefined) return this.#aligned.readv(offset, target, options);
    if (target.lengthBytes <= this.#maxTransfer) return this.driver.readv(offset, target, options);
    return this.#pieces(offset, target, (at, piece) => this.driver.readv(at, piece, options));
  }

  #trackedWrite(
    offset: number,
    source: IoVector,
    options: WriteOptions | undefined,
  ): MaybePromise<void> {
    const tracker = this.#tracker;
    const length = source.lengthBytes;
    if (!tracker.clear || options?.serialising === true) {
      return this.#tracked("write", offset, length, options, () =>
        this.deviceWrite(offset, source, options),
      );
    }
    const request = tracker.begin("write", offset, length, false);
    try {
      return tracker.settle(request, this.deviceWrite(offset, source, options));
    } catch (error) {
      tracker.end(request, false);
      throw error;
    }
  }

  /** A change and the flush after it, in flight as one, without a range that others could wait for. */
  #thenFlush({ signal }: RequestOptions, change: () => MaybePromise<void>): MaybePromise<void> {
    const waits = signal === undefined ? {} : { signal };
    return this.#tracked("other", 0, 0, waits, () =>
      andThen(change(), () => this.#host.flushWithin(waits)),
    );
  }

  /** Any request, with a closure: for all but the two hot paths. */
  #tracked<T>(
    kind: RequestKind,
    offset: number,
    length: number,
    options: RequestOptions | undefined,
    work: () => MaybePromise<T>,
  ): MaybePromise<T> {
    const tracker = this.#tracker;
    const serialising = options?.serialising === true;
    if (!tracker.clear || serialising) {
      return tracker.runSlowly(kind, offset, length, serialising, options?.signal, work);
    }
    const request = tracker.begin(kind, offset, length, false);
    try {
      return tracker.settle(request, work());
    } catch (error) {
      tracker.end(request, false);
      throw error;
    }
  }

  #pieces(
    offset: number,
    vector: IoVector,
    transfer: (at: number, piece: IoVector) => MaybePromise<void>,
  ): MaybePromise<void> {
    const end = offset + vector.lengthBytes;
    return forEachPiece(offset, end, fixedPieces(this.#maxTransfer), (at, length) =>
      transfer(at, vector.slice(at - offset, at - offset + length)),
    );
  }

  #refusePaddedGrowth(offset: number, length: number): void {
    const { lengthBytes, limits } = this.driver;
    const end = offset + length;
    const wholeSectors = alignUp(lengthBytes, SECTOR_SIZE_BYTES);
    // A write that goes further by itself is meant to: who sent it was checked.
    if (alignUp(end, limits.requestAlignment) <= wholeSectors || end > wholeSectors) return;
    if (this.#host.mayResize) return;
    throw new BlockError(
      "EPERM",
      `node '${this.name}': write of ${length} bytes at ${hex(offset)} would resize it: its length ` +
        `${hex(lengthBytes)} is no multiple of its request alignment ${limits.requestAlignment}`,
      { op: "write", node: this.name, offset, length },
    );
  }

  #unsupported(op: string, offset: number, length: number): BlockError {
    const message = `node '${this.name}': driver '${this.driver.driverName}' has no ${op}`;
    return new BlockError("ENOTSUP", message, { op, node: this.name, offset, length });
  }
}

/** The status of the part that was asked for, out of one for the aligned range around it. */
function cutStatus(status: BlockStatus, skip: number, lengthBytes: number): BlockStatus {
  assert(status.lengthBytes > skip, "a driver's status covers at least one aligned unit");
  if (skip === 0 && status.lengthBytes <= lengthBytes) return status;
  const length = Math.min(status.lengthBytes - skip, lengthBytes);
  if (status.hostOffset === undefined) return { ...status, lengthBytes: length };
  return { ...status, lengthBytes: length, hostOffset: status.hostOffset + skip };
}
