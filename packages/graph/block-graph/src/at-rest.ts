/**
 * A change of what an image keeps beside its disk, while the node is at rest.
 *
 * Above: snapshots.ts, bitmaps.ts. Below: the node, and those above it through which requests come.
 *
 * The change drains the nodes first, from the top down, and counts as a write of each: the next flush covers it, and
 * closing flushes.
 */
import type { BlockNode } from "./node.js";

/** What the backend decides. */
export interface ChangeRights {
  /** @throws BlockError when the backend is closed */
  refuseClosed(op: string): void;
  /** @throws BlockError `EPERM` when it is read-only */
  refuseReadOnly(op: string): void;
}

/**
 * Runs a change.
 *
 * @param nodes - each the main child of the one before it; the last one is changed
 * @throws what `rights` refuse, before anything; `ECLOSED` when a node closed meanwhile
 */
export async function changeAtRest<T>(
  nodes: readonly BlockNode[],
  rights: ChangeRights,
  op: string,
  work: () => Promise<T>,
): Promise<T> {
  rights.refuseClosed(op);
  rights.refuseReadOnly(op);
  return await whileAtRest(nodes, async () => {
    for (const node of nodes) node.refuseClosed(op);
    try {
      return await work();
    } finally {
      for (const { tracker } of nodes) tracker.writeGeneration++;
    }
  });
}

/** Runs `work` while no request is in flight at any of the nodes, which are given from the top down. */
export async function whileAtRest<T>(
  nodes: readonly BlockNode[],
  work: () => Promise<T>,
): Promise<T> {
  const [top, ...rest] = nodes;
  if (top === undefined) return await work();
  return await top.whileDrained(() => whileAtRest(rest, work));
}
