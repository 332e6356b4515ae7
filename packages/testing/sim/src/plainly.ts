/** For tests that run without a scheduler: there everything returns plainly, and nothing may be left floating. */
import { assert, type MaybePromise } from "@blocklayer/bytes";

/**
 * The value, which must be there.
 *
 * @throws AssertionError when it is a promise
 * @example plainly(disk.flushToDisk())
 */
export function plainly<T>(value: MaybePromise<T>): T {
  assert(!(value instanceof Promise), "a disk without a scheduler returns plainly");
  return value;
}
