/** What a file can take, what it can do, and what its user holds: derived, never stored. */
import { alignDown } from "@blocklayer/bytes";
import {
  ALL_PERMISSIONS,
  type BlockCapabilities,
  type BlockLimits,
  limitsOf,
  MAX_TRANSFER_BYTES,
  PERMISSION,
  type Permissions,
} from "@blocklayer/block-api";
import { probeDirectAlignment, SAFE_ALIGNMENT } from "./alignment-probe.js";
import { logicalBlockBytes } from "./block-device.js";
import type { HostFile } from "./host-file.js";
import type { LockState } from "./image-lock.js";
import type { FileSpace } from "./space.js";

/** What users of a file alone hold, when they do not say. */
export function defaultPermissions(readOnly: boolean): Permissions {
  const { consistentRead, write, writeUnchanged, resize } = PERMISSION;
  const held = readOnly ? consistentRead : consistentRead | write | resize;
  return { held, shared: consistentRead | writeUnchanged };
}

/** What the locks say: who cannot write holds no more than reading, and with `force-share` others may do anything. */
export function lockedPermissions(
  { held, shared }: Permissions,
  readOnly: boolean,
  forceShare: boolean,
): Permissions {
  return {
    held: readOnly ? held & PERMISSION.consistentRead : held,
    shared: forceShare ? ALL_PERMISSIONS : shared,
  };
}

/** Whether holes stay holes until this process writes to them. */
export function mayKeepHoles(lock: LockState, { shared }: Permissions): boolean {
  return lock === "locked" && (shared & PERMISSION.write) === 0;
}

/** The permissions after a change of the read-only state, when nobody says otherwise. */
export function permissionsFor(before: Permissions, readOnly: boolean): Permissions {
  const { write, writeUnchanged, resize } = PERMISSION;
  const held = readOnly
    ? before.held & ~(write | writeUnchanged | resize)
    : before.held | write | resize;
  return { held, shared: before.shared };
}

/** The limits of an open file. In the page cache there are none; past it the system is asked. */
export async function limitsFor(file: HostFile): Promise<BlockLimits> {
  const blockBytes = file.device === undefined ? undefined : await logicalBlockBytes(file.device);
  const spaceAlignment = blockBytes ?? 1;
  if (!file.direct) {
    return limitsOf({ writeZeroesAlignment: spaceAlignment, discardAlignment: spaceAlignment });
  }
  const { request, memory } = await probeDirectAlignment(file.fd, blockBytes);
  return limitsOf({
    requestAlignment: request,
    memoryAlignment: memory,
    maxTransfer: alignDown(MAX_TRANSFER_BYTES, SAFE_ALIGNMENT),
    writeZeroesAlignment: request,
    discardAlignment: request,
  });
}

/** What can be done with an open file. */
export function capabilitiesOf(file: HostFile, space: FileSpace): BlockCapabilities {
  const write = !file.readOnly;
  return {
    write,
    compressedWrite: false,
    writeZeroes: write && space.canZero,
    discard: write && space.canPunch,
    // A flush after several writes is cheaper than one after each, so the graph sends it.
    fua: false,
    truncate: write && file.kind === "regular",
    backing: false,
  };
}
