/**
 * zstd in WebAssembly, on the calling thread: for browsers, and wherever node:zlib is missing.
 *
 * Above: createCodec of the portable entry. Below: zstd-wasm, zstd-payload.
 *
 * 1. The first call of the process is asynchronous, since the library is loaded then; later ones are
 *    done when they return.
 *
 * Source: RFC 8878.
 */
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import {
  checkedLevel,
  checkMaxBytes,
  type ClusterCodec,
  type CodecOptions,
  type DecompressItem,
} from "./codec.js";
import { sharedZstd, type WasmZstd } from "./zstd-wasm.js";
import { decodePayload } from "./zstd-payload.js";

export class PortableZstdCodec implements ClusterCodec {
  readonly name = "zstd";
  readonly #level: number;
  #closed = false;

  constructor(options: CodecOptions) {
    this.#level = checkedLevel("zstd", options);
  }

  compress(
    clusters: readonly Uint8Array[],
    maxBytes: number,
  ): MaybePromise<readonly (Uint8Array | undefined)[]> {
    this.#checkOpen();
    checkMaxBytes(maxBytes);
    return withZstd((zstd) => clusters.map((one) => zstd.compress(one, this.#level, maxBytes)));
  }

  decompress(payload: Uint8Array, target: Uint8Array): MaybePromise<void> {
    return this.decompressMany([{ payload, target }]);
  }

  decompressMany(items: readonly DecompressItem[]): MaybePromise<void> {
    this.#checkOpen();
    return withZstd((zstd) => {
      for (const item of items) {
        decodePayload(item, (frame, target) => zstd.decompress(frame, target));
      }
    });
  }

  close(): void {
    this.#closed = true;
  }

  #checkOpen(): void {
    if (this.#closed) throw new BlockError("ECLOSED", "the codec is closed");
  }
}

function withZstd<T>(work: (zstd: WasmZstd) => T): MaybePromise<T> {
  const zstd = sharedZstd();
  return zstd instanceof Promise ? zstd.then(work) : work(zstd);
}
