/**
 * An open driver as the checks use it: keeps the graph's promises (limits, aligned buffers, no empty
 * requests), so that a failure is the driver's.
 */
import { alignDown, IoVector, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockDriver,
  RequestOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import { alignedMemory, releaseAlignedMemory } from "./aligned-memory.js";
import { expectBytes, expectThat } from "./expectation.js";
import { split } from "./pattern.js";
import {
  type CheckOutcome,
  DEFAULT_LENGTH_BYTES,
  type DriverSource,
  type DriverTarget,
  targetOf,
} from "./source.js";

/** A disk under test. */
export class TestDisk {
  readonly source: DriverSource;
  readonly #target: DriverTarget;
  #driver: BlockDriver;
  #isOpen = true;

  constructor(source: DriverSource, target: DriverTarget) {
    this.source = source;
    this.#target = target;
    this.#driver = target.driver;
  }

  get driver(): BlockDriver {
    return this.#driver;
  }

  /** What every offset and length is a multiple of. */
  get unit(): number {
    return this.#driver.limits.requestAlignment;
  }

  /** Where vectors may be cut: a multiple of both alignments. */
  get partUnit(): number {
    const { requestAlignment, memoryAlignment } = this.#driver.limits;
    return memoryAlignment === 1 ? 1 : Math.max(requestAlignment, memoryAlignment);
  }

  /** The length in whole units: what may be written without touching the end's rounding. */
  get usableBytes(): number {
    return alignDown(this.#driver.lengthBytes, this.unit);
  }

  get canReopen(): boolean {
    return this.#target.reopen !== undefined;
  }

  /** What the disk held when it was opened, `usableBytes` long. */
  initialContent(): Uint8Array {
    const content = new Uint8Array(this.usableBytes);
    if (this.#target.content !== undefined) {
      content.set(this.#target.content.subarray(0, content.length));
    }
    return content;
  }

  /** What the disk held behind its last whole unit. */
  initialTail(): Uint8Array {
    const tail = new Uint8Array(this.#driver.lengthBytes - this.usableBytes);
    if (this.#target.content !== undefined) {
      tail.set(this.#target.content.subarray(this.usableBytes, this.#driver.lengthBytes));
    }
    return tail;
  }

  /** A zeroed buffer that the driver may be given. */
  allocate(lengthBytes: number): Uint8Array {
    if (this.source.allocate !== undefined) return this.source.allocate(lengthBytes);
    if (this.#driver.limits.memoryAlignment === 1) return new Uint8Array(lengthBytes);
    return alignedMemory(lengthBytes);
  }

  /** Reads any number of units, in as many requests as the limits ask for. */
  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = this.allocate(lengthBytes);
    // What a driver forgets to fill must not look like zeroes that it read.
    bytes.fill(0xee);
    const step = this.#driver.limits.maxTransfer;
    for (let at = 0; at < lengthBytes; at += step) {
      const part = bytes.subarray(at, Math.min(at + step, lengthBytes));
      await this.#driver.readv(offset + at, IoVector.of(part));
    }
    return bytes;
  }

  /** Writes any number of units. `parts`: into how many parts each request's vector is cut. */
  async write(offset: number, bytes: Uint8Array, options?: WriteOptions, parts = 1): Promise<void> {
    const step = this.#driver.limits.maxTransfer;
    for (let at = 0; at < bytes.length; at += step) {
      const part = this.copyOf(bytes.subarray(at, Math.min(at + step, bytes.length)));
      const vector = IoVector.from(split(part, parts, this.partUnit));
      await this.#driver.writev(offset + at, vector, options);
    }
  }

  /** Zeroes any number of units. */
  async writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): Promise<void> {
    await this.#inSteps(offset, lengthBytes, this.#driver.limits.maxWriteZeroes, (at, length) =>
      this.#driver.writeZeroes(at, length, options),
    );
  }

  /** Discards any number of units. */
  async discard(offset: number, lengthBytes: number, options?: RequestOptions): Promise<void> {
    await this.#inSteps(offset, lengthBytes, this.#driver.limits.maxDiscard, (at, length) =>
      this.#driver.discard(at, length, options),
    );
  }

  /** The bytes in memory that the driver may be given. */
  copyOf(bytes: Uint8Array): Uint8Array {
    const copy = this.allocate(bytes.length);
    copy.set(bytes);
    return copy;
  }

  /** All of a flush, in the graph's order. */
  async flush(): Promise<void> {
    await this.#driver.flushToOs();
    await this.#driver.flushToDisk();
  }

  /** Compares the whole disk. */
  async expectContent(expected: Uint8Array, what: string): Promise<void> {
    expectBytes(await this.read(0, expected.length), expected, 0, what);
  }

  /** Closes and opens again. Requires: `canReopen`. */
  async reopen(): Promise<void> {
    const reopen = this.#target.reopen;
    expectThat(reopen !== undefined, "the source can open its disk again");
    this.#isOpen = false;
    await this.#driver.close();
    this.#driver = await reopen();
    this.#isOpen = true;
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#driver.close();
  }

  async dispose(): Promise<void> {
    await this.#target.dispose?.();
  }

  async #inSteps(
    offset: number,
    lengthBytes: number,
    limit: number,
    send: (offset: number, lengthBytes: number) => MaybePromise<void>,
  ): Promise<void> {
    const step = limit >= lengthBytes ? lengthBytes : alignDown(limit, this.unit);
    for (let at = 0; at < lengthBytes; at += step) {
      await send(offset + at, Math.min(step, lengthBytes - at));
    }
  }
}

/**
 * Opens a fresh disk, runs the body, closes the disk.
 *
 * @throws what the body throws, else what closing throws
 */
export async function withDisk(
  source: DriverSource,
  body: (disk: TestDisk) => Promise<CheckOutcome | void>,
): Promise<CheckOutcome> {
  const opened = await source.open(source.lengthBytes ?? DEFAULT_LENGTH_BYTES);
  const disk = new TestDisk(source, targetOf(opened));
  let outcome: CheckOutcome;
  try {
    outcome = (await body(disk)) ?? "passed";
  } catch (error) {
    // The first failure counts; closing a broken disk may fail too, and would only hide it.
    await disk.close().catch(() => undefined);
    await disk.dispose();
    throw error;
  } finally {
    releaseAlignedMemory();
  }
  try {
    await disk.close();
  } finally {
    await disk.dispose();
  }
  return outcome;
}
