/**
 * Which pages of an arena are free: a buddy system over page numbers. Pure bookkeeping, no memory.
 *
 * 1. Pages come in chunks of 2^maxOrder. A block of order k is 2^k pages and starts at a multiple of its
 *    size, so no block crosses a chunk, and its buddy is found by flipping one bit.
 * 2. A page is the first of at most one free block; two free buddies are merged at once.
 * 3. Free blocks of one order form a doubly linked list, last freed first: its bytes are in the cache.
 */
import { assert } from "@blocklayer/bytes";

const NONE = -1;

export class BuddyAllocator {
  readonly maxOrder: number;
  readonly #maxPages: number;
  /** By order: the first page of the first free block, or NONE. */
  readonly #heads: Int32Array;
  /** By first page of a free block. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** By page: the order of the free block that starts here, or NONE. */
  readonly #freeOrder: Int8Array;
  #pages = 0;

  /**
   * @param maxOrder - log2 of a chunk's pages
   * @param maxChunks - how many chunks there can be
   */
  constructor(maxOrder: number, maxChunks: number) {
    this.maxOrder = maxOrder;
    this.#maxPages = maxChunks * 2 ** maxOrder;
    this.#heads = new Int32Array(maxOrder + 1).fill(NONE);
    this.#next = new Int32Array(this.#maxPages);
    this.#previous = new Int32Array(this.#maxPages);
    this.#freeOrder = new Int8Array(this.#maxPages).fill(NONE);
  }

  /** Whether there is room for another chunk. */
  get canGrow(): boolean {
    return this.#pages < this.#maxPages;
  }

  /** One more chunk, all free. */
  addChunk(): void {
    assert(this.canGrow, "an arena has no more chunks than it was made for");
    const page = this.#pages;
    this.#pages += 2 ** this.maxOrder;
    this.#push(page, this.maxOrder);
  }

  /**
   * Takes a block of 2^order pages.
   *
   * @returns its first page, or -1 when there is none
   */
  allocate(order: number): number {
    let found = order;
    while (found <= this.maxOrder && this.#heads[found] === NONE) found++;
    if (found > this.maxOrder) return NONE;
    const page = this.#heads[found] as number;
    this.#remove(page, found);
    while (found > order) {
      found--;
      this.#push(page + 2 ** found, found);
    }
    return page;
  }

  /** Gives a block back. Requires: it was taken with this order and is not free. */
  release(page: number, order: number): void {
    assert(this.#freeOrder[page] === NONE, "a block that is given back is not free");
    let first = page;
    let size = order;
    while (size < this.maxOrder) {
      const buddy = first ^ (1 << size);
      if (this.#freeOrder[buddy] !== size) break;
      this.#remove(buddy, size);
      first = Math.min(first, buddy);
      size++;
    }
    this.#push(first, size);
  }

  #push(page: number, order: number): void {
    const head = this.#heads[order] as number;
    this.#next[page] = head;
    this.#previous[page] = NONE;
    if (head !== NONE) this.#previous[head] = page;
    this.#heads[order] = page;
    this.#freeOrder[page] = order;
  }

  #remove(page: number, order: number): void {
    const next = this.#next[page] as number;
    const previous = this.#previous[page] as number;
    if (previous === NONE) this.#heads[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
    this.#freeOrder[page] = NONE;
  }
}
