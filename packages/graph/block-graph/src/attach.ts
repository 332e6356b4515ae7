/**
 * Changing edges and their permissions.
 *
 * Above: open.ts, close.ts, reopen.ts, BlockBackend. Below: permissions.ts for the rules; byte stores for the locks.
 *
 * 1. An update is planned and checked as a whole, and committed before anything suspends: whoever comes meanwhile is
 *    checked against what is being taken.
 * 2. Then the byte stores that it touches are told. One that refuses (another process holds a lock) undoes the
 *    update: all or nothing. What follows from the undone part is worked out anew: another update may have come
 *    between, and stays.
 * 3. What a store is told is what holds at that moment, so that two updates that cross leave the right locks.
 */
import type { Permissions } from "@blocklayer/block-api";
import { Edge, type EdgeParent, type EdgeRole } from "./edge.js";
import { type BlockNode, CHILD_ROLES } from "./node.js";
import {
  childPermissions,
  combine,
  type NamedUser,
  NO_PERMISSIONS,
  refuseConflicts,
  refuseWritersOfReadOnly,
  samePermissions,
} from "./permissions.js";

/** What an update starts from. */
export interface PermissionChanges {
  /** Edges that get other permissions. */
  readonly edges?: ReadonlyMap<Edge, Permissions>;
  /** Nodes that become writable or read-only. */
  readonly writable?: ReadonlyMap<BlockNode, boolean>;
  /** Nodes that gained or lost a user. */
  readonly nodes?: readonly BlockNode[];
}

/** What every touched edge is to become, and which nodes have other users than before. */
export interface PermissionPlan {
  readonly edges: ReadonlyMap<Edge, Permissions>;
  readonly nodes: ReadonlySet<BlockNode>;
}

/**
 * Makes a user of a node. A node that stands already has its other users checked and its locks changed; one that was
 * opened for this very user has the right ones.
 *
 * @throws BlockError `EPERM` on a conflict; what a byte store throws when it cannot get its locks
 */
export async function attach(
  parent: EdgeParent,
  role: EdgeRole,
  node: BlockNode,
  permissions: Permissions,
): Promise<Edge> {
  const edge = new Edge(parent, role, node, NO_PERMISSIONS);
  node.parentEdges.add(edge);
  if (role !== "root") parent.node?.childEdges.set(role, edge);
  try {
    await updatePermissions({ edges: new Map([[edge, permissions]]) });
  } catch (error) {
    removeEdge(edge);
    throw error;
  }
  return edge;
}

/** Takes an edge out. The node's locks stay as they are: see `loosen`. */
export function removeEdge(edge: Edge): void {
  edge.node.parentEdges.delete(edge);
  if (edge.role !== "root") edge.parent.node?.childEdges.delete(edge.role);
}

/** Gives back what a user held who is gone. A store that cannot loosen its locks keeps them. */
export async function loosen(node: BlockNode): Promise<void> {
  try {
    await updatePermissions({ nodes: [node] });
  } catch {
    // Locks that are too strict harm nobody but users to come, who will be told.
  }
}

/**
 * Plans, checks, commits, tells the byte stores.
 *
 * @throws BlockError `EPERM` on a conflict; what a byte store throws. Nothing has changed then.
 */
export async function updatePermissions(changes: PermissionChanges): Promise<void> {
  const plan = planPermissions(changes);
  const asked = [...(changes.edges?.keys() ?? [])];
  const before = new Map(asked.map((edge) => [edge, edge.permissions]));
  commitPermissions(plan.edges);
  try {
    await tellDrivers(plan.nodes);
  } catch (error) {
    const undo = derivePermissions({ edges: before, nodes: [...plan.nodes] });
    commitPermissions(undo.edges);
    await tellDriversQuietly(undo.nodes);
    throw error;
  }
}

/**
 * Works out what follows from the changes for every node below, and checks it.
 *
 * @throws BlockError `EPERM` on a conflict
 */
export function planPermissions(changes: PermissionChanges): PermissionPlan {
  const plan = derivePermissions(changes);
  for (const node of plan.nodes) {
    checkUsers(node, plan.edges, changes.writable?.get(node) ?? node.writable);
  }
  return plan;
}

/** Works out what follows from the changes, without a check. */
function derivePermissions(changes: PermissionChanges): PermissionPlan {
  const edges = new Map(changes.edges);
  const nodes = new Set<BlockNode>();
  const planned = (edge: Edge): Permissions => edges.get(edge) ?? edge.permissions;
  const isWritable = (node: BlockNode): boolean => changes.writable?.get(node) ?? node.writable;
  const queue = [
    ...[...edges.keys()].map((edge) => edge.node),
    ...(changes.writable?.keys() ?? []),
    ...(changes.nodes ?? []),
  ];
  for (let node = queue.shift(); node !== undefined; node = queue.shift()) {
    nodes.add(node);
    const users = combine([...node.parentEdges].map(planned));
    for (const role of CHILD_ROLES) {
      const edge = node.childEdges.get(role);
      if (edge === undefined) continue;
      const needed = node.isInactive
        ? NO_PERMISSIONS
        : childPermissions(node.definition, role, isWritable(node), users);
      if (samePermissions(needed, planned(edge))) continue;
      edges.set(edge, needed);
      queue.push(edge.node);
    }
  }
  return { edges, nodes };
}

/** Makes planned permissions true in memory. */
export function commitPermissions(edges: ReadonlyMap<Edge, Permissions>): void {
  for (const [edge, permissions] of edges) edge.permissions = permissions;
}

function checkUsers(
  node: BlockNode,
  planned: ReadonlyMap<Edge, Permissions>,
  writable: boolean,
): void {
  const users: NamedUser[] = [];
  for (const edge of node.parentEdges) {
    users.push({ label: edge.label, permissions: planned.get(edge) ?? edge.permissions });
  }
  refuseConflicts(node.name, users);
  if (!writable) refuseWritersOfReadOnly(node.name, users);
}

/** Tells the byte stores among the nodes what their users hold by now. @throws what a byte store throws */
export async function tellDrivers(nodes: Iterable<BlockNode>): Promise<void> {
  for (const node of nodes) await tellDriver(node);
}

/** The same after a failure, or where locks are only loosened. A store that refuses keeps locks that are too strict. */
export async function tellDriversQuietly(nodes: Iterable<BlockNode>): Promise<void> {
  for (const node of nodes) {
    try {
      await tellDriver(node);
    } catch {
      // The first error is the one that matters.
    }
  }
}

/** Only byte stores have locks to change, and only when something changed. */
async function tellDriver(node: BlockNode): Promise<void> {
  if (node.definition.kind !== "protocol" || !node.isOpen) return;
  if (samePermissions(node.granted, node.permissions)) return;
  await node.whileDrained(async () => {
    const { permissions, readOnly } = node;
    await node.driver.reopen({ readOnly, options: {}, permissions });
    node.granted = permissions;
  });
}
