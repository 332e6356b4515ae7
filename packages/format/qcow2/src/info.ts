/**
 * What `info` says of an image: the header in qemu-img's words.
 *
 * Above: the driver's `formatInfo`. Below: header.
 */
import type { FormatInfo } from "@blocklayer/block-api";
import {
  COMPATIBLE,
  COMPRESSION_TYPE,
  hasFeature,
  INCOMPATIBLE,
  type Qcow2Header,
} from "./header/header.js";

/**
 * The facts of a header, named and ordered as in `qemu-img info --output=json`.
 *
 * @returns `data` has for version 2: `compat`, `compression-type`, `refcount-bits`; for version 3
 *   also `lazy-refcounts`, `corrupt`, `extended-l2`
 */
export function formatInfoOf(header: Qcow2Header): FormatInfo {
  const { incompatible, backingFilename, backingFormat } = header;
  const isCorrupt = hasFeature(incompatible, INCOMPATIBLE.corrupt);
  const compressionType = header.compressionType === COMPRESSION_TYPE.zstd ? "zstd" : "zlib";
  const refcountBits = 2 ** header.refcountOrder;
  return {
    type: "qcow2",
    clusterSizeBytes: 2 ** header.clusterBits,
    dirty: hasFeature(incompatible, INCOMPATIBLE.dirty),
    corrupt: isCorrupt,
    ...(backingFilename === undefined ? {} : { backingFilename }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    data:
      header.version === 2
        ? {
            compat: "0.10",
            "compression-type": compressionType,
            "refcount-bits": refcountBits,
          }
        : {
            compat: "1.1",
            "compression-type": compressionType,
            "lazy-refcounts": hasFeature(header.compatible, COMPATIBLE.lazyRefcounts),
            "refcount-bits": refcountBits,
            corrupt: isCorrupt,
            "extended-l2": hasFeature(incompatible, INCOMPATIBLE.extendedL2),
          },
  };
}
