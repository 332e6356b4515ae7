/**
 * zstd on Node: node:zlib where it has zstd (Node 22.15 and later), else WebAssembly.
 *
 * Above: createCodec of the Node entry. Below: zstd-payload, node:zlib or zstd-wasm; the workers'
 * program.
 */
import zlib from "node:zlib";
import { assert } from "@blocklayer/bytes";
import type { DecompressItem } from "./codec.js";
import type { NodeAlgorithm } from "./node-codec.js";
import type { WorkerCodec } from "./worker-source.js";
import { decodePayload, type FrameDecoder, wholeFrame } from "./zstd-payload.js";
import { loadZstdModule, sharedZstd } from "./zstd-wasm.js";

/** What a Node with zstd has besides what its oldest one declares. */
interface ZlibWithZstd {
  zstdDecompressSync?: (
    frame: Uint8Array,
    options: { readonly chunkSize: number; readonly maxOutputLength: number },
  ) => Uint8Array;
}

/** The decoder of node:zlib; undefined where it has none. */
export function nativeZstdDecoder(): FrameDecoder | undefined {
  const { zstdDecompressSync } = zlib as ZlibWithZstd;
  if (zstdDecompressSync === undefined) return undefined;
  return (frame, target) => {
    try {
      const bytes = zstdDecompressSync(frame, {
        chunkSize: Math.max(target.length, zlib.constants.Z_MIN_CHUNK),
        maxOutputLength: Math.max(target.length, 1),
      });
      target.set(bytes);
      return bytes.length;
    } catch {
      return -1;
    }
  };
}

export class NodeZstd implements NodeAlgorithm {
  #worker: WorkerCodec = { name: "zstd" };
  #decoder: FrameDecoder | undefined;

  /** @param mayBeNative - tests say no, to get WebAssembly on any Node */
  constructor(mayBeNative = true) {
    if (mayBeNative) this.#decoder = nativeZstdDecoder();
  }

  get worker(): WorkerCodec {
    return this.#worker;
  }

  load(): Promise<void> | undefined {
    return this.#decoder === undefined ? this.#loadWasm() : undefined;
  }

  streamOf(item: DecompressItem): Uint8Array | undefined {
    return wholeFrame(item);
  }

  decompress(item: DecompressItem): void {
    assert(this.#decoder !== undefined, "zstd is loaded before it is used");
    decodePayload(item, this.#decoder);
  }

  async #loadWasm(): Promise<void> {
    const wasm = await loadZstdModule();
    const zstd = await sharedZstd();
    this.#worker = { name: "zstd", wasm };
    this.#decoder = (frame, target) => zstd.decompress(frame, target);
  }
}
