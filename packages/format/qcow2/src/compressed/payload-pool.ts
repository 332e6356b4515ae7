/**
 * Buffers for compressed data on its way from the file to the codec.
 *
 * Above: compressed/read.ts. Below: nothing.
 *
 * Over a SharedArrayBuffer, where the runtime has one, the data reaches the codec's threads without a
 * copy. Making such memory costs as much as a small read, so a few buffers are kept.
 *
 * 1. At most `MAX_KEPT` buffers are kept. Whoever comes when all are out gets a new one: never a wait.
 * 2. A buffer holds what its last user left: who takes one fills all that it uses.
 */

/** Longest data that one buffer holds. */
export const PAYLOAD_BYTES: number = 2 ** 21;
const MAX_KEPT = 8;

export class PayloadPool {
  readonly #free: Uint8Array[] = [];

  /** A buffer of `PAYLOAD_BYTES`. Give it back with `put`. */
  take(): Uint8Array {
    return this.#free.pop() ?? newBuffer();
  }

  /** Requires: nobody uses the buffer any more. */
  put(buffer: Uint8Array): void {
    if (this.#free.length < MAX_KEPT) this.#free.push(buffer);
  }
}

function newBuffer(): Uint8Array {
  if (typeof SharedArrayBuffer === "undefined") return new Uint8Array(PAYLOAD_BYTES);
  return new Uint8Array(new SharedArrayBuffer(PAYLOAD_BYTES));
}
