/**
 * Puts bytes and zeroes into the target of a conversion.
 *
 * 1. Every method hands its requests to the target in order, all of them before it returns unless `oneAtATime`; the
 *    promise is their end.
 * 2. Data is looked through for zeroes in units of the target (its cluster, or 4 KiB): whole units of zeroes are never
 *    written as bytes, unless `minZeroBytes` is 0.
 * 3. A target that reads as zeroes already gets no zeroes at all.
 * 4. A source that ends within the target's last sector is taken to go on with zeroes.
 */
import { IoVector, type MaybePromise, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { WriteOptions } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import { forEachRun } from "./zero-runs.js";

/** A part of a buffer. */
interface Run {
  readonly isZero: boolean;
  readonly from: number;
  readonly to: number;
}

/** How to write. */
export interface WriterOptions {
  readonly target: BlockBackend;
  readonly compressed: boolean;
  /** Each request waits for the one before it. */
  readonly oneAtATime: boolean;
  readonly granuleBytes: number;
  /** Zero runs from this length on are kept out; 0: everything is written. */
  readonly minZeroBytes: number;
  readonly targetIsZero: boolean;
  readonly signal: AbortSignal | undefined;
}

export class Writer {
  dataBytes = 0;
  zeroBytes = 0;
  readonly #options: WriterOptions;
  readonly #writeOptions: WriteOptions;
  readonly #signalOptions: { readonly signal?: AbortSignal };

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#signalOptions = options.signal === undefined ? {} : { signal: options.signal };
    this.#writeOptions = {
      ...this.#signalOptions,
      ...(options.compressed ? { compressed: true } : {}),
    };
  }

  /** Writes what is in the buffer; the buffer is in use until the promise ends. */
  async data(offset: number, bytes: Uint8Array): Promise<void> {
    const { minZeroBytes, granuleBytes } = this.#options;
    if (minZeroBytes === 0) return await this.#write(offset, bytes);
    const runs: Run[] = [];
    forEachRun(bytes, offset, granuleBytes, minZeroBytes, (isZero, from, to) => {
      if (isZero && this.#options.targetIsZero) this.zeroBytes += to - from;
      else runs.push({ isZero, from, to });
    });
    const send = ({ isZero, from, to }: Run): MaybePromise<void> =>
      isZero
        ? this.zeroes(offset + from, to - from)
        : this.#write(offset + from, bytes.subarray(from, to));
    if (this.#options.oneAtATime) for (const run of runs) await send(run);
    else await allEnded(runs.map(send));
  }

  async zeroes(offset: number, lengthBytes: number): Promise<void> {
    this.zeroBytes += lengthBytes;
    if (this.#options.targetIsZero) return;
    await this.#options.target.writeZeroes(offset, lengthBytes, {
      ...this.#signalOptions,
      mayUnmap: true,
    });
  }

  #write(offset: number, bytes: Uint8Array): MaybePromise<void> {
    this.dataBytes += bytes.length;
    return this.#options.target.writev(offset, this.#wholeOf(offset, bytes), this.#writeOptions);
  }

  /** Compressed clusters reach to the end of the disk, which is whole sectors where the source need not be. */
  #wholeOf(offset: number, bytes: Uint8Array): IoVector {
    const { target, compressed } = this.#options;
    const missing = target.lengthBytes - (offset + bytes.length);
    if (!compressed || missing <= 0 || missing >= SECTOR_SIZE_BYTES) return IoVector.of(bytes);
    return IoVector.from([bytes, new Uint8Array(missing)]);
  }
}

/** Waits for all, then throws the first error: nobody's buffer may go while a write still uses it. */
async function allEnded(requests: readonly MaybePromise<void>[]): Promise<void> {
  const results = await Promise.allSettled(requests);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
