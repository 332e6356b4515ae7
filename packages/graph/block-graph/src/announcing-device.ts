/**
 * The graph's own named moments, for a driver that listens: writes and zero writes at its node, the
 * read-modify-writes for them, and the flushes of the node above.
 *
 * Above: NodeIo and FlushWalk. Below: the driver of a node (blkdebug).
 *
 * 1. A node whose driver does not listen has no such object: its requests go to the driver itself, as fast as ever.
 * 2. What a request does at a node is told to that node's driver; a flush is told to the driver of its main child.
 *    So blkdebug hears of the writes that it gets, and of the flushes of its parent, as QEMU's does.
 * 3. Every piece of a request that is split is announced by itself.
 *
 * Source: observed beside qemu-io.
 */
import type { EdgeListener, EdgeMoment } from "@blocklayer/aligned-io";
import { andThen, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockDriver,
  BlockIo,
  BlockLimits,
  DebugEvent,
  RequestOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";

/** What the way of a request needs of a driver. */
export type NodeDevice = Pick<
  BlockIo,
  "lengthBytes" | "limits" | "readv" | "writev" | "writeZeroes"
>;

type Tell = (event: DebugEvent) => MaybePromise<void>;

const EDGE_EVENTS: Readonly<Record<EdgeMoment, DebugEvent>> = {
  head: "pwritev_rmw_head",
  "after-head": "pwritev_rmw_after_head",
  tail: "pwritev_rmw_tail",
  "after-tail": "pwritev_rmw_after_tail",
};

/** The driver, or one that announces what is sent to it when it listens. */
export function nodeDevice(driver: BlockDriver): NodeDevice {
  const tell = driver.debugEvent?.bind(driver);
  return tell === undefined ? driver : new AnnouncingDevice(driver, tell);
}

/** What AlignedIo is to tell of its read-modify-writes; `undefined` when the driver does not listen. */
export function edgeListener(driver: BlockDriver): EdgeListener | undefined {
  const tell = driver.debugEvent?.bind(driver);
  return tell === undefined ? undefined : (moment) => tell(EDGE_EVENTS[moment]);
}

class AnnouncingDevice implements NodeDevice {
  readonly #driver: BlockDriver;
  readonly #tell: Tell;

  constructor(driver: BlockDriver, tell: Tell) {
    this.#driver = driver;
    this.#tell = tell;
  }

  get lengthBytes(): number {
    return this.#driver.lengthBytes;
  }

  get limits(): BlockLimits {
    return this.#driver.limits;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    return this.#driver.readv(offset, target, options);
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    return this.#announced("pwritev", () => this.#driver.writev(offset, source, options));
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void> {
    return this.#announced("pwritev_zero", () =>
      this.#driver.writeZeroes(offset, lengthBytes, options),
    );
  }

  async #announced(event: DebugEvent, write: () => MaybePromise<void>): Promise<void> {
    await this.#tell(event);
    try {
      await write();
    } finally {
      await this.#tell("pwritev_done");
    }
  }
}

/** Announces a step of a flush before it is made. */
export function announcedFlush(
  tell: Tell | undefined,
  event: DebugEvent,
  step: () => MaybePromise<void>,
): MaybePromise<void> {
  return tell === undefined ? step() : andThen(tell(event), step);
}
