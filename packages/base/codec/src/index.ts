/** The portable entry: no built-in modules, no threads. */
import type { ClusterCodec, CodecName, CodecOptions } from "./codec.js";
import { PortableDeflateCodec } from "./portable-deflate.js";
import { PortableZstdCodec } from "./portable-zstd.js";
export { COMPRESSION_LEVELS } from "./codec.js";
export type { ClusterCodec, CodecName, CodecOptions, DecompressItem, LevelRange } from "./codec.js";

/**
 * A codec by the name that qcow2 has for it.
 *
 * @throws BlockError `EINVAL` for a level that does not exist
 * @example
 * const codec = createCodec("deflate");
 * const [payload] = await codec.compress([cluster], cluster.length - 1);
 */
export function createCodec(name: CodecName, options: CodecOptions = {}): ClusterCodec {
  return name === "zstd" ? new PortableZstdCodec(options) : new PortableDeflateCodec(options);
}
