/** Cleaning up after a step that may fail at once or later. */
import type { MaybePromise } from "@blocklayer/bytes";

/**
 * Runs a step; when it throws or rejects, runs `undo` and passes the error on.
 *
 * @example attempt(() => store.read(0, bytes), () => free(bytes))
 */
export function attempt<T>(step: () => MaybePromise<T>, undo: () => void): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = step();
  } catch (error) {
    undo();
    throw error;
  }
  if (!(result instanceof Promise)) return result;
  return result.catch((error: unknown) => {
    undo();
    throw error;
  });
}
