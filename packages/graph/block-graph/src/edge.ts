/**
 * An edge of the graph: one user of one node, with its role and its permissions.
 *
 * Above: a parent node, or a BlockBackend. Below: the node that is used.
 *
 * 1. An edge stands in its node's `parents` from `attach` to `detach`, and in its parent's children as long.
 * 2. `permissions` changes only through a permission update, which has checked every other user of the node.
 */
import type { ChildRole, Permissions } from "@blocklayer/block-api";
import type { BlockNode } from "./node.js";

/** What an edge is to its parent: a child's role, or the root of a user's disk. */
export type EdgeRole = ChildRole | "root";

/** Who uses a node. */
export interface EdgeParent {
  /** For messages: `node 'disk'` or `backend 'disk'`. */
  readonly label: string;
  /** The node that stands above; absent for a backend. */
  readonly node?: BlockNode;
}

export class Edge {
  readonly parent: EdgeParent;
  readonly role: EdgeRole;
  readonly node: BlockNode;
  permissions: Permissions;

  constructor(parent: EdgeParent, role: EdgeRole, node: BlockNode, permissions: Permissions) {
    this.parent = parent;
    this.role = role;
    this.node = node;
    this.permissions = permissions;
  }

  /** For messages: `node 'disk' as 'file'`. */
  get label(): string {
    return this.role === "root" ? this.parent.label : `${this.parent.label} as '${this.role}'`;
  }
}
