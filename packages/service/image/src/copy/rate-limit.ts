/** At most so many bytes a second, by letting each writer wait for its turn. */
import { type AbortListener, BlockError, ignoreAbort, listenForAbort } from "@blocklayer/bytes";

/** Waits shorter than this are not worth a timer; they are made up for later. */
const SHORTEST_WAIT_MS = 5;

/** Time and timers, given from outside so that tests need not wait. */
export interface Clock {
  nowMs(): number;
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
}

/** The clock of the runtime. */
const systemClock: Clock = {
  nowMs: () => performance.now(),
  sleep: (milliseconds, signal) =>
    new Promise((resolve, reject) => {
      const aborted = (): void => {
        clearTimeout(timer);
        reject(new BlockError("ECANCELED", "convert was aborted", { cause: signal?.reason }));
      };
      const listener: AbortListener = { aborted };
      const timer = setTimeout(() => {
        if (signal !== undefined) ignoreAbort(signal, listener);
        resolve();
      }, milliseconds);
      if (signal?.aborted === true) aborted();
      else if (signal !== undefined) listenForAbort(signal, listener);
    }),
};

export class RateLimit {
  readonly #bytesPerMs: number;
  readonly #clock: Clock;
  #freeAtMs: number;

  constructor(bytesPerSecond: number, clock: Clock = systemClock) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#clock = clock;
    this.#freeAtMs = clock.nowMs();
  }

  /** Waits until this many bytes may go. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const now = this.#clock.nowMs();
    const wait = this.#freeAtMs - now;
    this.#freeAtMs = Math.max(this.#freeAtMs, now) + bytes / this.#bytesPerMs;
    if (wait >= SHORTEST_WAIT_MS) await this.#clock.sleep(wait, signal);
  }
}
