/**
 * What the user of a node may do, and what it lets others do: QEMU's permission system.
 * An edge of the graph *holds* some permissions and *shares* some; two users of one node are compatible when
 * each shares all that the other holds. protocol/file turns both sets into locks on the file.
 */

/** Bit values as QEMU's, since they decide which byte of a file is locked. */
export const PERMISSION = {
  /** Reads return what was last written. */
  consistentRead: 1,
  /** Data may change. */
  write: 2,
  /** Writes that leave what is read as it was (copy-on-read). */
  writeUnchanged: 4,
  /** The length may change. */
  resize: 8,
} as const;

/** A sum of PERMISSION values. */
export type PermissionSet = number;

/** Every permission. */
export const ALL_PERMISSIONS: PermissionSet = 15;

/** What one user holds, and what it lets the others hold. */
export interface Permissions {
  readonly held: PermissionSet;
  readonly shared: PermissionSet;
}

/** The names of the permissions in a set, for messages: `["write", "resize"]`. */
export function permissionNames(set: PermissionSet): readonly string[] {
  return Object.entries(PERMISSION)
    .filter(([, bit]) => (set & bit) !== 0)
    .map(([name]) => name);
}

/** What a child is to its parent. `file`: the bytes that hold the format. `backing`: what shows through. */
export type ChildRole = "file" | "backing" | "data-file" | "filtered";
