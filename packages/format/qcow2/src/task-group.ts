/**
 * A bounded set of parts of one request that run side by side.
 *
 * Above: reads and writes that fall into several pieces. Below: nothing.
 *
 * 1. At most `limit` parts run at once, for whoever awaits `room()` before the next one.
 * 2. `drain()` ends after every part has ended, also when one failed: until then the caller's
 *    buffers are in use. It throws the first failure.
 */
import type { MaybePromise } from "@blocklayer/bytes";

export class TaskGroup {
  readonly #limit: number;
  #running = 0;
  #failure: { readonly cause: unknown } | undefined;
  #wake: (() => void) | undefined;

  /** @param limit - parts at once, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether a part has failed: the others can be spared. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /** Takes in a part that has begun. One that ended already costs nothing. */
  add(part: MaybePromise<void>): void {
    if (!(part instanceof Promise)) return;
    this.#running++;
    part.then(
      () => this.#ended(),
      (cause: unknown) => {
        this.#failure ??= { cause };
        this.#ended();
      },
    );
  }

  /** Records the failure of a part that could not even begin. */
  fail(cause: unknown): void {
    this.#failure ??= { cause };
  }

  /** Waits until another part may begin. */
  room(): MaybePromise<void> {
    if (this.#running >= this.#limit) return this.#until(this.#limit - 1);
  }

  /** Waits for all parts. @throws the first failure */
  async drain(): Promise<void> {
    await this.#until(0);
    if (this.#failure !== undefined) throw this.#failure.cause;
  }

  async #until(running: number): Promise<void> {
    while (this.#running > running) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #ended(): void {
    this.#running--;
    this.#wake?.();
  }
}
