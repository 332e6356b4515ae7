/** `-l SNAPSHOT_PARAM` of convert and measure: an image opened as it was in one of its snapshots. */
import type { BlockBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/bytes";
import { openImage, type OpenImageOptions, parseSnapshotParam } from "@blocklayer/image";
import { UsageError } from "./command-line.js";
import { describeError } from "./describe-error.js";
import { whileOpening } from "./naming.js";

/** What the word means for opening. @throws UsageError in qemu-img's words */
export function snapshotOption(param: string | undefined): Pick<OpenImageOptions, "snapshot"> {
  if (param === undefined) return {};
  try {
    return { snapshot: parseSnapshotParam(param) };
  } catch (error) {
    throw new UsageError(`Failed in parsing snapshot param '${param}': ${describeError(error)}`);
  }
}

/** As qemu-img, a snapshot that cannot be shown is an error of its own: the image itself did open. */
export async function openSource(name: string, options: OpenImageOptions): Promise<BlockBackend> {
  try {
    return await whileOpening(name, () => openImage(name, options));
  } catch (error) {
    const { cause } = error as Error;
    if (!(cause instanceof BlockError) || cause.op !== "load snapshot") throw error;
    const why = cause.code === "ENOENT" ? "Can't find snapshot" : describeError(cause);
    throw new BlockError(cause.code, `Failed to load snapshot: ${why}`, { cause });
  }
}
