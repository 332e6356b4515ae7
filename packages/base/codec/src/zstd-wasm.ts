/**
 * The zstd library as WebAssembly: one instance, called without its package's own JavaScript.
 *
 * Above: portable-zstd, node-zstd (where node:zlib has no zstd). Below: zstd-binary, fflate. The
 * workers' program (worker-zstd) repeats the calls, since it cannot import them.
 *
 * That package's JavaScript fetches its file by a path that no bundle keeps, waits for ever when that
 * fails, and makes a new context for every cluster. The binary is all that is taken from it, and it
 * is loaded when the first zstd cluster comes along: who never sees one never pays for it.
 *
 * 1. An instance that threw is not used again: its memory may be in any state.
 * 2. Memory grows to what the longest cluster and the highest level need, `MAX_MEMORY_BYTES` at most.
 * 3. A frame never makes it write behind the target's length: the library is told how much room there
 *    is, and its result is checked.
 *
 * Source: zstd.h of zstd 1.5.7 ("Explicit context", "Simple dictionary API", here without dictionary,
 * which is the only way to a context of one's own that the binary exports).
 */
import { assert, BlockError, type MaybePromise } from "@blocklayer/bytes";
import { gunzipSync } from "fflate";

const PAGE_BYTES = 65536;
const MAX_MEMORY_BYTES = 512 * 1024 * 1024;

/** What is used of the binary's exports, under the names that its minifier gave them. */
interface ZstdExports {
  readonly f: WebAssembly.Memory;
  /** The constructors, to be called first. */
  g(): void;
  /** ZSTD_isError */
  h(code: number): number;
  /** ZSTD_compressBound */
  i(lengthBytes: number): number;
  /** ZSTD_createCCtx */
  j(): number;
  /** ZSTD_compress_usingDict */
  l(
    context: number,
    target: number,
    targetBytes: number,
    source: number,
    sourceBytes: number,
    dictionary: number,
    dictionaryBytes: number,
    level: number,
  ): number;
  /** ZSTD_createDCtx */
  n(): number;
  /** ZSTD_decompress_usingDict */
  q(
    context: number,
    target: number,
    targetBytes: number,
    source: number,
    sourceBytes: number,
    dictionary: number,
    dictionaryBytes: number,
  ): number;
  /** malloc */
  s(lengthBytes: number): number;
  /** free */
  t(pointer: number): void;
}

let module: Promise<WebAssembly.Module> | undefined;

/**
 * The compiled library, made once. Threads can be given it.
 *
 * @throws BlockError `EIO` where the runtime does not compile WebAssembly; the next call tries again
 */
export function loadZstdModule(): Promise<WebAssembly.Module> {
  module ??= compileModule().catch((cause: unknown) => {
    module = undefined;
    const message = "zstd needs WebAssembly, which cannot be compiled here";
    throw new BlockError("EIO", message, { op: "open", cause });
  });
  return module;
}

async function compileModule(): Promise<WebAssembly.Module> {
  const { ZSTD_WASM_GZIP_BASE64 } = await import("./zstd-binary.js");
  const packed = Uint8Array.from(atob(ZSTD_WASM_GZIP_BASE64), (char) => char.charCodeAt(0));
  return WebAssembly.compile(gunzipSync(packed) as Uint8Array<ArrayBuffer>);
}

/** One for the whole thread: calls never overlap, and its memory is worth sharing. */
let shared: WasmZstd | undefined;

/** This thread's library: at once when it is there already. */
export function sharedZstd(): MaybePromise<WasmZstd> {
  return shared ?? loadZstdModule().then((compiled) => (shared ??= new WasmZstd(compiled)));
}

/** The library, ready to work. */
export class WasmZstd {
  readonly #module: WebAssembly.Module;
  #instance: ZstdInstance | undefined;

  constructor(compiled: WebAssembly.Module) {
    this.#module = compiled;
  }

  /** Compresses into one frame; undefined when that is longer than `maxBytes`. */
  compress(source: Uint8Array, level: number, maxBytes: number): Uint8Array | undefined {
    return this.#use((instance) => instance.compress(source, level, maxBytes));
  }

