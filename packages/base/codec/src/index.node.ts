/** The Node entry: node:zlib and worker threads. Its types are those of the portable entry. */
import type { ClusterCodec, CodecName, CodecOptions } from "./codec.js";
import { NodeCodec } from "./node-codec.js";
import { NodeDeflate } from "./node-deflate.js";
import { NodeZstd } from "./node-zstd.js";
export { COMPRESSION_LEVELS } from "./codec.js";
export type { ClusterCodec, CodecName, CodecOptions, DecompressItem, LevelRange } from "./codec.js";

/**
 * A codec by the name that qcow2 has for it.
 *
 * @throws BlockError `EINVAL` for a level or a number of threads that
 * does not exist
 * @example
 * const codec = createCodec("deflate");
 * const [payload] = await codec.compress([cluster], cluster.length - 1);
 */
export function createCodec(name: CodecName, options: CodecOptions = {}): ClusterCodec {
  const algorithm = name === "zstd" ? new NodeZstd() : new NodeDeflate();
  return new NodeCodec(name, algorithm, options);
}
