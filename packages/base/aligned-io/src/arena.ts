/**
 * A bounded arena of page-aligned buffers: what direct I/O reads into and writes from.
 *
 * Above it stand AlignedIo (bounce buffers) and everybody who wants his requests to pass without a copy.
 *
 * 1. Buffers come in size classes, powers of two from a page to `maxBufferBytes`. The classes share one
 *    memory (buddy system), so space that one class gave back serves the others.
 * 2. The classes in use never add up to more than `maxBytes`. Whoever comes when the arena is full waits;
 *    first come, first served, also when a later, smaller request would fit.
 * 3. Memory that was given to the arena stays with it: it grows by chunks up to the bound and never shrinks.
 * 4. A buffer holds what its last user left, unless zeroes are asked for.
 * 5. A few short *reserve* buffers lie outside the bound. Only AlignedIo takes them, and only when the arena
 *    is full: so a full arena makes it slower and never makes it stop.
 *
 * The arena is for buffers of requests in flight. Small buffers that are held for long split the chunks,
 * and then a long buffer may wait although enough bytes are free.
 */
import { assert, BlockError, exactLog2, type MaybePromise } from "@blocklayer/bytes";
import { type AcquireOptions, WaiterList } from "@blocklayer/co-lock";
import { PAGE_BYTES } from "./aligned-memory.js";
import {
  type ArenaBacking,
  type ArenaMemory,
  type MemorySpan,
  openArenaMemory,
  WASM_PAGE_BYTES,
} from "./arena-memory.js";
import { BuddyAllocator } from "./buddy.js";

/** The longest buffer of an arena with room for it. */
const MAX_BUFFER_BYTES = 4 * 1024 * 1024;
/** The length of a reserve buffer. */
export const RESERVE_BYTES: number = WASM_PAGE_BYTES;
/** How many reserve buffers an arena makes at most. One serves a whole AlignedIo. */
const MAX_RESERVES = 256;

export interface ArenaOptions {
  /** The bound. Rounded down to a multiple of the longest buffer; at least 64 KiB. */
  readonly maxBytes: number;
  /** Insist on a kind of memory, instead of the best that the runtime has. */
  readonly backing?: ArenaBacking;
}

export interface AllocateOptions extends Pick<AcquireOptions, "signal"> {
  /** Fill the buffer with zeroes. Otherwise it holds whatever was there. */
  readonly zeroed?: boolean;
}

/** Bytes that are lent. */
export interface AlignedBuffer {
  /** As long as asked for. Not to be touched after the release. */
  readonly bytes: Uint8Array;
  /**
   * Gives the bytes back. Requires: no request in flight uses them.
   *
   * @throws AssertionError when released twice
   */
  release(): void;
  /** The same as `release`. */
  [Symbol.dispose](): void;
}

class ArenaBuffer implements AlignedBuffer {
  readonly lengthBytes: number;
  readonly order: number;
  readonly zeroed: boolean;
  bytes!: Uint8Array;
  page = -1;
  #arena: AlignedArena | undefined;

  constructor(arena: AlignedArena, lengthBytes: number, zeroed: boolean) {
    this.#arena = arena;
    this.lengthBytes = lengthBytes;
    this.order = orderOf(lengthBytes);
    this.zeroed = zeroed;
  }

