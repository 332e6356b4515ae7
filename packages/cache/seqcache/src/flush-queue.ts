/**
 * The finished entries that are to be handed out, oldest first, linked through the entries [S5].
 *
 * Above: SeqCache. An entry joins and leaves without an allocation.
 *
 * 1. Serials rise from the head to the tail, also after an entry came back from a failed write.
 */
import { assert } from "@blocklayer/bytes";
import type { Entry } from "./entry.js";

export class FlushQueue {
  #oldest: Entry | undefined;
  #newest: Entry | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  get oldest(): Entry | undefined {
    return this.#oldest;
  }

  /** Adds an entry at the place that its age gives it: mostly the last. */
  add(entry: Entry): void {
    assert(!entry.queued, "an entry is queued once");
    let older = this.#newest;
    while (older !== undefined && older.serial > entry.serial) older = older.older;
    const newer = older === undefined ? this.#oldest : older.newer;
    entry.older = older;
    entry.newer = newer;
    if (older === undefined) this.#oldest = entry;
    else older.newer = entry;
    if (newer === undefined) this.#newest = entry;
    else newer.older = entry;
    entry.queued = true;
    this.#length++;
  }

  /** Takes the oldest out. */
  shift(): Entry | undefined {
    const entry = this.#oldest;
    if (entry !== undefined) this.remove(entry);
    return entry;
  }

  /** Takes an entry out, wherever it stands. */
  remove(entry: Entry): void {
    assert(entry.queued, "the entry is in the queue");
    const { older, newer } = entry;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    entry.older = undefined;
    entry.newer = undefined;
    entry.queued = false;
    this.#length--;
  }
}
