/** What a request that was aborted before it began answers with. */
import { BlockError } from "@blocklayer/bytes";

/** @throws BlockError `ECANCELED` when the signal is aborted */
export function refuseAborted(what: string, op: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new BlockError("ECANCELED", `${what}: ${op} was aborted`, { op, cause: signal.reason });
}
