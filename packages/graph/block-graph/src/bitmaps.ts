/**
 * Dirty bitmaps of a backend's root node, changed while the node is at rest.
 *
 * Above: `BlockBackend.bitmaps`. Below: at-rest.ts, the driver's own BitmapControl.
 *
 * Changes are those of at-rest.ts.
 */
import type {
  BitmapControl,
  DirtyBitmap,
  DirtyBitmapOptions,
  DirtyRange,
} from "@blocklayer/block-api";
import { changeAtRest, type ChangeRights } from "./at-rest.js";
import type { BlockNode } from "./node.js";

export class BackendBitmaps implements BitmapControl {
  readonly #node: BlockNode;
  readonly #driver: BitmapControl;
  readonly #rights: ChangeRights;

  constructor(node: BlockNode, driver: BitmapControl, rights: ChangeRights) {
    this.#node = node;
    this.#driver = driver;
    this.#rights = rights;
  }

  get canStore(): boolean {
    return this.#driver.canStore;
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

  #change(op: string, work: () => Promise<void>): Promise<void> {
    return changeAtRest([this.#node], this.#rights, op, work);
  }
}
