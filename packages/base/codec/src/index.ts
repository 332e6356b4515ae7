/** The portable entry: no built-in modules, no threads. */
import { type ClusterCodec, type CodecName, type CodecOptions, unsupportedCodec } from "./codec.js";
import { PortableDeflateCodec } from "./portable-deflate.js";

export type { ClusterCodec, CodecName, CodecOptions, DecompressItem } from "./codec.js";

/**
 * A codec by the name that qcow2 has for it.
 *
 * @throws UnsupportedError for `zstd`; BlockError `EINVAL` for a level that does not exist
 * @example
 * const codec = createCodec("deflate");
 * const [payload] = await codec.compress([cluster], cluster.length - 1);
 */
export function createCodec(name: CodecName, options: CodecOptions = {}): ClusterCodec {
  if (name !== "deflate") throw unsupportedCodec(name);
  return new PortableDeflateCodec(options);
}
