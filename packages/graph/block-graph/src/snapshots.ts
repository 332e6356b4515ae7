/**
 * Internal snapshots of a backend's root node, changed while the node is at rest.
 *
 * Above: `BlockBackend.snapshots`. Below: at-rest.ts, the driver's own SnapshotControl.
 *
 * A change needs the right to write, and where it makes the disk another length the right to resize, for as long as it
 * lasts. VM state that is written is a change, too.
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
import { changeAtRest, type ChangeRights } from "./at-rest.js";
import type { BlockNode } from "./node.js";
import { refuseAborted, refuseBadRange } from "./request-checks.js";

/** What the backend decides. */
export interface SnapshotRights extends ChangeRights {
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

  #change<T>(op: string, work: () => Promise<T>): Promise<T> {
    return changeAtRest(this.#node, this.#rights, op, work);
  }
}