  release(): void {
    const arena = this.#arena;
    assert(arena !== undefined, "an aligned buffer is released once");
    this.#arena = undefined;
    arena.takeBack(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** Lends page-aligned memory. */
export class AlignedArena {
  /** The bound on the classes in use. */
  readonly maxBytes: number;
  /** The longest buffer. Longer transfers are split. */
  readonly maxBufferBytes: number;
  readonly #memory: ArenaMemory;
  readonly #buddy: BuddyAllocator;
  readonly #chunks: MemorySpan[] = [];
  /** By page: the last view made there. Making one costs more than finding the page. */
  readonly #views: (Uint8Array | undefined)[] = [];
  readonly #waiters: WaiterList<ArenaBuffer>;
  readonly #freeReserves: Uint8Array[] = [];
  #reserves = 0;
  #usedBytes = 0;
  #exhausted = false;

  constructor(options: ArenaOptions) {
    const { maxBytes } = options;
    assert(maxBytes >= WASM_PAGE_BYTES, "an arena's bound is at least 64 KiB");
    this.maxBufferBytes = Math.min(MAX_BUFFER_BYTES, 2 ** Math.floor(Math.log2(maxBytes)));
    const maxChunks = Math.floor(maxBytes / this.maxBufferBytes);
    this.maxBytes = maxChunks * this.maxBufferBytes;
    this.#memory = openArenaMemory(this.maxBytes + MAX_RESERVES * RESERVE_BYTES, options.backing);
    this.#buddy = new BuddyAllocator(exactLog2(this.maxBufferBytes / PAGE_BYTES), maxChunks);
    this.#waiters = new WaiterList("arena", () => this.#pump());
  }

  /** What the start of every buffer is a multiple of: a page, or 1 where the runtime has no such memory. */
  get alignment(): number {
    return this.#memory.alignment;
  }

  /** What the bytes are made of. */
  get backing(): ArenaBacking {
    return this.#memory.backing;
  }

  /** The size classes of the buffers that are lent, added up. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** How many wait for a buffer. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * Lends a buffer; waits while the arena is full. Do not wait for a buffer while holding one: take one
   * long buffer, or as much as `tryAllocate` gives.
   *
   * @param lengthBytes - 1 to `maxBufferBytes`
   * @throws BlockError `EINVAL` when longer than `maxBufferBytes`; `ENOMEM` when the system has no memory
   *   at all; `ECANCELED` when aborted
   */
  allocate(lengthBytes: number, options?: AllocateOptions): MaybePromise<AlignedBuffer> {
    const signal = options?.signal;
    if (signal?.aborted === true) {
      throw new BlockError("ECANCELED", "arena: the wait was aborted", { cause: signal.reason });
    }
    const buffer = this.#newBuffer(lengthBytes, options);
    if (this.#waiters.length === 0 && this.#lend(buffer)) return buffer;
    if (this.#chunks.length === 0) throw outOfMemory(lengthBytes);
    return this.#waiters.enqueue(buffer, signal).promise;
  }

  /**
   * Lends a buffer if that is possible at once and overtakes nobody.
   *
   * @param lengthBytes - 1 to `maxBufferBytes`
   * @throws BlockError `EINVAL` when longer than `maxBufferBytes`
   */
  tryAllocate(
    lengthBytes: number,
    options?: Pick<AllocateOptions, "zeroed">,
  ): AlignedBuffer | undefined {
    const buffer = this.#newBuffer(lengthBytes, options);
    return this.#waiters.length === 0 && this.#lend(buffer) ? buffer : undefined;
  }

  /** @internal A buffer was released. */
  takeBack(buffer: ArenaBuffer): void {
    this.#usedBytes -= classBytes(buffer.order);
    this.#buddy.release(buffer.page, buffer.order);
    if (this.#waiters.length > 0) this.#pump();
  }

  /**
   * @internal A reserve buffer of RESERVE_BYTES, outside the bound.
   * @throws BlockError `ENOMEM` when all are out
   */
  takeReserve(): Uint8Array {
    const free = this.#freeReserves.pop();
    if (free !== undefined) return free;
    const span = this.#reserves < MAX_RESERVES ? this.#memory.extend(RESERVE_BYTES) : undefined;
    if (span === undefined) throw outOfMemory(RESERVE_BYTES);
    this.#reserves++;
    return new Uint8Array(span.buffer, span.offset, RESERVE_BYTES);
  }

  /** @internal */
  giveReserveBack(bytes: Uint8Array): void {
    this.#freeReserves.push(bytes);
  }

  #newBuffer(
    lengthBytes: number,
    options: Pick<AllocateOptions, "zeroed"> | undefined,
  ): ArenaBuffer {
    assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0, "a buffer has at least one byte");
    if (lengthBytes > this.maxBufferBytes) {
      throw new BlockError(
        "EINVAL",
        `arena: a buffer of ${lengthBytes} bytes is longer than the longest, ${this.maxBufferBytes}`,
        { length: lengthBytes },
      );
    }
    return new ArenaBuffer(this, lengthBytes, options?.zeroed === true);
  }

  /** Gives the buffer its bytes, if there are any. */
  #lend(buffer: ArenaBuffer): boolean {
    let page = this.#buddy.allocate(buffer.order);
    if (page < 0) {
      if (!this.#grow()) return false;
      page = this.#buddy.allocate(buffer.order);
    }
    buffer.page = page;
    buffer.bytes = this.#viewAt(page, buffer.lengthBytes);
    if (buffer.zeroed) buffer.bytes.fill(0);
    this.#usedBytes += classBytes(buffer.order);
    return true;
  }

  #grow(): boolean {
    if (this.#exhausted || !this.#buddy.canGrow) return false;
    const span = this.#memory.extend(this.maxBufferBytes);
    if (span === undefined) {
      // What the system refused once it is not asked for again: the arena stays as large as it is.
      this.#exhausted = this.#chunks.length > 0;
      return false;
    }
    this.#chunks.push(span);
    this.#buddy.addChunk();
    return true;
  }

  #viewAt(page: number, lengthBytes: number): Uint8Array {
    const known = this.#views[page];
    if (known !== undefined && known.length === lengthBytes) return known;
    const at = page * PAGE_BYTES;
    const chunk = this.#chunks[Math.floor(at / this.maxBufferBytes)];
    assert(chunk !== undefined, "a page that is lent lies in a chunk");
    const view = new Uint8Array(
      chunk.buffer,
      chunk.offset + (at % this.maxBufferBytes),
      lengthBytes,
    );
    this.#views[page] = view;
    return view;
  }

  #pump(): void {
    let head = this.#waiters.head;
    while (head !== undefined && this.#lend(head.value)) {
      head.grant();
      head = this.#waiters.head;
    }
  }
}

/** The size class: log2 of how many pages it takes. */
function orderOf(lengthBytes: number): number {
  const pages = Math.ceil(lengthBytes / PAGE_BYTES);
  return pages === 1 ? 0 : 32 - Math.clz32(pages - 1);
}

function classBytes(order: number): number {
  return PAGE_BYTES << order;
}

function outOfMemory(lengthBytes: number): BlockError {
  return new BlockError("ENOMEM", `arena: no memory for a buffer of ${lengthBytes} bytes`, {
    length: lengthBytes,
  });
}
