/**
 * Many that wait for one signal: one listener on it, however many they are.
 *
 * A signal that stands for a whole job goes with each of its requests. With a listener for each one that waits, Node
 * warns of a leak at the eleventh.
 *
 * 1. The signal has a listener as long as somebody waits, and no longer.
 * 2. Who left before, or because of another one's call, is not called.
 */

/** Somebody who waits. `aborted` must not throw. */
export interface AbortListener {
  aborted(): void;
}

const shared = new WeakMap<AbortSignal, SharedListener>();

class SharedListener {
  readonly waiting = new Set<AbortListener>();
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", this);
  }

  handleEvent(): void {
    for (const listener of this.waiting) {
      this.waiting.delete(listener);
      listener.aborted();
    }
    this.end();
  }

  end(): void {
    this.#signal.removeEventListener("abort", this);
    if (shared.get(this.#signal) === this) shared.delete(this.#signal);
  }

  leave(listener: AbortListener): void {
    if (this.waiting.delete(listener) && this.waiting.size === 0) this.end();
  }
}

/** Has a listener called when the signal aborts, once. A signal that has aborted calls nobody: look first. */
export function listenForAbort(signal: AbortSignal, listener: AbortListener): void {
  let all = shared.get(signal);
  if (all === undefined) {
    all = new SharedListener(signal);
    shared.set(signal, all);
  }
  all.waiting.add(listener);
}

/** Undoes `listenForAbort`. Does nothing for a listener that has been called. */
export function ignoreAbort(signal: AbortSignal, listener: AbortListener): void {
  shared.get(signal)?.leave(listener);
}
