/**
 * What the format of a disk says of itself, also through a node above it that has none: a filter, `raw`.
 *
 * Above: info, the list of snapshots, the tool's `io`. Below: the drivers' `formatInfo`.
 */
import type { FormatInfo } from "@blocklayer/block-api";
import type { BlockNode } from "@blocklayer/block-graph";

/**
 * The facts of a node's format. Of a format that lies below only what concerns the disk as a whole, as in qemu-img:
 * neither its own rows nor its backing file.
 *
 * @returns `undefined` where no node down to the file has a format with facts
 * @throws what the driver throws
 */
export async function diskFormatInfo(node: BlockNode): Promise<FormatInfo | undefined> {
  if (node.driver.formatInfo !== undefined) return await node.driver.formatInfo();
  const below = node.file === undefined ? undefined : await diskFormatInfo(node.file);
  if (below === undefined) return undefined;
  const { clusterSizeBytes, vmStateOffset, dirty, snapshots } = below;
  return {
    type: node.driverName,
    ...(clusterSizeBytes === undefined ? {} : { clusterSizeBytes }),
    ...(vmStateOffset === undefined ? {} : { vmStateOffset }),
    ...(dirty === undefined ? {} : { dirty }),
    ...(snapshots === undefined ? {} : { snapshots }),
    data: {},
  };
}
