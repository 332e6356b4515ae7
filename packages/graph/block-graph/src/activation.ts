/**
 * Handing all disks of a graph over to another process, and taking them back: QEMU's inactivate_all and its undoing.
 *
 * Above: BlockGraph. Below: the drivers' `inactivate` and `activate`; byte stores for the locks.
 *
 * 1. Parents before children: a node is drained, flushed with all below it, and inactivated, while those below it
 *    still take its last writes. Then the users of every node hold nothing and share all, so byte stores let go of
 *    their locks.
 * 2. Back it goes the other way round: locks first, as every user has held them before; then children before parents,
 *    since a driver reads its children when it is activated.
 * 3. All or nothing: what fails undoes what went before. A node that cannot be taken back for the undoing stays
 *    inactive, and refuses requests.
 * 4. A graph whose disks are handed over opens nothing and reopens nothing.
 */
import { BlockError } from "@blocklayer/bytes";
import type { Permissions } from "@blocklayer/block-api";
import { updatePermissions } from "./attach.js";
import type { Edge } from "./edge.js";
import type { GraphState } from "./graph-state.js";
import type { BlockNode } from "./node.js";
import { NO_PERMISSIONS } from "./permissions.js";

/** What the users of a graph held before it was handed over. */
export type HandedOver = ReadonlyMap<Edge, Permissions>;

/**
 * Hands everything over.
 *
 * @throws the first error of a flush or a driver; everything is active then, as far as it could be undone
 */
export async function inactivateNodes(state: GraphState): Promise<HandedOver> {
  const nodes = topDown(state);
  const done: BlockNode[] = [];
  try {
    for (const node of nodes) {
      await inactivateNode(node);
      done.push(node);
    }
  } catch (error) {
    for (const node of done.toReversed()) await quietly(() => activateNode(node));
    throw error;
  }
  const held = new Map([...state.backends].map(({ edge }) => [edge, edge.permissions]));
  await shareAll(nodes, [...held.keys()]);
  return held;
}

/**
 * Takes everything back.
 *
 * @throws BlockError when another process holds a lock; what a driver throws. Everything is inactive still.
 */
export async function activateNodes(state: GraphState, held: HandedOver): Promise<void> {
  const nodes = topDown(state);
  const users = new Map([...held].filter(([edge]) => edge.node.parentEdges.has(edge)));
  for (const node of nodes) node.isInactive = false;
  try {
    await updatePermissions({ edges: users });
  } catch (error) {
    await shareAll(nodes, [...users.keys()]);
    throw error;
  }
  const done: BlockNode[] = [];
  try {
    for (const node of nodes.toReversed()) {
      await activateNode(node);
      done.push(node);
    }
  } catch (error) {
    for (const node of done.toReversed()) await quietly(() => inactivateNode(node));
    await shareAll(nodes, [...users.keys()]);
    throw error;
  }
}

/** The error of a request to a disk that is handed over. */
export function inactiveError(op: string, what: string): BlockError {
  const message = `${what} is inactive, since it was handed over to another process: ${op} is refused. Activate it first`;
  return new BlockError("EBUSY", message, { op });
}

/** Every open node, each before those that it uses. */
function topDown(state: GraphState): BlockNode[] {
  const order: BlockNode[] = [];
  const seen = new Set<BlockNode>();
  const visit = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const edge of node.childEdges.values()) visit(edge.node);
    order.unshift(node);
  };
  for (const node of state.nodes.values()) if (node.isOpen) visit(node);
  return order;
}

async function inactivateNode(node: BlockNode): Promise<void> {
  await node.whileDrained(async () => {
    await node.flushDrained();
    await node.driver.inactivate?.();
  });
}

async function activateNode(node: BlockNode): Promise<void> {
  await node.whileDrained(() => node.driver.activate?.());
}

async function shareAll(nodes: readonly BlockNode[], users: readonly Edge[]): Promise<void> {
  for (const node of nodes) node.isInactive = true;
  await updatePermissions({ edges: new Map(users.map((edge) => [edge, NO_PERMISSIONS])), nodes });
}

async function quietly(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch {
    // The first error is the one that matters.
  }
}
