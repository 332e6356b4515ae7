/**
 * What every lock of this package hands out, and what every wait takes.
 *
 * 1. A lease is released exactly once; a second release is a bug and fails an assertion.
 * 2. A lease that was granted stands, even when the signal of its wait is aborted afterwards.
 */
import { BlockError } from "@blocklayer/bytes";

/** Options of every wait. */
export interface AcquireOptions {
  /** Ends the wait with `ECANCELED`. Once the lock is granted it has no effect. */
  readonly signal?: AbortSignal;
  /**
   * Who locks: any object, compared by identity. The owner of a lock that locks it again would wait for
   * itself for ever; with an owner given this is an AssertionError instead.
   */
  readonly owner?: object;
}

/** A lock that is held. Also for `using`. */
export interface Lease {
  /**
   * Gives the lock to those who wait for it, in order. They run after the caller's current turn.
   *
   * @throws AssertionError when released twice
   */
  release(): void;
  /** The same as `release`. */
  [Symbol.dispose](): void;
}

/** The error of a wait that was aborted. */
export function abortedError(name: string, signal: AbortSignal): BlockError {
  return new BlockError("ECANCELED", `${name}: the wait was aborted`, { cause: signal.reason });
}

/** Refuses a wait whose signal is aborted before it begins. */
export function refuseAborted(name: string, options: AcquireOptions | undefined): void {
  const signal = options?.signal;
  if (signal?.aborted === true) throw abortedError(name, signal);
}
