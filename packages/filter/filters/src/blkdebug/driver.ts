/**
 * blkdebug: passes everything to its child, save what its rules fail or park.
 *
 * Above: any node. Below: the filtered child, RuleEngine.
 *
 * 1. A request that a rule fails does not reach the child.
 * 2. Events come from the node above (`debugEvent`), and from the graph for this node's own requests.
 * 3. Its limits are the child's, made stricter by options; it is where a file can be made to look like a disk
 *    of larger blocks.
 * 4. `close` lets every parked request go.
 *
 * Source: QEMU's docs/devel/blkdebug; behaviour beside qemu-io's.
 */
import {
  type BlockCapabilities,
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  type DebugControl,
  type DebugEvent,
  type ReopenRequest,
  type RequestOptions,
  storeCapabilities,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { andThen, BlockError, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import { RuleEngine } from "./engine.js";
import { type LimitOverrides, strictLimits } from "./limits.js";
import type { BlkdebugRules, IoType } from "./rules.js";

/** How a node is opened. */
export interface BlkdebugOptions extends LimitOverrides {
  readonly readOnly?: boolean;
}

export class BlkdebugDriver implements BlockDriver {
  readonly driverName = "blkdebug";
  readonly limits: BlockLimits;
  readonly #child: BlockChild;
  readonly #engine: RuleEngine;
  #readOnly: boolean;

  /** @throws BlockError `EINVAL` when the limits contradict each other or the child's */
  constructor(child: BlockChild, rules: BlkdebugRules, options: BlkdebugOptions = {}) {
    const { readOnly = false, ...overrides } = options;
    this.#child = child;
    this.#readOnly = readOnly;
    this.#engine = new RuleEngine(rules);
    this.limits = strictLimits(child.limits, overrides);
  }

  get debug(): DebugControl {
    return this.#engine;
  }

  get lengthBytes(): number {
    return this.#child.lengthBytes;
  }

  get capabilities(): BlockCapabilities {
    const { capabilities } = this.#child;
    if (!this.#readOnly || !capabilities.write) return capabilities;
    return { ...storeCapabilities(false), backing: capabilities.backing };
  }

  debugEvent(event: DebugEvent): MaybePromise<void> {
    return this.#engine.meet(event);
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    return this.#unlessFailed("read", offset, target.lengthBytes, () =>
      this.#child.readv(offset, target, options),
    );
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    return this.#unlessFailed("write", offset, source.lengthBytes, () =>
      this.#child.writev(offset, source, options),
    );
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void> {
    return this.#unlessFailed("write-zeroes", offset, lengthBytes, () =>
      this.#child.writeZeroes(offset, lengthBytes, options),
    );
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    return this.#unlessFailed("discard", offset, lengthBytes, () =>
      this.#child.discard(offset, lengthBytes, options),
    );
  }

  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    return this.#unlessFailed("block-status", offset, lengthBytes, () =>
      andThen(this.#child.blockStatus(offset, lengthBytes, options), (status) => ({
        ...status,
        hostOffset: offset,
        recurse: true,
      })),
    );
  }

  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    return this.#child.truncate(lengthBytes, options);
  }

  flushToOs(): void {}

  flushToDisk(): MaybePromise<void> {
    return this.#unlessFailed("flush", 0, 0, () => undefined);
  }

  reopen({ readOnly }: ReopenRequest): void {
    this.#readOnly = readOnly;
  }

  close(): void {
    this.#engine.resumeAll();
  }

  statistics(): Readonly<Record<string, number>> {
    return { state: this.#engine.state, parkedRequests: this.#engine.parkedCount };
  }

  #unlessFailed<T>(
    ioType: IoType,
    offset: number,
    length: number,
    io: () => MaybePromise<T>,
  ): MaybePromise<T> {
    const rule = this.#engine.match(ioType, offset, length);
    if (rule?.code === undefined) return io();
    const error = new BlockError(rule.code, `blkdebug: ${ioType}: an injected error`, {
      op: ioType,
      offset,
      length,
    });
    if (rule.immediately) throw error;
    return Promise.reject(error);
  }
}
