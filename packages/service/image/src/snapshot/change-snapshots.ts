/**
 * Making, applying, deleting and listing internal snapshots.
 *
 * Above: the tool. Below: `BlockBackend.snapshots`.
 *
 * 1. Resolved means: on the disk. An error says that the image is as before, or what has become of it.
 * 2. A format that keeps none is an UnsupportedError, but for a list: that is empty.
 */
import type { InternalSnapshot, SnapshotControl, SnapshotSelector } from "@blocklayer/block-api";
import { UnsupportedError } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";
import { diskFormatInfo } from "../info/disk-format-info.js";
import type { SnapshotInfo } from "../info/types.js";

/** Options of `createSnapshot`. */
export interface CreateSnapshotOptions {
  /** When it is taken, in milliseconds since 1970. Default: now. */
  readonly dateMs?: number;
}

/** Keeps the disk as it is now. @throws what `SnapshotControl.create` throws; UnsupportedError */
export async function createSnapshot(
  backend: BlockBackend,
  name: string,
  options: CreateSnapshotOptions = {},
): Promise<InternalSnapshot> {
  const { dateMs = Date.now() } = options;
  return await controlOf(backend, "create snapshot").create({
    name,
    dateSeconds: Math.floor(dateMs / 1000),
    dateNanoseconds: Math.floor((dateMs % 1000) * 1e6),
  });
}

/** Makes the disk what it was in a snapshot. @throws what `SnapshotControl.apply` throws; UnsupportedError */
export async function applySnapshot(
  backend: BlockBackend,
  which: SnapshotSelector,
): Promise<InternalSnapshot> {
  return await controlOf(backend, "apply snapshot").apply(which);
}

/** Removes a snapshot. @throws what `SnapshotControl.delete` throws; UnsupportedError */
export async function deleteSnapshot(
  backend: BlockBackend,
  which: SnapshotSelector,
): Promise<InternalSnapshot> {
  return await controlOf(backend, "delete snapshot").delete(which);
}

/** All snapshots, in the words of qemu-img's JSON; none where the format keeps none. */
export async function listSnapshots(backend: BlockBackend): Promise<readonly SnapshotInfo[]> {
  if (backend.snapshots === undefined) return [];
  const info = await diskFormatInfo(backend.root);
  // The contract's records have the fields of qemu-img's JSON, as SnapshotInfo does.
  return (info?.snapshots ?? []) as unknown as readonly SnapshotInfo[];
}

function controlOf({ root, snapshots }: BlockBackend, op: string): SnapshotControl {
  if (snapshots !== undefined) return snapshots;
  const message = `format '${root.driverName}' keeps no internal snapshots`;
  throw new UnsupportedError(message, { op, node: root.name });
}
