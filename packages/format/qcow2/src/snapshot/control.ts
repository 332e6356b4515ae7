/**
 * Internal snapshots as the contract has them.
 *
 * Above: driver.ts hands out one. Below: the other files of this folder.
 *
 * Changes pass the driver's own gate, like every change of the image: see `change`.
 */
import type {
  InternalSnapshot,
  RequestOptions,
  SnapshotControl,
  SnapshotCreateOptions,
  SnapshotSelector,
} from "@blocklayer/block-api";
import type { IoVector } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { applySnapshot } from "./apply.js";
import { changeSnapshots } from "./change.js";
import { createSnapshot } from "./create.js";
import { deleteSnapshot } from "./delete.js";
import { loadSnapshotTable } from "./stored-table.js";
import type { SnapshotEntry } from "./table.js";
import { readVmState, writeVmState } from "./vm-state.js";

/** The image, and what comes before and after each use of it, in driver.ts. */
export interface SnapshotGate {
  /** As it is now: the driver reads it anew when it is taken back from another process. */
  image(): Qcow2Image;
  /** For every use. @throws BlockError when the driver is closed, or the range is none */
  begin(op: string, offset: number, options?: RequestOptions): void;
  /** For every change. */
  change<T>(op: string, work: () => Promise<T>): Promise<T>;
}

export class Qcow2Snapshots implements SnapshotControl {
  readonly #gate: SnapshotGate;

  constructor(gate: SnapshotGate) {
    this.#gate = gate;
  }

  get #image(): Qcow2Image {
    return this.#gate.image();
  }

  async list(): Promise<readonly InternalSnapshot[]> {
    this.#gate.begin("list snapshots", 0);
    const image = this.#image;
    const lease = await image.lock.acquire();
    try {
      return (await loadSnapshotTable(image.file, image.header)).entries.map(publicOf);
    } finally {
      lease.release();
    }
  }

  async create(options: SnapshotCreateOptions): Promise<InternalSnapshot> {
    return this.#change("create snapshot", () => createSnapshot(this.#image, options));
  }

  async apply(which: SnapshotSelector): Promise<InternalSnapshot> {
    return this.#change("apply snapshot", () => applySnapshot(this.#image, which));
  }

  async delete(which: SnapshotSelector): Promise<InternalSnapshot> {
    return this.#change("delete snapshot", () => deleteSnapshot(this.#image, which));
  }

  async readVmState(offset: number, target: IoVector, options?: RequestOptions): Promise<void> {
    this.#gate.begin("read VM state", offset, options);
    await readVmState(this.#image, offset, target, options);
  }

  async writeVmState(offset: number, source: IoVector, options?: RequestOptions): Promise<void> {
    this.#gate.begin("write VM state", offset, options);
    await this.#gate.change("write VM state", () =>
      writeVmState(this.#image, offset, source, options),
    );
  }

  async #change(op: string, work: () => Promise<SnapshotEntry>): Promise<InternalSnapshot> {
    this.#gate.begin(op, 0);
    const image = this.#image;
    return publicOf(await this.#gate.change(op, () => changeSnapshots(image, op, work)));
  }
}

/** The contract's part of an entry. */
function publicOf(entry: SnapshotEntry): InternalSnapshot {
  const { l1TableOffset: _at, isAligned: _aligned, l1Size: _size, ...rest } = entry;
  const { extraBytes: _extra, bytes: _bytes, ...snapshot } = rest;
  return snapshot;
}
