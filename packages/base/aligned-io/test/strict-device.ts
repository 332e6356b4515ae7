/**
 * A device in memory for tests. It refuses every request that breaks its limits, and ends requests in an
 * order that a seed decides; each write is torn into two steps, so that whatever runs beside it can see
 * its first half alone.
 */
import { AssertionError, BlockError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import {
  type AlignedDevice,
  type AlignedLimits,
  type AlignedReadOptions,
  type AlignedWriteOptions,
  isMemoryAligned,
} from "../src/index.js";

interface Step {
  run(): void;
}

export interface SeenRequest {
  readonly op: "read" | "write";
  readonly offset: number;
  readonly lengthBytes: number;
  readonly vector: IoVector;
  readonly options: AlignedWriteOptions | undefined;
}

export class StrictDevice implements AlignedDevice {
  lengthBytes: number;
  readonly limits: AlignedLimits;
  /** The medium; always whole blocks, zero past `lengthBytes`. */
  bytes: Uint8Array;
  readonly seen: SeenRequest[] = [];
  /** Answers at once, without a promise. */
  synchronous = false;
  /** Fails the next request of this kind. */
  failNext: "read" | "write" | undefined;
  readonly #steps: Step[] = [];
  #seed: number;

  constructor(content: Uint8Array, limits: AlignedLimits, seed = 1) {
    this.lengthBytes = content.length;
    this.limits = limits;
    this.bytes = new Uint8Array(this.#roundUp(content.length));
    this.bytes.set(content);
    this.#seed = seed >>> 0 || 1;
  }

  readv(offset: number, target: IoVector, options?: AlignedReadOptions): MaybePromise<void> {
    this.#check("read", offset, target, options);
    if (offset + target.lengthBytes > this.#roundUp(this.lengthBytes)) {
      throw new AssertionError("a read ends in the device, rounded up");
    }
    return this.#start("read", [
      () => target.copyFrom(this.bytes.subarray(offset, offset + target.lengthBytes)),
    ]);
  }

  writev(offset: number, source: IoVector, options?: AlignedWriteOptions): MaybePromise<void> {
    this.#check("write", offset, source, options);
    const end = offset + source.lengthBytes;
    const half = Math.floor(source.lengthBytes / 2);
    const put = (from: number, to: number): void => {
      if (end > this.lengthBytes) this.#grow(end);
      source.slice(from, to).copyTo(this.bytes.subarray(offset + from, offset + to));
    };
    return this.#start("write", [() => put(0, half), () => put(half, source.lengthBytes)]);
  }

  /** A change that is neither read nor write. */
  fill(offset: number, lengthBytes: number, value: number): MaybePromise<void> {
    const half = offset + Math.floor(lengthBytes / 2);
    return this.#start("write", [
      () => this.bytes.fill(value, offset, half),
      () => this.bytes.fill(value, half, offset + lengthBytes),
    ]);
  }

  /** Runs steps until `work` has ended. */
  async runUntil<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const settled = work.then(
      () => {
        done = true;
      },
      () => {
        done = true;
      },
    );
    for (let idle = 0; !done; ) {
      await new Promise((resolve) => setImmediate(resolve));
      // Mostly a single step a turn, so that many requests overlap; sometimes none.
      if (this.#random(4) > 0) this.#step();
      idle = this.#steps.length > 0 ? 0 : idle + 1;
      if (idle > 200) throw new Error("deadlock: nothing in flight, and the work has not ended");
    }
    await settled;
    return work;
  }

  /** Runs one step of one request, whichever the seed says. */
  #step(): void {
    const [step] = this.#steps.splice(this.#random(this.#steps.length), 1);
    step?.run();
  }

  #start(op: "read" | "write", steps: readonly (() => void)[]): MaybePromise<void> {
    if (this.failNext === op) {
      this.failNext = undefined;
      return Promise.reject(new BlockError("EIO", `device: ${op} failed`));
    }
    if (this.synchronous) {
      for (const step of steps) step();
      return undefined;
    }
    return new Promise((resolve) => {
      const queue = (index: number): void => {
        const step = steps[index];
        this.#steps.push({
          run: () => {
            step?.();
            if (index < steps.length) queue(index + 1);
            else resolve();
          },
        });
      };
      queue(0);
    });
  }

  #check(
    op: "read" | "write",
    offset: number,
    vector: IoVector,
    options: AlignedWriteOptions | undefined,
  ): void {
    const { requestAlignment, memoryAlignment, maxTransfer } = this.limits;
    const { lengthBytes } = vector;
    const rules: [boolean, string][] = [
      [offset >= 0 && offset % requestAlignment === 0, "offset is aligned"],
      [lengthBytes > 0 && lengthBytes % requestAlignment === 0, "length is aligned"],
      [lengthBytes <= maxTransfer, "length is at most maxTransfer"],
      [vector.parts.every((part) => isMemoryAligned(part, memoryAlignment)), "memory is aligned"],
    ];
    for (const [holds, rule] of rules) {
      if (!holds) throw new AssertionError(`${op} at ${offset}, ${lengthBytes} bytes: ${rule}`);
    }
    this.seen.push({ op, offset, lengthBytes, vector, options });
  }

  #grow(lengthBytes: number): void {
    this.lengthBytes = lengthBytes;
    if (this.#roundUp(lengthBytes) <= this.bytes.length) return;
    const bytes = new Uint8Array(this.#roundUp(lengthBytes));
    bytes.set(this.bytes);
    this.bytes = bytes;
  }

  #roundUp(value: number): number {
    const { requestAlignment } = this.limits;
    return Math.ceil(value / requestAlignment) * requestAlignment;
  }

  /** xorshift32 */
  #random(below: number): number {
    let x = this.#seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#seed = x >>> 0;
    return below === 0 ? 0 : this.#seed % below;
  }
}
