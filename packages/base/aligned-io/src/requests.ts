/** Checks that AlignedIo makes before it starts. */
import { assert, BlockError, isAligned, isPowerOfTwo } from "@blocklayer/bytes";
import { type AlignedArena, RESERVE_BYTES } from "./arena.js";
import type { AlignedLimits, AlignedReadOptions } from "./device.js";

/** The largest alignment that 32-bit masks can test. */
const MAX_ALIGNMENT = 2 ** 30;

/**
 * Refuses limits that cannot be kept.
 *
 * @throws BlockError `ENOTSUP` when the device wants memory that the arena does not have
 */
export function checkLimits(limits: AlignedLimits, arena: AlignedArena): void {
  const { requestAlignment, memoryAlignment, maxTransfer } = limits;
  assert(
    isPowerOfTwo(requestAlignment) && requestAlignment <= MAX_ALIGNMENT,
    "requestAlignment is a power of two up to 2^30",
  );
  assert(isPowerOfTwo(memoryAlignment), "memoryAlignment is a power of two");
  assert(
    maxTransfer > 0 && isAligned(maxTransfer, requestAlignment),
    "maxTransfer is a multiple of requestAlignment",
  );
  if (memoryAlignment > arena.alignment) {
    throw new BlockError(
      "ENOTSUP",
      `device: it wants memory aligned to ${memoryAlignment} bytes, and this runtime has at most ${arena.alignment}`,
    );
  }
  if (memoryAlignment > 1 && requestAlignment > RESERVE_BYTES) {
    throw new BlockError(
      "ENOTSUP",
      `device: blocks of ${requestAlignment} bytes in aligned memory are longer than a bounce buffer`,
    );
  }
}

/** @throws BlockError `ECANCELED` when the signal is aborted */
export function refuseAborted(op: string, options: AlignedReadOptions | undefined): void {
  const signal = options?.signal;
  if (signal?.aborted !== true) return;
  throw new BlockError("ECANCELED", `${op}: the request was aborted`, { op, cause: signal.reason });
}
