/**
 * What a driver gets for each of its children: the child's I/O, tracked, padded, and held to the edge's permissions.
 *
 * Above: the parent's driver. Below: the child node's NodeIo.
 *
 * 1. A read behind the child's end gives zeroes; a write there makes it grow, if it can and the edge may resize.
 * 2. `limits` are the child's own: advice on what is efficient. Requests may break them; the node pads and splits.
 * 3. Requests of length 0 end here.
 */
import {
  alignUp,
  BlockError,
  type IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockChild,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  type DebugEvent,
  PERMISSION,
  type RequestOptions,
  storeCapabilities,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { statusAbove } from "./block-status.js";
import type { Edge } from "./edge.js";
import type { BlockNode } from "./node.js";
import { pastTheEnd, readOnlyError, refuseAborted, refuseBadRange } from "./request-checks.js";

const WRITE_PERMISSIONS: number = PERMISSION.write | PERMISSION.writeUnchanged;

export class ChildHandle implements BlockChild {
  /** Set when the child's driver listens. */
  readonly debugEvent: ((event: DebugEvent) => MaybePromise<void>) | undefined;
  readonly #edge: Edge;
  readonly #node: BlockNode;

  constructor(edge: Edge) {
    this.#edge = edge;
    this.#node = edge.node;
    const { driver } = edge.node;
    this.debugEvent = driver.debugEvent?.bind(driver);
  }

  get nodeName(): string {
    return this.#node.name;
  }

  get lengthBytes(): number {
    return this.#node.driver.lengthBytes;
  }

  get limits(): BlockLimits {
    return this.#node.driver.limits;
  }

  get capabilities(): BlockCapabilities {
    const { capabilities } = this.#node.driver;
    if (this.#mayWrite || !capabilities.write) return capabilities;
    return { ...storeCapabilities(false), backing: capabilities.backing };
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.#check("read", offset, target.lengthBytes, options);
    if (target.lengthBytes === 0) return undefined;
    return this.#node.io.readv(offset, target, options);
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    this.#checkChange("write", offset, source.lengthBytes, options);
    if (source.lengthBytes === 0) return undefined;
    return this.#node.io.writev(offset, source, options);
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void> {
    this.#checkChange("write zeroes", offset, lengthBytes, options);
    if (lengthBytes === 0) return undefined;
    return this.#node.io.writeZeroes(offset, lengthBytes, options);
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    this.#check("discard", offset, lengthBytes, options);
    if (!this.#mayWrite) throw readOnlyError("discard", this.nodeName);
    const inside = Math.min(lengthBytes, this.lengthBytes - offset);
    if (inside <= 0) return undefined;
    return this.#node.io.discard(offset, inside, options);
  }

  /** Behind the child's end everything is zero and unallocated. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    this.#check("block status", offset, lengthBytes, options);
    const inside = Math.min(lengthBytes, this.lengthBytes - offset);
    if (inside > 0 && options?.throughChain !== true) {
      return this.#node.io.blockStatus(offset, inside, options);
    }
    if (inside > 0) {
      const { throughChain: _, ...own } = options ?? {};
      return statusAbove(this.#node, undefined, offset, inside, own);
    }
    return { lengthBytes, allocated: false, data: false, zero: true, compressed: false };
  }

  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    this.#check("truncate", lengthBytes, 0, options);
    this.#refuseResize("truncate", lengthBytes, 0);
    return this.#node.truncate(lengthBytes, options);
  }

  flush(options?: RequestOptions): MaybePromise<void> {
    return this.#node.flush(options);
  }

  get #mayWrite(): boolean {
    return (this.#edge.permissions.held & WRITE_PERMISSIONS) !== 0;
  }

  #check(op: string, offset: number, length: number, options?: RequestOptions): void {
    refuseBadRange(op, this.nodeName, offset, length);
    if (options?.signal !== undefined) refuseAborted(op, this.nodeName, options.signal);
  }

  #checkChange(op: string, offset: number, length: number, options?: RequestOptions): void {
    this.#check(op, offset, length, options);
    if (!this.#mayWrite) throw readOnlyError(op, this.nodeName);
    if (offset + length > this.#paddedLength) this.#refuseResize(op, offset, length);
  }

  /**
   * How far writes reach without making the child longer: to the end of its last sector, as in QEMU, where a disk is
   * whole sectors. What pads a write in that sector is no wish to resize.
   */
  get #paddedLength(): number {
    return alignUp(this.lengthBytes, SECTOR_SIZE_BYTES);
  }

  #refuseResize(op: string, offset: number, length: number): void {
    const { capabilities, lengthBytes } = this.#node.driver;
    if (!capabilities.truncate) {
      throw pastTheEnd(op, this.nodeName, offset, length, lengthBytes);
    }
    if ((this.#edge.permissions.held & PERMISSION.resize) !== 0) return;
    const message = `node '${this.nodeName}': ${op} would resize it, and ${this.#edge.label} may not`;
    throw new BlockError("EPERM", message, { op, node: this.nodeName, offset, length });
  }
}
