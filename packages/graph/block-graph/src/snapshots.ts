/**
 * Internal snapshots of a backend's disk, changed while its nodes are at rest.
 *
 * Above: `BlockBackend.snapshots`. Below: at-rest.ts, the driver's own SnapshotControl.
 *
 * 1. A change needs the right to write, and where it makes the disk another length the right to resize, for as long as
 *    it lasts. VM state that is written is a change, too.
 * 2. A node whose driver keeps no snapshots, as a filter, leaves them to its main child, as in QEMU: the nodes from the
 *    root to the one that keeps them are at rest together.
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
import { changeAtRest, type ChangeRights, whileAtRest } from "./at-rest.js";
import type { BlockNode } from "./node.js";
import { refuseAborted, refuseBadRange } from "./request-checks.js";

/** What the backend decides. */
export interface SnapshotRights extends ChangeRights {
  /** Runs `work` with the permission to resize. */
  whileResizing<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * The node that keeps the internal snapshots of a node's disk: itself or a node below it. Of several children that hold
 * data none can keep them for all.
 */
export function snapshotKeeper(node: BlockNode): BlockNode | undefined {
  let keeper: BlockNode | undefined = node;
  while (keeper !== undefined && keeper.driver.snapshots === undefined) {
    keeper = keeper.child("data-file") === undefined ? keeper.file : undefined;
  }
  return keeper;
}

export class BackendSnapshots implements SnapshotControl {
  readonly #root: BlockNode;
  readonly #keeper: BlockNode;
  readonly #driver: SnapshotControl;
  readonly #rights: SnapshotRights;

  /** @param keeper - the root's `snapshotKeeper`, whose driver's control this is */
  constructor(root: BlockNode, keeper: BlockNode, driver: SnapshotControl, rights: SnapshotRights) {
    this.#root = root;
    this.#keeper = keeper;
    this.#driver = driver;
    this.#rights = rights;
  }

  /** From the root to the keeper. */
  get #nodes(): readonly BlockNode[] {
    const nodes: BlockNode[] = [];
    for (let node: BlockNode | undefined = this.#root; node !== undefined; node = node.file) {
      nodes.push(node);
      if (node === this.#keeper) break;
    }
    return nodes;
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
    const lengthBytes = found?.diskBytes ?? this.#keeper.lengthBytes;
    const work = (): Promise<InternalSnapshot> =>
      this.#change("apply snapshot", () => this.#driver.apply(which));
    return await (lengthBytes === this.#keeper.lengthBytes
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
    await whileAtRest(this.#nodes, () => this.#driver.readVmState(offset, target, options));
  }

  async writeVmState(offset: number, source: IoVector, options?: RequestOptions): Promise<void> {
    this.#check("write VM state", offset, source.lengthBytes, options);
    if (source.lengthBytes === 0) return;
    await this.#change("write VM state", () => this.#driver.writeVmState(offset, source, options));
  }

  #check(op: string, offset: number, lengthBytes: number, options?: RequestOptions): void {
    refuseBadRange(op, this.#root.name, offset, lengthBytes);
    refuseAborted(op, this.#root.name, options?.signal);
  }

  #change<T>(op: string, work: () => Promise<T>): Promise<T> {
    return changeAtRest(this.#nodes, this.#rights, op, work);
  }
}
