/** The Node entry: node:zlib and worker threads. Its types are those of the portable entry. */
import { type ClusterCodec, type CodecName, type CodecOptions, unsupportedCodec } from "./codec.js";
import { NodeDeflateCodec } from "./node-deflate.js";

export type { ClusterCodec, CodecName, CodecOptions, DecompressItem } from "./codec.js";

/**
 * A codec by the name that qcow2 has for it.
 *
 * @throws UnsupportedError for `zstd`; BlockError `EINVAL` for a level or a number of threads that
 * does not exist
 * @example
 * const codec = createCodec("deflate");
 * const [payload] = await codec.compress([cluster], cluster.length - 1);
 */
export function createCodec(name: CodecName, options: CodecOptions = {}): ClusterCodec {
  if (name !== "deflate") throw unsupportedCodec(name);
  return new NodeDeflateCodec(options);
}
