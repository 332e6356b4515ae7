/**
 * Buffers for compressed data on its way from the file to the codec.
 *
 * Above: compressed/read.ts. Below: nothing.
 *
 * Over a SharedArrayBuffer, where the runtime has one, the data reaches the codec's threads without a
 * copy. Such memory is not counted when the runtime decides whether to collect garbage, so none is ever
 * thrown away: there are at most MAX_BUFFERS, and whoever comes when all are out waits.
 *
 * 1. A user holds one buffer and asks for no second one: waiting here ends.
 * 2. Those who wait are served in the order in which they came.
 * 3. A buffer holds what its last user left: who takes one fills all that it uses.
 */
import type { MaybePromise } from "@blocklayer/bytes";

/** Longest data that one buffer holds. */
export const PAYLOAD_BYTES: number = 2 ** 21;
/** Enough to keep the codec's threads busy while others are being read. */
const MAX_BUFFERS = 8;

export class PayloadPool {
  readonly #free: Uint8Array[] = [];
  readonly #waiters: ((buffer: Uint8Array) => void)[] = [];
  #made = 0;

  /** A buffer of `PAYLOAD_BYTES`. Give it back with `put`. */
  take(): MaybePromise<Uint8Array> {
    const buffer = this.#free.pop();
    if (buffer !== undefined) return buffer;
    if (this.#made < MAX_BUFFERS) {
      this.#made++;
      return newBuffer();
    }
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Requires: nobody uses the buffer any more. */
  put(buffer: Uint8Array): void {
    const next = this.#waiters.shift();
    if (next === undefined) this.#free.push(buffer);
    else next(buffer);
  }
}

function newBuffer(): Uint8Array {
  if (typeof SharedArrayBuffer === "undefined") return new Uint8Array(PAYLOAD_BYTES);
  return new Uint8Array(new SharedArrayBuffer(PAYLOAD_BYTES));
}
