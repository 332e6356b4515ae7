/**
 * The `null-co` driver, as QEMU has it: a disk that takes every write and remembers none. It measures what
 * the layers above cost.
 *
 * Above: the block graph. Below: nothing. Every method returns plainly.
 * Of QEMU's options `latency-ns` is not here: this layer has no clock.
 */
import { assert, BlockError, GiB, type IoVector } from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  booleanOption,
  type DriverDefinition,
  numberOption,
  type OptionSchema,
  type ReopenRequest,
  type RequestOptions,
  storeCapabilities,
  UNLIMITED,
  type WriteOptions,
} from "@blocklayer/block-api";
import { refuseAborted } from "./abort.js";

const OPEN_OPTIONS: OptionSchema = {
  size: { type: "size", help: "Length of the disk, in bytes", default: GiB },
  "read-zeroes": {
    type: "boolean",
    help: "Reads return zeroes; when off they leave the buffer as it is",
    default: false,
  },
};

const FILENAME = "null-co://";

/** How to make a null disk without a graph. */
export interface NullOptions {
  /** By default 1 GiB. */
  readonly lengthBytes?: number;
  /** By default `false`: reads leave the buffer as it is. */
  readonly readZeroes?: boolean;
  readonly readOnly?: boolean;
}

/** A disk of nothing. */
export class NullDriver implements BlockDriver {
  readonly driverName = "null-co";
  readonly lengthBytes: number;
  readonly limits: BlockLimits = UNLIMITED;
  #capabilities: BlockCapabilities;
  readonly #readZeroes: boolean;

  constructor(lengthBytes: number, readZeroes: boolean, readOnly: boolean) {
    this.lengthBytes = lengthBytes;
    this.#readZeroes = readZeroes;
    this.#capabilities = capabilitiesOf(readOnly);
  }

  get capabilities(): BlockCapabilities {
    return this.#capabilities;
  }

  readv(_offset: number, target: IoVector, options?: RequestOptions): void {
    refuseAborted("null disk", "read", options?.signal);
    if (this.#readZeroes) target.fill(0);
  }

  writev(_offset: number, _source: IoVector, options?: WriteOptions): void {
    assert(this.#capabilities.write, "a read-only node gets no writes");
    refuseAborted("null disk", "write", options?.signal);
  }

  writeZeroes(_offset: number, _lengthBytes: number, options?: RequestOptions): void {
    assert(this.#capabilities.write, "a read-only node gets no writes");
    refuseAborted("null disk", "write zeroes", options?.signal);
  }

  discard(_offset: number, _lengthBytes: number, options?: RequestOptions): void {
    refuseAborted("null disk", "discard", options?.signal);
  }

  blockStatus(offset: number, lengthBytes: number): BlockStatus {
    return {
      lengthBytes,
      allocated: true,
      data: !this.#readZeroes,
      zero: this.#readZeroes,
      compressed: false,
      hostOffset: offset,
    };
  }

  truncate(): void {
    throw new BlockError("ENOTSUP", "null disk: truncate: it keeps its length", { op: "truncate" });
  }

  flushToOs(): void {}

  flushToDisk(): void {}

  reopen(request: ReopenRequest): void {
    this.#capabilities = capabilitiesOf(request.readOnly);
  }

  close(): void {}
}

/** Makes a null disk without a graph. */
export function openNull(options: NullOptions = {}): NullDriver {
  return new NullDriver(
    options.lengthBytes ?? GiB,
    options.readZeroes === true,
    options.readOnly === true,
  );
}

/** The `null-co` driver for a graph's registry. */
export const nullDriver: DriverDefinition = {
  name: "null-co",
  kind: "protocol",
  openOptions: OPEN_OPTIONS,
  reopenOptions: [],
  protocolPrefixes: ["null-co:"],
  parseFilename(filename): Readonly<Record<string, unknown>> {
    if (filename === FILENAME) return {};
    throw new BlockError("EINVAL", `'${filename}': this driver's one file name is '${FILENAME}'`);
  },
  open(context): NullDriver {
    return new NullDriver(
      numberOption(context.options, "size"),
      booleanOption(context.options, "read-zeroes"),
      context.readOnly,
    );
  },
};

function capabilitiesOf(readOnly: boolean): BlockCapabilities {
  return { ...storeCapabilities(!readOnly), truncate: false };
}
