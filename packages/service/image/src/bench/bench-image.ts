/**
 * The same request again and again, many in flight: what qemu-img's `bench` measures. Who calls holds the clock.
 *
 * Above: the tool's `bench`. Below: `BlockBackend`.
 *
 * 1. At most `depth` requests are in flight. The next one lies `stepBytes` further on; behind the end of the disk it
 *    goes on from its start, by the same number of bytes.
 * 2. With `flushInterval` a flush follows every so many requests. Unless `drainOnFlush` is off nothing is in flight
 *    when it begins, and nothing begins before it has ended; what does not divide evenly comes first.
 * 3. After a failure no request begins, and what is in flight ends before it is thrown.
 */
import { BlockError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";

/** Answers in a row without a promise, after which timers and signals get their turn. */
const MAX_PLAIN_ANSWERS = 65536;

/** Options of `benchImage`. */
export interface BenchOptions {
  readonly kind: "read" | "write";
  /** How many requests. */
  readonly count: number;
  /** How many of them in flight, at least 1. */
  readonly depth: number;
  /** Length of each. */
  readonly lengthBytes: number;
  /** Where the first one lies. */
  readonly offset: number;
  readonly stepBytes: number;
  /** What writes write. Default 0. */
  readonly pattern?: number;
  /** Requests between two flushes, at least `depth`. Default: no flush. */
  readonly flushInterval?: number;
  /** Default `true`. */
  readonly drainOnFlush?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Sends all requests, and ends with the last of them and of their flushes.
 *
 * @throws BlockError what a request or a flush throws, `EIO` for one past the end of the disk; `ECANCELED`
 * @example await benchImage(disk, { kind: "read", count: 75_000, depth: 64, lengthBytes: 4096, offset: 0, stepBytes: 4096 })
 */
export async function benchImage(disk: BlockBackend, options: BenchOptions): Promise<void> {
  await new Bench(disk, options).run();
}

class Bench {
  readonly #disk: BlockBackend;
  readonly #options: BenchOptions;
  #nextOffset: number;
  /** Requests that may begin before the next flush. */
  #left = 0;
  #done = 0;
  #failure: { readonly cause: unknown } | undefined;
  /** Flushes that requests do not wait for. */
  readonly #flushes: Promise<void>[] = [];

  constructor(disk: BlockBackend, options: BenchOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#nextOffset = options.offset;
  }

  async run(): Promise<void> {
    const { count, flushInterval = 0, drainOnFlush = true } = this.#options;
    const drains = flushInterval > 0 && drainOnFlush;
    const uneven = drains ? count % flushInterval : count;
    if (uneven > 0) await this.#round(uneven, drains);
    for (let done = uneven; done < count; done += flushInterval) {
      await this.#round(flushInterval, drains);
    }
    await Promise.all(this.#flushes);
    this.#throwFailure();
  }

  /** Some requests, and the flush behind them. */
  async #round(requests: number, flushes: boolean): Promise<void> {
    this.#left = requests;
    const workers = Math.min(this.#options.depth, requests);
    await Promise.all(Array.from({ length: workers }, () => this.#work()));
    this.#throwFailure();
    if (flushes) await this.#disk.flush();
  }

  /** One request after the other. */
  async #work(): Promise<void> {
    const { kind, lengthBytes, pattern = 0, signal } = this.#options;
    const disk = this.#disk;
    const vector = IoVector.of(new Uint8Array(lengthBytes).fill(pattern));
    try {
      for (let plain = 0; this.#left > 0 && this.#failure === undefined; ) {
        if (signal?.aborted === true) throw new BlockError("ECANCELED", "bench: interrupted");
        const answer =
          kind === "write"
            ? disk.writev(this.#takeOffset(), vector)
            : disk.readv(this.#takeOffset(), vector);
        if (answer instanceof Promise) await answer;
        else if (++plain % MAX_PLAIN_ANSWERS === 0) await nextTurn();
        this.#ended();
      }
    } catch (cause) {
      this.#failure ??= { cause };
    }
  }

  #takeOffset(): number {
    const offset = this.#nextOffset;
    this.#left--;
    const { lengthBytes } = this.#disk;
    this.#nextOffset = lengthBytes === 0 ? 0 : (offset + this.#options.stepBytes) % lengthBytes;
    return offset;
  }

  #ended(): void {
    const { flushInterval = 0, drainOnFlush = true } = this.#options;
    this.#done++;
    if (drainOnFlush || flushInterval === 0 || this.#done % flushInterval !== 0) return;
    this.#flushes.push(this.#flushBeside());
  }

  async #flushBeside(): Promise<void> {
    try {
      await this.#disk.flush();
    } catch (cause) {
      this.#failure ??= { cause };
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.cause;
  }
}

function nextTurn(): MaybePromise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve);
  });
}
