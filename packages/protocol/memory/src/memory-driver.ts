/**
 * The `memory` driver: a byte store that lives as long as its node. QEMU has no such driver; it serves tests,
 * browsers, and scratch images.
 *
 * Above: the block graph, or whoever holds a `directChild` of it. Below: SparseStore.
 * Every method returns plainly or throws; nothing ever waits, so requests never run side by side.
 */
import { assert, BlockError, hex, type IoVector, MiB } from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  type DriverDefinition,
  limitsOf,
  type OptionSchema,
  type ReopenRequest,
  type RequestOptions,
  storeCapabilities,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { refuseAborted } from "./abort.js";
import { CHUNK_BYTES, SparseStore } from "./sparse-store.js";

const OPEN_OPTIONS: OptionSchema = {
  size: {
    type: "size",
    help: "Length at the start, in bytes; it grows when written past",
    default: 0,
  },
};

/** The longest store that `bytes` copies into one array: 1 GiB. */
const MAX_SNAPSHOT_BYTES: number = 1024 * MiB;

/** How to make a store without a graph. */
export interface MemoryOptions {
  /** Length at the start; by default that of `bytes`, or 0. */
  readonly lengthBytes?: number;
  /** Content at the start, copied. */
  readonly bytes?: Uint8Array;
  readonly readOnly?: boolean;
  /** Declared, not enforced: to see that a layer above pads and splits as it should. */
  readonly limits?: Partial<BlockLimits>;
}

/** A sparse, growing byte store in memory. */
export class MemoryDriver implements BlockDriver {
  readonly driverName = "memory";
  readonly limits: BlockLimits;
  #capabilities: BlockCapabilities;
  readonly #store: SparseStore;
  #closed = false;
  #reads = 0;
  #writes = 0;
  #flushes = 0;

  constructor(store: SparseStore, readOnly: boolean, limits: Partial<BlockLimits> = {}) {
    this.#store = store;
    this.#capabilities = storeCapabilities(!readOnly);
    this.limits = limitsOf({ writeZeroesAlignment: 1, discardAlignment: CHUNK_BYTES, ...limits });
  }

  get capabilities(): BlockCapabilities {
    return this.#capabilities;
  }

  get lengthBytes(): number {
    return this.#store.lengthBytes;
  }

  /**
   * A copy of the whole content: for tests.
   *
   * @throws BlockError `EFBIG` when it is longer than 1 GiB
   */
  get bytes(): Uint8Array {
    if (this.lengthBytes > MAX_SNAPSHOT_BYTES) {
      throw new BlockError("EFBIG", `memory store: ${this.lengthBytes} bytes are too many to copy`);
    }
    const copy = new Uint8Array(this.lengthBytes);
    this.#store.read(0, copy);
    return copy;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): void {
    this.#begin("read", offset, target.lengthBytes, options);
    this.#reads++;
    let at = offset;
    for (const part of target.parts) {
      this.#store.read(at, part);
      at += part.length;
    }
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): void {
    assert(options?.compressed !== true, "a byte store gets no compressed writes");
    this.#beginChange("write", offset, source.lengthBytes, options);
    this.#writes++;
    let at = offset;
    for (const part of source.parts) {
      this.#store.write(at, part);
      at += part.length;
    }
  }

  writeZeroes(offset: number, lengthBytes: number, options?: WriteZeroesOptions): void {
    this.#beginChange("write zeroes", offset, lengthBytes, options);
    this.#writes++;
    this.#store.zero(offset, lengthBytes);
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): void {
    this.#beginChange("discard", offset, lengthBytes, options);
    this.#store.discard(offset, lengthBytes);
  }

  blockStatus(offset: number, lengthBytes: number, options?: BlockStatusOptions): BlockStatus {
    this.#begin("block status", offset, lengthBytes, options);
    const extent = this.#store.extent(offset, lengthBytes);
    return {
      lengthBytes: extent.lengthBytes,
      allocated: true,
      data: extent.stored,
      zero: !extent.stored,
      compressed: false,
      hostOffset: offset,
    };
  }

  truncate(lengthBytes: number, options?: TruncateOptions): void {
    this.#beginChange("truncate", lengthBytes, 0, options);
    if (options?.preallocation !== undefined && options.preallocation !== "off") {
      throw new BlockError("ENOTSUP", "memory store: truncate: it cannot be preallocated", {
        op: "truncate",
      });
    }
    this.#store.truncate(lengthBytes);
  }

  flushToOs(): void {
    this.#begin("flush", 0, 0);
  }

  flushToDisk(): void {
    this.#begin("flush", 0, 0);
    this.#flushes++;
  }

  reopen(request: ReopenRequest): void {
    this.#begin("reopen", 0, 0);
    this.#capabilities = storeCapabilities(!request.readOnly);
  }

  /** The content stays readable through `bytes`, so that a test can look at what was left. */
  close(): void {
    this.#closed = true;
  }

  /** Memory in use: whole chunks. */
  allocatedBytes(): number {
    return this.#store.storedBytes;
  }

  statistics(): Readonly<Record<string, number>> {
    return {
      reads: this.#reads,
      writes: this.#writes,
      flushes: this.#flushes,
      storedBytes: this.#store.storedBytes,
    };
  }

  #begin(op: string, offset: number, length: number, options?: RequestOptions): void {
    assert(offset >= 0 && Number.isSafeInteger(offset + length), `${op}: the range is a valid one`);
    if (this.#closed)
      throw new BlockError("ECLOSED", `memory store is closed: ${op} is refused`, { op });
    refuseAborted("memory store", op, options?.signal);
  }

  #beginChange(op: string, offset: number, length: number, options?: RequestOptions): void {
    this.#begin(op, offset, length, options);
    if (this.#capabilities.write) return;
    throw new BlockError(
      "EACCES",
      `memory store is read-only: ${op} of ${length} bytes at offset ${hex(offset)} is refused`,
      { op, offset, length },
    );
  }
}

/**
 * Makes a store without a graph.
 *
 * @example const disk = openMemory({ lengthBytes: 1024 ** 4 }) // a terabyte, no memory
 */
export function openMemory(options: MemoryOptions = {}): MemoryDriver {
  const store = new SparseStore();
  if (options.bytes !== undefined) store.write(0, options.bytes);
  if (options.lengthBytes !== undefined) store.truncate(options.lengthBytes);
  return new MemoryDriver(store, options.readOnly === true, options.limits);
}

/** The `memory` driver for a graph's registry. */
export const memoryDriver: DriverDefinition = {
  name: "memory",
  kind: "protocol",
  openOptions: OPEN_OPTIONS,
  reopenOptions: [],
  open(context): MemoryDriver {
    const size = context.options["size"];
    return openMemory({
      lengthBytes: typeof size === "number" ? size : 0,
      readOnly: context.readOnly,
    });
  },
};
