/**
 * Internal snapshots: what a format that keeps them inside its image offers.
 *
 * Above: the graph passes it on (`BlockBackend.snapshots`), and changes nothing while requests are in flight.
 * Below: the driver.
 *
 * 1. A change leaves the image as it was before or as it is after, also after a crash: `delete`, `apply` and
 *    `create` resolve when the change is on the disk. Unflushed writes are flushed first.
 * 2. `apply` may change the length of the disk: to what it was when the snapshot was taken.
 * 3. VM state lies beside the disk, at offsets of its own from 0 on. A snapshot that is made keeps what was
 *    written of it, and one that is applied brings it back.
 */
import type { IoVector } from "@blocklayer/bytes";
import type { RequestOptions } from "./request.js";

/** One internal snapshot. */
export interface InternalSnapshot {
  readonly id: string;
  /** Need not be unique, and may be empty. */
  readonly name: string;
  /** Bytes of the disk when it was taken; absent where an old image does not say. */
  readonly diskBytes?: number;
  /** Bytes of VM state that it keeps. */
  readonly vmStateBytes: bigint;
  /** When it was taken, since 1970. */
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** How long the guest had run. */
  readonly vmClockNanoseconds: bigint;
  /** Instructions that the guest had run; absent for machines that count none. */
  readonly icount?: bigint;
}

/** What a new snapshot is to say. */
export interface SnapshotCreateOptions {
  /** At most 255 bytes of UTF-8. Another snapshot may have it too. */
  readonly name: string;
  /** Since 1970, below 2^32. */
  readonly dateSeconds: number;
  /** Below 10^9. */
  readonly dateNanoseconds: number;
  /** Below 2^64. Default 0. */
  readonly vmClockNanoseconds?: bigint;
  /**
   * Bytes of VM state that were written for it. Default 0. When there are any, they are the snapshot's from now on,
   * and the disk's own VM state is empty.
   */
  readonly vmStateBytes?: number;
  /** Default 0, as qemu-img 7.2 writes it; -1: the machine counts none. */
  readonly icount?: bigint;
}

/**
 * Which snapshot is meant. A string is an id or else a name; of the record, all that is given must fit. Of several
 * that fit, the first one is meant.
 */
export type SnapshotSelector = string | { readonly id?: string; readonly name?: string };

/** What a driver with internal snapshots offers. */
export interface SnapshotControl {
  /**
   * All of them, the oldest first.
   *
   * @throws CorruptImageError when the list cannot be read in full
   */
  list(): Promise<readonly InternalSnapshot[]>;
  /**
   * Keeps the disk as it is now.
   *
   * @returns the new snapshot, with the id that it got
   * @throws BlockError `EINVAL` when a reference count has no room for one more, or the name is too long; `EFBIG`
   *   when there are too many snapshots; CorruptImageError
   */
  create(options: SnapshotCreateOptions): Promise<InternalSnapshot>;
  /**
   * Makes the disk what it was when the snapshot was taken. The snapshot stays.
   *
   * @throws BlockError `ENOENT` when there is no such snapshot, `EINVAL` as for `create`; CorruptImageError
   */
  apply(which: SnapshotSelector): Promise<InternalSnapshot>;
  /**
   * Removes a snapshot, and gives back the space that only it held.
   *
   * @throws BlockError `ENOENT` when there is no such snapshot; CorruptImageError
   */
  delete(which: SnapshotSelector): Promise<InternalSnapshot>;
  /** Fills the vector from the disk's VM state; what was never written reads as zeroes. */
  readVmState(offset: number, target: IoVector, options?: RequestOptions): Promise<void>;
  /** Writes the disk's VM state. @throws BlockError `EFBIG` when the format has no room at that offset */
  writeVmState(offset: number, source: IoVector, options?: RequestOptions): Promise<void>;
}

/**
 * Finds a snapshot in a list.
 *
 * @example findSnapshot(list, "2") // id 2; without one, the first with the name 2
 */
export function findSnapshot<T extends Pick<InternalSnapshot, "id" | "name">>(
  list: readonly T[],
  which: SnapshotSelector,
): T | undefined {
  if (typeof which === "string") {
    return list.find(({ id }) => id === which) ?? list.find(({ name }) => name === which);
  }
  const { id, name } = which;
  if (id === undefined && name === undefined) return undefined;
  return list.find(
    (one) => (id === undefined || one.id === id) && (name === undefined || one.name === name),
  );
}

/** A selector for messages: `'first'`, `id '1', name 'first'`. */
export function snapshotText(which: SnapshotSelector): string {
  if (typeof which === "string") return `'${which}'`;
  const words: string[] = [];
  if (which.id !== undefined) words.push(`id '${which.id}'`);
  if (which.name !== undefined) words.push(`name '${which.name}'`);
  return words.join(", ");
}
