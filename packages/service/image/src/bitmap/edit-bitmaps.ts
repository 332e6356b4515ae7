/**
 * Changing the dirty bitmaps of an image: qemu-img's `bitmap`.
 *
 * Above: the tool's `bitmap` and `convert --bitmaps`. Below: `BlockBackend.bitmaps`.
 */
import type { BitmapControl, DirtyRange } from "@blocklayer/block-api";
import { BlockError, UnsupportedError } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";

/** One change. `merge` makes dirty what is dirty in a bitmap of this image, or of another one. */
export type BitmapAction =
  | { readonly kind: "add"; readonly granularityBytes?: number; readonly recording?: boolean }
  | { readonly kind: "remove" | "clear" | "enable" | "disable" }
  | { readonly kind: "merge"; readonly source: string; readonly from?: BlockBackend };

/** Ranges that are carried over at a time. */
const RANGES_AT_ONCE = 4096;

/**
 * Carries out changes of one bitmap, in order. They are stored when the backend is closed.
 *
 * @param name - of the bitmap
 * @throws BlockError that names the change which failed; those before it stay
 * @example await editBitmap(disk, "since-monday", [{ kind: "add", granularityBytes: 65536 }])
 */
export async function editBitmap(
  disk: BlockBackend,
  name: string,
  actions: readonly BitmapAction[],
): Promise<void> {
  for (const action of actions) {
    try {
      await carryOut(disk, name, action);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const message = `Operation ${action.kind} on bitmap ${name} failed: ${error.message}`;
      throw new BlockError(error.code, message, { op: "bitmap", cause: error });
    }
  }
}

async function carryOut(disk: BlockBackend, name: string, action: BitmapAction): Promise<void> {
  const bitmaps = bitmapsOf(disk);
  switch (action.kind) {
    case "add": {
      const { kind: _kind, ...options } = action;
      return await bitmaps.add(name, options);
    }
    case "remove":
      return await bitmaps.remove(name);
    case "clear":
      return await bitmaps.clear(name);
    case "enable":
    case "disable":
      return await bitmaps.setRecording(name, action.kind === "enable");
    case "merge":
      return await mergeBitmap(bitmapsOf(action.from ?? disk), action.source, bitmaps, name);
  }
}

/** @throws UnsupportedError when the image's format keeps no bitmaps */
function bitmapsOf(disk: BlockBackend): BitmapControl {
  if (disk.bitmaps !== undefined) return disk.bitmaps;
  const { name, driverName } = disk.root;
  const message = `Can't store persistent bitmaps to '${name}': format '${driverName}' keeps none`;
  throw new UnsupportedError(message, { op: "bitmap", node: name });
}

/**
 * Makes dirty in one bitmap what is dirty in another.
 *
 * @param anyLength - what lies behind the end of the target's disk is left out
 * @throws BlockError `EINVAL` for disks of two lengths, unless any will do
 */
async function mergeBitmap(
  source: BitmapControl,
  sourceName: string,
  target: BitmapControl,
  targetName: string,
  anyLength = false,
): Promise<void> {
  const end = target.diskBytes;
  if (source.diskBytes !== end && !anyLength) {
    const sizes = `destination size is ${end}, source size is ${source.diskBytes}`;
    const message = `Bitmaps are of different sizes (${sizes}) and can't be merged`;
    throw new BlockError("EINVAL", message, { op: "bitmap" });
  }
  for (let from = 0; ; ) {
    const ranges = await source.dirtyRanges(sourceName, from, RANGES_AT_ONCE);
    await target.mark(targetName, anyLength ? cutOff(ranges, end) : ranges);
    const last = ranges.at(-1);
    if (last === undefined) return;
    from = last.offset + last.lengthBytes;
  }
}

function cutOff(ranges: readonly DirtyRange[], end: number): readonly DirtyRange[] {
  return ranges
    .filter(({ offset }) => offset < end)
    .map(({ offset, lengthBytes }) => ({
      offset,
      lengthBytes: Math.min(lengthBytes, end - offset),
    }));
}

/** What becomes of bitmaps that do not simply fit. */
export interface CopyBitmapsOptions {
  /** When one is inconsistent the copy goes on without it, and does not fail. */
  readonly skipBroken?: boolean;
  /**
   * The disks may have different lengths: what a bitmap says of bytes behind the target's end is left out, and what
   * it does not cover stays clean.
   */
  readonly anyLength?: boolean;
  /** Told of each one that is left out. */
  readonly onSkipped?: (name: string) => void;
}

/**
 * Copies all bitmaps of one image to another, which has none of their names, and stores them there. Those that
 * record go on to do so.
 *
 * @throws BlockError `EINVAL` when one is inconsistent and not to be skipped; for disks of two lengths, unless any will do
 */
export async function copyBitmaps(
  from: BlockBackend,
  to: BlockBackend,
  options: CopyBitmapsOptions = {},
): Promise<void> {
  const source = bitmapsOf(from);
  const target = bitmapsOf(to);
  for (const { name, granularityBytes, recording, inconsistent } of await source.list()) {
    if (inconsistent) {
      if (options.skipBroken === true) {
        options.onSkipped?.(name);
        continue;
      }
      const help = "Try --skip-broken-bitmaps, or use 'blk bitmap --remove' to delete it";
      const message = `Cannot copy inconsistent bitmap '${name}'. ${help}`;
      throw new BlockError("EINVAL", message, { op: "bitmap" });
    }
    // It records from the end on: while its disk is copied, and merged, nothing is news.
    await target.add(name, { granularityBytes, recording: false });
    await mergeBitmap(source, name, target, name, options.anyLength);
    if (recording) await target.setRecording(name, true);
  }
  await target.store();
}
