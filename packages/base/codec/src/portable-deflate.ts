/**
 * Deflate in plain JavaScript, on fflate: for browsers, and wherever node:zlib is missing.
 *
 * Above: createCodec of the portable entry. Below: fflate.
 *
 * 1. Everything happens at once, on the calling thread.
 * 2. Streams may have distances up to 32 KiB, since fflate's window cannot be bounded. qcow2 asks for
 *    4 KiB. QEMU inflates a cluster in one call, where zlib takes the whole output as the window, and
 *    so reads them; a strict reader with a 4 KiB window does not.
 * 3. fflate checks less than zlib: some damage that node:zlib reports gives wrong bytes here. Output
 *    is bounded by the target all the same.
 *
 * Source: RFC 1951.
 */
import { BlockError } from "@blocklayer/bytes";
import { deflateSync, inflateSync } from "fflate";
import {
  type ClusterCodec,
  checkMaxBytes,
  checkedLevel,
  type CodecOptions,
  damagedPayload,
  type DecompressItem,
  shortPayload,
} from "./codec.js";

type FflateLevel = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

export class PortableDeflateCodec implements ClusterCodec {
  readonly name = "deflate";
  readonly #level: FflateLevel;
  #closed = false;

  constructor(options: CodecOptions) {
    this.#level = checkedLevel("deflate", options) as FflateLevel;
  }

  compress(clusters: readonly Uint8Array[], maxBytes: number): readonly (Uint8Array | undefined)[] {
    this.#checkOpen();
    checkMaxBytes(maxBytes);
    return clusters.map((cluster) => {
      const payload = deflateSync(cluster, { level: this.#level });
      return payload.length > maxBytes ? undefined : payload;
    });
  }

  decompress(payload: Uint8Array, target: Uint8Array): void {
    this.#checkOpen();
    inflateInto({ payload, target });
  }

  decompressMany(items: readonly DecompressItem[]): void {
    this.#checkOpen();
    for (const item of items) inflateInto(item);
  }

  close(): void {
    this.#closed = true;
  }

  #checkOpen(): void {
    if (this.#closed) throw new BlockError("ECLOSED", "the codec is closed");
  }
}

function inflateInto(item: DecompressItem): void {
  const { payload, target } = item;
  // fflate returns its `out` untouched for an empty payload, as if it had filled it.
  if (payload.length === 0 && target.length > 0) throw shortPayload(item);
  let filled: number;
  try {
    filled = inflateSync(payload, { out: target }).length;
  } catch (error) {
    throw damagedPayload(item, "is damaged", error);
  }
  if (filled !== target.length) throw shortPayload(item);
}
