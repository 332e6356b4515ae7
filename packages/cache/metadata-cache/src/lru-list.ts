/**
 * Slots in the order of their last use, as a ring of links inside the slots.
 *
 * Above: MetadataCache. Moving a slot to the front allocates nothing.
 */
import { Slot } from "./table.js";

const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(NO_BYTES.buffer);

export class LruList {
  /** Stands between the newest and the oldest; never handed out. */
  readonly #ring: Slot = new Slot(-1, { bytes: NO_BYTES, view: NO_VIEW }, undefined);

  /** Adds a slot as the newest. */
  add(slot: Slot): void {
    const ring = this.#ring;
    const second = ring.older;
    slot.newer = ring;
    slot.older = second;
    second.newer = slot;
    ring.older = slot;
  }

  remove(slot: Slot): void {
    slot.newer.older = slot.older;
    slot.older.newer = slot.newer;
    slot.newer = slot;
    slot.older = slot;
  }

  /** Makes a slot of this list the newest. */
  touch(slot: Slot): void {
    if (slot.newer === this.#ring) return;
    this.remove(slot);
    this.add(slot);
  }

  /** The slot that was not used for the longest time among those without pins. */
  oldestUnpinned(): Slot | undefined {
    for (let slot = this.#ring.newer; slot !== this.#ring; slot = slot.newer) {
      if (slot.pins === 0) return slot;
    }
    return undefined;
  }
}
