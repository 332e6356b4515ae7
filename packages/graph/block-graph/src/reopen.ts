/**
 * Changing what an open node is: read-only or writable, and options that its driver can change in place.
 *
 * Above: BlockGraph.reopen. Below: the drivers' `reopen`.
 *
 * 1. The node and the byte stores below it change together: a node that becomes writable after the children that
 *    it writes to, one that becomes read-only before them, since its driver may still have to write.
 * 2. Permissions are planned and checked before anything changes.
 * 3. Byte stores whose state does not change hear of permissions that do: before the change when it needs more, after
 *    it when it needs less.
 * 4. A driver that refuses puts those before it back as they were: all or nothing.
 */
import { BlockError } from "@blocklayer/bytes";
import { parseOptions, PERMISSION, type Permissions } from "@blocklayer/block-api";
import {
  commitPermissions,
  loosen,
  planPermissions,
  tellDrivers,
  tellDriversQuietly,
} from "./attach.js";
import type { Edge } from "./edge.js";
import type { BlockNode } from "./node.js";
import { combine } from "./permissions.js";

/** What a node is to become. */
export interface ReopenOptions {
  /** Absent: as it is. */
  readonly readOnly?: boolean;
  /** Options of the root node's driver, among its `reopenOptions`. */
  readonly options?: Readonly<Record<string, unknown>>;
}

interface Step {
  readonly node: BlockNode;
  readonly readOnly: boolean;
  readonly options: Readonly<Record<string, unknown>>;
  readonly permissions: Permissions;
}

/**
 * Reopens a node, and its children that hold bytes.
 *
 * @param user - a backend's edge that gains or loses `write` with the node
 * @throws BlockError `EINVAL` for an option that cannot change, `EPERM` on a conflict, what a driver throws
 */
export async function reopenNode(
  node: BlockNode,
  { readOnly = node.readOnly, options = {} }: ReopenOptions,
  user: Edge | undefined,
): Promise<void> {
  const checked = checkOptions(node, options);
  await node.whileDrained(async () => {
    node.refuseClosed("reopen");
    const touched = readOnly === node.readOnly ? [node] : nodesToSwitch(node);
    const writable = new Map(touched.map((each) => [each, !readOnly]));
    const edges = user === undefined ? [] : [[user, withWrite(user, !readOnly)] as const];
    const plan = planPermissions({ edges: new Map(edges), writable });
    const planned = (edge: Edge): Permissions => plan.edges.get(edge) ?? edge.permissions;
    const others = [...plan.nodes].filter((each) => !touched.includes(each));
    const steps = touched.map(
      (each): Step => ({
        node: each,
        readOnly,
        options: each === node ? checked : {},
        permissions: combine([...each.parentEdges].map(planned)),
      }),
    );
    if (!readOnly) steps.reverse();
    else if (!node.readOnly) await node.flushDrained();
    const before = new Map([...plan.edges.keys()].map((edge) => [edge, edge.permissions]));
    // A driver that becomes read-only may write a last time; one that becomes writable has its permissions first.
    if (!readOnly) commitPermissions(plan.edges);
    try {
      if (!readOnly) await tellDrivers(others);
      await takeSteps(steps, node);
    } catch (error) {
      commitPermissions(before);
      await tellDriversQuietly(others);
      throw error;
    }
    commitPermissions(plan.edges);
    if (readOnly) await tellDriversQuietly(others);
  });
  await loosen(node);
}

function checkOptions(
  node: BlockNode,
  options: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const { definition } = node;
  for (const name of Object.keys(options)) {
    if (definition.reopenOptions?.includes(name) === true) continue;
    throw new BlockError(
      "EINVAL",
      `node '${node.name}': option '${name}' cannot change while the node is open`,
      { op: "reopen", node: node.name },
    );
  }
  const values = parseOptions(definition.openOptions, options, definition.name);
  return Object.fromEntries(Object.keys(options).map((name) => [name, values[name]]));
}

/** The node, then the children that hold its bytes, have no other user, and no word of their own: top down. */
function nodesToSwitch(root: BlockNode): BlockNode[] {
  const nodes = [root];
  for (const node of nodes) {
    for (const [role, edge] of node.childEdges) {
      if (role === "backing" || edge.node.isReadOnlyFixed) continue;
      if (edge.node.parentEdges.size === 1) nodes.push(edge.node);
    }
  }
  return nodes;
}

function withWrite({ permissions }: Edge, write: boolean): Permissions {
  const { write: bit, resize } = PERMISSION;
  const held = write ? permissions.held | bit : permissions.held & ~(bit | resize);
  return { ...permissions, held };
}

async function takeSteps(steps: readonly Step[], root: BlockNode): Promise<void> {
  const done: Step[] = [];
  try {
    for (const step of steps) {
      const { node } = step;
      const before: Step = {
        node,
        readOnly: node.readOnly,
        options: previousOptions(node, step.options),
        permissions: node.granted,
      };
      await takeStep(step, root, before);
      done.push(before);
    }
  } catch (error) {
    for (const before of done.toReversed()) await takeStepQuietly(before, root);
    throw error;
  }
}

/** Holds: the drain of `root`. The other nodes are drained one at a time: the root's driver may need them. */
async function takeStep(step: Step, root: BlockNode, before?: Step): Promise<void> {
  const { node, readOnly, options, permissions } = step;
  const change = async (): Promise<void> => {
    await node.driver.reopen({ readOnly, options, permissions });
    try {
      node.reopened(readOnly, options, permissions);
    } catch (error) {
      // The node cannot keep the driver's new limits (no memory as aligned as they ask for).
      if (before !== undefined) await node.driver.reopen(before);
      throw error;
    }
  };
  if (node === root) await change();
  else await node.whileDrained(change);
}

async function takeStepQuietly(step: Step, root: BlockNode): Promise<void> {
  try {
    await takeStep(step, root);
  } catch {
    // The first error is the one that matters.
  }
}

function previousOptions(
  node: BlockNode,
  changed: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.keys(changed).map((name) => [name, node.values[name]]));
}
