/**
 * Internal snapshots of a backend's root node, changed while the node is at rest.
 *
 * Above: `BlockBackend.snapshots`. Below: the driver's own SnapshotControl.
 *
 * 1. A change drains the node first. It needs the right to write, and where it makes the disk another length the right
 *    to resize, for as long as it lasts.
 * 2. VM state that is written counts as a write: the next flush covers it.
 */
import {
  findSnapshot,
  type InternalSnapshot,
  type RequestOptions,
  type SnapshotControl,
  type SnapshotCreateOptions,
  type SnapshotSelector,
} from "@blocklayer/block-api";
import type { IoVector } from "@blocklayer/bytes";
import type { BlockNode } from "./node.js";
import { refuseAborted, refuseBadRange } from "./request-checks.js";

/** What the backend decides. */
export interface SnapshotRights {
  /** @throws BlockError when the backend is closed */
  refuseClosed(op: string): void;
  /** @throws BlockError `EPERM` when it is read-only */
  refuseReadOnly(op: string): void;
  /** Runs `work` with the permission to resize. */
  whileResizing<T>(work: () => Promise<T>): Promise<T>;
}

export class BackendSnapshots implements SnapshotControl {
  readonly #node: BlockNode;
  readonly #driver: SnapshotControl;
  readonly #rights: SnapshotRights;

  constructor(node: BlockNode, driver: SnapshotControl, rights: SnapshotRights) {
    this.#node = node;
    this.#driver = driver;
    this.#rights = rights;
  }

  async list(): Promise<readonly InternalSnapshot[]> {
    this.#rights.refuseClosed("list snapshots");
    return await this.#driver.list();
  }

  create(options: SnapshotCreateOptions): Promise<InternalSnapshot> {
    return this.#change("create snapshot", () => this.#driver.create(options));
  }

  async apply(which: SnapshotSelector): Promise<InternalSnapshot> {
    this.#rights.refuseReadOnly("apply snapshot");
    const found = findSnapshot(await this.list(), which);
    const lengthBytes = found?.diskBytes ?? this.#node.lengthBytes;
    const work = (): Promise<InternalSnapshot> =>
      this.#change("apply snapshot", () => this.#driver.apply(which));
    return await (lengthBytes === this.#node.lengthBytes
      ? work()
      : this.#rights.whileResizing(work));
  }

  delete(which: SnapshotSelector): Promise<InternalSnapshot> {
    return this.#change("delete snapshot", () => this.#driver.delete(which));
  }

  async readVmState(offset: number, target: IoVector, options?: RequestOptions): Promise<void> {
    this.#rights.refuseClosed("read VM state");
    this.#check("read VM state", offset, target.lengthBytes, options);
    if (target.lengthBytes === 0) return;
    // The L1 table that maps VM state does not move meanwhile.
    await this.#node.whileDrained(() => this.#driver.readVmState(offset, target, options));
  }

  async writeVmState(offset: number, source: IoVector, options?: RequestOptions): Promise<void> {
    this.#check("write VM state", offset, source.lengthBytes, options);
    if (source.lengthBytes === 0) return;
    await this.#change("write VM state", () => this.#driver.writeVmState(offset, source, options));
  }

  #check(op: string, offset: number, lengthBytes: number, options?: RequestOptions): void {
    refuseBadRange(op, this.#node.name, offset, lengthBytes);
    refuseAborted(op, this.#node.name, options?.signal);
  }

  async #change<T>(op: string, work: () => Promise<T>): Promise<T> {
    this.#rights.refuseClosed(op);
    this.#rights.refuseReadOnly(op);
    return await this.#node.whileDrained(async () => {
      this.#node.refuseClosed(op);
      try {
        return await work();
      } finally {
        this.#node.tracker.writeGeneration++;
      }
    });
  }
}
