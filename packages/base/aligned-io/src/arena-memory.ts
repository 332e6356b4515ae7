/**
 * Where an arena's bytes come from. Three kinds, the best first:
 *
 * - `shared`: a shared WebAssembly memory. It starts at a page, grows in place, and can be handed to
 *   workers without a copy.
 * - `plain`: a WebAssembly memory that is not shared. Growing it would detach every buffer in use, so it
 *   has its full length from the start; the operating system gives pages when they are touched.
 * - `heap`: ordinary ArrayBuffers. Nothing is known about their addresses.
 *
 * 1. One WebAssembly memory for an arena, whatever it holds: each reserves gigabytes of address space.
 * 2. A span that was given out stays valid. A shared memory's older buffer objects keep their length when
 *    it grows, so a span beyond them needs the buffer object of after the growth.
 */
import { assert, BlockError, isAligned } from "@blocklayer/bytes";
import { markPageAligned, PAGE_BYTES } from "./aligned-memory.js";

/** The unit in which a WebAssembly memory grows. */
export const WASM_PAGE_BYTES = 65536;
/** As many pages as 32-bit WebAssembly addresses reach: 4 GiB. */
const MAX_WASM_PAGES = 65536;

export type ArenaBacking = "shared" | "plain" | "heap";

/** A run of bytes: `lengthBytes` as asked, from `offset` in the buffer. */
export interface MemorySpan {
  readonly buffer: ArrayBufferLike;
  readonly offset: number;
}

export interface ArenaMemory {
  readonly backing: ArenaBacking;
  /** What every span's start is a multiple of: a page, or 1. */
  readonly alignment: number;
  /**
   * More memory, filled with zeroes.
   *
   * @param lengthBytes - a multiple of WASM_PAGE_BYTES
   * @returns undefined when the system has no more
   */
  extend(lengthBytes: number): MemorySpan | undefined;
}

/**
 * Opens the best memory there is, or the kind that is asked for.
 *
 * @param maxBytes - how much `extend` will be asked for at most, a multiple of WASM_PAGE_BYTES
 * @throws BlockError `ENOTSUP` when the kind that is asked for cannot be had
 */
export function openArenaMemory(maxBytes: number, backing?: ArenaBacking): ArenaMemory {
  assert(isAligned(maxBytes, WASM_PAGE_BYTES), "an arena's memory is whole WebAssembly pages");
  if (backing === "heap") return new HeapMemory();
  const maximum = maxBytes / WASM_PAGE_BYTES;
  if (maximum <= MAX_WASM_PAGES) {
    const shared = backing === "plain" ? undefined : openShared(maximum);
    if (shared !== undefined) return new SharedMemory(shared);
    const plain = backing === "shared" ? undefined : openPlain(maximum);
    if (plain !== undefined) return new PlainMemory(plain);
  }
  if (backing !== undefined) {
    throw new BlockError("ENOTSUP", `arena: this runtime gives no ${backing} memory of that size`);
  }
  return new HeapMemory();
}

function openShared(maximum: number): WebAssembly.Memory | undefined {
  if (typeof SharedArrayBuffer === "undefined") return undefined;
  try {
    const memory = new WebAssembly.Memory({ initial: 0, maximum, shared: true });
    return memory.buffer instanceof SharedArrayBuffer ? memory : undefined;
  } catch {
    return undefined;
  }
}

function openPlain(maximum: number): WebAssembly.Memory | undefined {
  try {
    return new WebAssembly.Memory({ initial: maximum, maximum });
  } catch {
    return undefined;
  }
}

class SharedMemory implements ArenaMemory {
  readonly backing = "shared";
  readonly alignment: number = PAGE_BYTES;
  readonly #memory: WebAssembly.Memory;

  constructor(memory: WebAssembly.Memory) {
    this.#memory = memory;
  }

  extend(lengthBytes: number): MemorySpan | undefined {
    let pagesBefore: number;
    try {
      pagesBefore = this.#memory.grow(lengthBytes / WASM_PAGE_BYTES);
    } catch {
      return undefined;
    }
    // Only the buffer object of after the growth reaches the new bytes.
    const { buffer } = this.#memory;
    markPageAligned(buffer);
    return { buffer, offset: pagesBefore * WASM_PAGE_BYTES };
  }
}

class PlainMemory implements ArenaMemory {
  readonly backing = "plain";
  readonly alignment: number = PAGE_BYTES;
  readonly #buffer: ArrayBuffer;
  #usedBytes = 0;

  constructor(memory: WebAssembly.Memory) {
    this.#buffer = memory.buffer;
    markPageAligned(this.#buffer);
  }

  extend(lengthBytes: number): MemorySpan | undefined {
    const offset = this.#usedBytes;
    if (offset + lengthBytes > this.#buffer.byteLength) return undefined;
    this.#usedBytes += lengthBytes;
    return { buffer: this.#buffer, offset };
  }
}

class HeapMemory implements ArenaMemory {
  readonly backing = "heap";
  readonly alignment: number = 1;

  extend(lengthBytes: number): MemorySpan | undefined {
    try {
      return { buffer: new ArrayBuffer(lengthBytes), offset: 0 };
    } catch {
      return undefined;
    }
  }
}
