/**
 * Inflating one cluster into its target, on this thread.
 *
 * Above: NodeCodec. Below: zlib-handle, node:zlib.
 */
import { constants, inflateRawSync } from "node:zlib";
import { handleInflate, handlesAreProven } from "./zlib-handle.js";

/** Fills the target. Returns false when the payload is damaged or too short; never throws. */
export type SyncInflate = (payload: Uint8Array, target: Uint8Array) => boolean;

/** The fastest way of this runtime. */
export function createSyncInflate(): SyncInflate {
  if (!handlesAreProven()) return documentedInflate;
  const inflate = handleInflate();
  return (payload, target) => inflate(payload, target) === 0;
}

/** The documented way. It refuses a stream that is longer than its target. */
export const documentedInflate: SyncInflate = (payload, target) => {
  try {
    const output = inflateRawSync(payload, {
      windowBits: 15,
      finishFlush: constants.Z_SYNC_FLUSH,
      chunkSize: Math.max(target.length, constants.Z_MIN_CHUNK),
      maxOutputLength: Math.max(target.length, 1),
    });
    if (output.length !== target.length) return false;
    target.set(output);
    return true;
  } catch {
    return false;
  }
};
