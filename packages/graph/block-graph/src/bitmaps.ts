/**
 * Dirty bitmaps of a backend's root node, changed while the node is at rest.
 *
 * Above: `BlockBackend.bitmaps`. Below: the driver's own BitmapControl.
 *
 * A change drains the node first, and counts as a write: closing flushes it.
 */
import type {
  BitmapControl,
  DirtyBitmap,
  DirtyBitmapOptions,
  DirtyRange,
} from "@blocklayer/block-api";
import type { BlockNode } from "./node.js";

/** What the backend decides. */
export interface BitmapRights {
  /** @throws BlockError when the backend is closed */
  refuseClosed(op: string): void;
  /** @throws BlockError `EPERM` when it is read-only */
  refuseReadOnly(op: string): void;
}

export class BackendBitmaps implements BitmapControl {
  readonly #node: BlockNode;
  readonly #driver: BitmapControl;
  readonly #rights: BitmapRights;

  constructor(node: BlockNode, driver: BitmapControl, rights: BitmapRights) {
    this.#node = node;
    this.#driver = driver;
    this.#rights = rights;
  }

  get diskBytes(): number {
    return this.#driver.diskBytes;
  }

  async list(): Promise<readonly DirtyBitmap[]> {
    this.#rights.refuseClosed("list bitmaps");
    return await this.#driver.list();
  }

  async dirtyRanges(name: string, from: number, limit: number): Promise<readonly DirtyRange[]> {
    this.#rights.refuseClosed("read bitmap");
    return await this.#driver.dirtyRanges(name, from, limit);
  }

  add(name: string, options?: DirtyBitmapOptions): Promise<void> {
    return this.#change("add bitmap", () => this.#driver.add(name, options));
  }

  remove(name: string): Promise<void> {
    return this.#change("remove bitmap", () => this.#driver.remove(name));
  }

  clear(name: string): Promise<void> {
    return this.#change("clear bitmap", () => this.#driver.clear(name));
  }

  setRecording(name: string, recording: boolean): Promise<void> {
    const op = recording ? "enable bitmap" : "disable bitmap";
    return this.#change(op, () => this.#driver.setRecording(name, recording));
  }

  mark(name: string, ranges: readonly DirtyRange[]): Promise<void> {
    return this.#change("mark bitmap", () => this.#driver.mark(name, ranges));
  }

  store(): Promise<void> {
    return this.#change("store bitmaps", () => this.#driver.store());
  }

  async #change(op: string, work: () => Promise<void>): Promise<void> {
    this.#rights.refuseClosed(op);
    this.#rights.refuseReadOnly(op);
    await this.#node.whileDrained(async () => {
      this.#node.refuseClosed(op);
      try {
        await work();
      } finally {
        this.#node.tracker.writeGeneration++;
      }
    });
  }
}
