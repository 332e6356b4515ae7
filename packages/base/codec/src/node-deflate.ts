/**
 * Deflate on Node: node:zlib.
 *
 * Above: createCodec of the Node entry. Below: sync-inflate; the workers' program.
 *
 * Streams are written with a 4 KiB window, as qcow2 asks; streams with distances up to 32 KiB are read.
 */
import { type DecompressItem, shortPayload } from "./codec.js";
import type { NodeAlgorithm } from "./node-codec.js";
import { createSyncInflate, type SyncInflate } from "./sync-inflate.js";
import type { WorkerCodec } from "./worker-source.js";

export class NodeDeflate implements NodeAlgorithm {
  readonly worker: WorkerCodec = { name: "deflate" };
  readonly #inflate: SyncInflate = createSyncInflate();

  load(): undefined {}

  streamOf({ payload }: DecompressItem): Uint8Array {
    return payload;
  }

  decompress(item: DecompressItem): void {
    if (!this.#inflate(item.payload, item.target)) throw shortPayload(item);
  }
}
