/**
 * Which permissions an edge needs, and when two users of one node are in conflict: QEMU's rules.
 *
 * Above: open, attach, reopen. Below: nothing; pure functions.
 *
 * 1. Users of a node are compatible when each shares all that every other one holds.
 * 2. What a node holds on its children follows from what its users hold and share on it.
 * 3. A format with metadata may write and grow its file whenever it is writable, even when no guest writes, and
 *    never lets another user write or resize it.
 * 4. A driver without metadata (raw, filters) passes its users' permissions through.
 * 5. A backing file is only read; others may change it when the users above share `write`.
 */
import { BlockError } from "@blocklayer/bytes";
import {
  ALL_PERMISSIONS,
  type ChildRole,
  type DriverDefinition,
  PERMISSION,
  permissionNames,
  type Permissions,
} from "@blocklayer/block-api";

/** Holding nothing and sharing all: a node that nobody uses. */
export const NO_PERMISSIONS: Permissions = { held: 0, shared: ALL_PERMISSIONS };

/** What a disk's user holds by default: it reads, it writes when it may, and minds nobody. */
export function defaultPermissions(readOnly: boolean): Permissions {
  const held = PERMISSION.consistentRead | (readOnly ? 0 : PERMISSION.write);
  return { held, shared: ALL_PERMISSIONS };
}

/** What all users of a node together hold, and what every one of them shares. */
export function combine(users: Iterable<Permissions>): Permissions {
  let { held, shared } = NO_PERMISSIONS;
  for (const user of users) {
    held |= user.held;
    shared &= user.shared;
  }
  return { held, shared };
}

/** Whether two permission pairs say the same. */
export function samePermissions(a: Permissions, b: Permissions): boolean {
  return a.held === b.held && a.shared === b.shared;
}

/**
 * What a node holds on one of its children.
 *
 * @param definition - the parent's driver
 * @param role - of the child
 * @param writable - whether the parent node is writable
 * @param users - what the parent's own users hold and share, combined
 */
export function childPermissions(
  definition: DriverDefinition,
  role: ChildRole,
  writable: boolean,
  users: Permissions,
): Permissions {
  if (role === "backing") return backingPermissions(users);
  if (definition.kind === "filter" || definition.passThrough === true) return users;
  if (role === "data-file") return dataFilePermissions(writable, users);
  const { consistentRead, write, resize } = PERMISSION;
  // A user that holds nothing (info) reads the header and no more: it minds no writer's half-done state.
  const held = (users.held & consistentRead) | (writable ? consistentRead | write | resize : 0);
  return { held, shared: users.shared & ~(write | resize) };
}

function backingPermissions(users: Permissions): Permissions {
  const { consistentRead, write, writeUnchanged, resize } = PERMISSION;
  const changes = (users.shared & write) === 0 ? 0 : write | resize;
  return { held: users.held & consistentRead, shared: consistentRead | writeUnchanged | changes };
}

function dataFilePermissions(writable: boolean, users: Permissions): Permissions {
  const { write, writeUnchanged, resize } = PERMISSION;
  let held = users.held;
  if (writable && (held & (write | writeUnchanged)) !== 0) held |= write | resize;
  return { held, shared: users.shared & ~resize };
}

/** One user of a node, named for messages. */
export interface NamedUser {
  readonly label: string;
  readonly permissions: Permissions;
}

/**
 * Refuses users that disturb each other.
 *
 * @throws BlockError `EPERM` that names both users and the permissions in dispute
 */
export function refuseConflicts(node: string, users: readonly NamedUser[]): void {
  for (const [index, user] of users.entries()) {
    for (const other of users.slice(index + 1)) {
      refuseConflict(node, user, other);
      refuseConflict(node, other, user);
    }
  }
}

function refuseConflict(node: string, holder: NamedUser, other: NamedUser): void {
  const disputed = holder.permissions.held & ~other.permissions.shared;
  if (disputed === 0) return;
  const names = permissionNames(disputed).join(", ");
  throw new BlockError(
    "EPERM",
    `node '${node}': ${holder.label} needs '${names}', which ${other.label} does not share`,
    { op: "attach", node },
  );
}

/** Refuses users who want to change a node that is read-only. */
export function refuseWritersOfReadOnly(node: string, users: readonly NamedUser[]): void {
  const changes = PERMISSION.write | PERMISSION.writeUnchanged | PERMISSION.resize;
  for (const user of users) {
    const wanted = user.permissions.held & changes;
    if (wanted === 0) continue;
    throw new BlockError(
      "EPERM",
      `node '${node}' is read-only, and ${user.label} needs '${permissionNames(wanted).join(", ")}'`,
      { op: "attach", node },
    );
  }
}
