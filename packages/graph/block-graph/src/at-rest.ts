/**
 * A change of what an image keeps beside its disk, while the node is at rest.
 *
 * Above: snapshots.ts, bitmaps.ts. Below: the node.
 *
 * The change drains the node first, and counts as a write: the next flush covers it, and closing flushes.
 */
import type { BlockNode } from "./node.js";

/** What the backend decides. */
export interface ChangeRights {
  /** @throws BlockError when the backend is closed */
  refuseClosed(op: string): void;
  /** @throws BlockError `EPERM` when it is read-only */
  refuseReadOnly(op: string): void;
}

/** Runs a change. @throws what `rights` refuse, before anything; `ECLOSED` when the node closed meanwhile */
export async function changeAtRest<T>(
  node: BlockNode,
  rights: ChangeRights,
  op: string,
  work: () => Promise<T>,
): Promise<T> {
  rights.refuseClosed(op);
  rights.refuseReadOnly(op);
  return await node.whileDrained(async () => {
    node.refuseClosed(op);
    try {
      return await work();
    } finally {
      node.tracker.writeGeneration++;
    }
  });
}
