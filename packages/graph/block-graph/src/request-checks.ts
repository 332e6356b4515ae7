/** What is refused before a request reaches a driver. Messages name the node and the range. */
import { BlockError, hex, ignoreAbort, listenForAbort } from "@blocklayer/bytes";

/** Throws `ECANCELED` when the request was aborted before it began. */
export function refuseAborted(op: string, node: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError(op, node, signal);
}

/** The error of a request whose sender gave it up. */
export function abortedError(op: string, node: string, signal: AbortSignal): BlockError {
  return new BlockError("ECANCELED", `node '${node}': ${op} was aborted`, {
    op,
    node,
    cause: signal.reason,
  });
}

/** Throws `EINVAL` unless offset and length are whole, not negative, and end within safe integers. */
export function refuseBadRange(op: string, node: string, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && length >= 0) {
    if (Number.isSafeInteger(length) && Number.isSafeInteger(offset + length)) return;
  }
  throw new BlockError(
    "EINVAL",
    `node '${node}': ${op}: offset ${offset} and length ${length} are no byte range`,
    { op, node, offset, length },
  );
}

/** The error of a range that ends behind the disk: `EIO`, as QEMU's tools have it. */
export function pastTheEnd(
  op: string,
  node: string,
  offset: number,
  length: number,
  lengthBytes: number,
): BlockError {
  return new BlockError(
    "EIO",
    `node '${node}': ${op} of ${length} bytes at ${hex(offset)} goes past the end at ${hex(lengthBytes)}`,
    { op, node, offset, length },
  );
}

/** The error of a change to a node that may not be changed: `EPERM`. */
export function readOnlyError(op: string, node: string): BlockError {
  return new BlockError("EPERM", `node '${node}' is read-only: ${op} is refused`, { op, node });
}

/** The error of any call after the close: `ECLOSED`. */
export function closedError(op: string, what: string): BlockError {
  return new BlockError("ECLOSED", `${what} is closed: ${op} is refused`, { op });
}

/**
 * The promise, or a rejection with `ECANCELED` as soon as the signal aborts. Only for waits that touch no buffer of
 * the caller: what goes on behind the rejection must not matter to it.
 */
export function abortable<T>(
  promise: Promise<T>,
  op: string,
  node: string,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const listener = { aborted: (): void => reject(abortedError(op, node, signal)) };
    listenForAbort(signal, listener);
    promise.then(resolve, reject).finally(() => ignoreAbort(signal, listener));
  });
}