  /** Decodes a whole frame into the start of `target`: a FrameDecoder. */
  decompress(frame: Uint8Array, target: Uint8Array): number {
    return this.#use((instance) => instance.decompress(frame, target));
  }

  #use<T>(work: (instance: ZstdInstance) => T): T {
    this.#instance ??= new ZstdInstance(this.#module);
    try {
      return work(this.#instance);
    } catch (cause) {
      this.#instance = undefined;
      throw new BlockError("ENOMEM", "zstd ran out of memory or failed", { cause });
    }
  }
}

class ZstdInstance {
  readonly #exports: ZstdExports;
  readonly #source: Area;
  readonly #target: Area;
  /** Made when first needed: a compressor's context has tables of megabytes. */
  #compressor = 0;
  #decompressor = 0;

  constructor(compiled: WebAssembly.Module) {
    const imports = { a: fail, b: fail, c: fail, d: fail, e: (n: number) => this.#grow(n >>> 0) };
    const { exports } = new WebAssembly.Instance(compiled, { a: imports });
    this.#exports = exports as unknown as ZstdExports;
    this.#exports.g();
    this.#source = new Area(this.#exports);
    this.#target = new Area(this.#exports);
  }

  compress(source: Uint8Array, level: number, maxBytes: number): Uint8Array | undefined {
    const zstd = this.#exports;
    this.#compressor ||= checkedPointer(zstd.j());
    // With less room than this the library may fail although the frame would fit.
    const room = zstd.i(source.length);
    const [from, to] = [this.#source.put(source), this.#target.room(room)];
    const code = zstd.l(this.#compressor, to, room, from, source.length, 0, 0, level);
    if (zstd.h(code) !== 0) throw new Error(`compressing failed with code ${-code}`);
    return code > maxBytes ? undefined : this.#target.bytes(code).slice();
  }

  decompress(frame: Uint8Array, target: Uint8Array): number {
    const zstd = this.#exports;
    this.#decompressor ||= checkedPointer(zstd.n());
    const [from, to] = [this.#source.put(frame), this.#target.room(target.length)];
    const code = zstd.q(this.#decompressor, to, target.length, from, frame.length, 0, 0);
    if (zstd.h(code) !== 0) return -1;
    assert(code >= 0 && code <= target.length, "zstd keeps to the room that it is given");
    target.set(this.#target.bytes(code));
    return code;
  }

  /** Called by malloc. */
  #grow(wantedBytes: number): number {
    const memory = this.#exports.f;
    if (wantedBytes > MAX_MEMORY_BYTES) return 0;
    try {
      memory.grow(Math.ceil((wantedBytes - memory.buffer.byteLength) / PAGE_BYTES));
      return 1;
    } catch {
      return 0;
    }
  }
}

/** A piece of the instance's memory, as long as its longest use so far. */
class Area {
  readonly #exports: ZstdExports;
  #pointer = 0;
  #lengthBytes = 0;

  constructor(exports: ZstdExports) {
    this.#exports = exports;
  }

  room(lengthBytes: number): number {
    if (this.#pointer === 0 || lengthBytes > this.#lengthBytes) {
      this.#exports.t(this.#pointer);
      this.#pointer = checkedPointer(this.#exports.s(Math.max(lengthBytes, 1)));
      this.#lengthBytes = lengthBytes;
    }
    return this.#pointer;
  }

  put(bytes: Uint8Array): number {
    const pointer = this.room(bytes.length);
    this.bytes(bytes.length).set(bytes);
    return pointer;
  }

  /** Valid until memory grows. */
  bytes(lengthBytes: number): Uint8Array {
    return new Uint8Array(this.#exports.f.buffer, this.#pointer, lengthBytes);
  }
}

function checkedPointer(pointer: number): number {
  if (pointer === 0) throw new Error("no memory is left");
  return pointer;
}

function fail(): never {
  throw new Error("the library gave up");
}
