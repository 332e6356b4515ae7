/**
 * Puts an image on another backing file.
 *
 * Above: the tool's `rebase`. Below: the format driver's `changeBacking`.
 *
 * 1. Safe: whatever the image shows through its old backing file and the new one does not have becomes its own, and is
 *    flushed, before the header names the new file. A crash leaves the same disk on the old file or on the new one.
 * 2. Unsafe: only the name changes; neither file is opened.
 * 3. A name counts from the folder of the image. A file is never put on itself, nor on a chain that holds it.
 */
import { BlockError, MiB } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";
import { firstDifference } from "../compare/same-bytes.js";
import { closing } from "../open/closing.js";
import { nameOfOptions, resolveName } from "../open/filename.js";
import { openImage } from "../open/open-image.js";
import type { ImageSource, OpenImageOptions } from "../open/types.js";

/** What is read and compared at a time, of each side. */
const STEP_BYTES: number = MiB;
/** The unit of formats that hand out no clusters. */
const DEFAULT_UNIT_BYTES = 65536;
/** Longest chain that is looked at for a loop. */
const MAX_CHAIN_LENGTH = 200;

/** Options of `rebaseImage`. `readOnly` and `backing` are its own. */
export interface RebaseOptions
  extends Omit<OpenImageOptions, "readOnly" | "backing" | "forceShare"> {
  /** The new backing file, as it shall stand in the image; absent: none. */
  readonly backing?: { readonly filename: string; readonly format?: string };
  /** Only change the name (`-u`). */
  readonly unsafe?: boolean;
  /** How the new backing file is opened (`-T`). */
  readonly sourceCache?: NonNullable<OpenImageOptions["cache"]>;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Rebases an image.
 *
 * @throws BlockError `EINVAL` for a backing file without a format or a loop, `ENOTSUP` for a format that has no backing
 *   files; what the drivers throw. **After failure:** the image shows the same disk, on its old backing file
 */
export async function rebaseImage(image: ImageSource, options: RebaseOptions): Promise<void> {
  const { backing: _b, unsafe = false, sourceCache: _c, onProgress: _p, ...rest } = options;
  const open: OpenImageOptions = { ...rest, readOnly: false };
  refuseBadReference(options);
  const disk = await openImage(image, unsafe ? { ...open, backing: null } : open);
  await closing([disk], () => rebaseOpen(disk, image, options));
}

async function rebaseOpen(
  disk: BlockBackend,
  image: ImageSource,
  options: RebaseOptions,
): Promise<void> {
  const { backing, unsafe = false } = options;
  const { driver } = disk.root;
  const what = `Could not change the backing file to '${backing?.filename ?? ""}': `;
  const refuse = (code: "EINVAL" | "ENOTSUP", why: string): never => {
    throw new BlockError(code, what + why, { op: "rebase" });
  };
  if (driver.changeBacking === undefined) refuse("ENOTSUP", "Operation not supported");
  if (backing !== undefined && backing.format === undefined) {
    refuse("EINVAL", "backing format must be specified");
  }
  const own = disk.root.filename ?? (typeof image === "string" ? image : nameOfOptions(image));
  const name = backing === undefined ? undefined : resolveName(own, backing.filename);
  if (name === own) refuse("EINVAL", "it is the image itself");
  if (!unsafe) {
    const base = name === undefined ? undefined : await openNewBacking(name, options);
    await closing(base === undefined ? [] : [base], async () => {
      if (base !== undefined && chainHolds(base, own)) {
        refuse("EINVAL", "its chain holds the image");
      }
      await keepContent(disk, base, options);
      await disk.flush();
    });
  }
  await driver.changeBacking?.(backing);
}

function refuseBadReference({ backing, drivers }: RebaseOptions): void {
  const format = backing?.format;
  if (format === undefined || drivers.some(({ name }) => name === format)) return;
  throw new BlockError("EINVAL", `Invalid format name: '${format}'`, { op: "rebase" });
}

async function openNewBacking(name: string, options: RebaseOptions): Promise<BlockBackend> {
  const { backing, drivers, openGate, signal, sourceCache } = options;
  try {
    return await openImage(name, {
      drivers,
      ...(backing?.format === undefined ? {} : { format: backing.format }),
      ...(openGate === undefined ? {} : { openGate }),
      ...(signal === undefined ? {} : { signal }),
      ...(sourceCache === undefined ? {} : { cache: sourceCache }),
    });
  } catch (error) {
    if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
    const prefix = `Could not open new backing file '${name}': `;
    const why = error.message.replace(`Could not open '${name}': `, "");
    throw new BlockError(error.code, prefix + why, { op: "rebase", cause: error });
  }
}

function chainHolds(base: BlockBackend, filename: string): boolean {
  let node: BlockBackend["root"] | undefined = base.root;
  for (let depth = 0; node !== undefined && depth < MAX_CHAIN_LENGTH; depth++) {
    if (node.filename === filename) return true;
    node = node.backing;
  }
  return false;
}

/** Gives the image what it shows through its old backing file and would not show through the new one. */
async function keepContent(
  disk: BlockBackend,
  base: BlockBackend | undefined,
  { onProgress, signal }: RebaseOptions,
): Promise<void> {
  const io = signal === undefined ? {} : { signal };
  const total = disk.lengthBytes;
  for (let offset = 0; offset < total; ) {
    onProgress?.(offset, total);
    const rest = total - offset;
    const own = await disk.blockStatus(offset, rest, io);
    if (own.allocated) {
      offset += own.lengthBytes;
      continue;
    }
    const old = await disk.blockStatusAbove(undefined, offset, own.lengthBytes, io);
    const next = await statusOf(base, offset, old.lengthBytes, io);
    if (old.zero && next.zero) {
      offset += next.lengthBytes;
      continue;
    }
    const length = Math.min(own.lengthBytes, STEP_BYTES - (offset % STEP_BYTES));
    await keepRange(disk, base, offset, length, io);
    offset += length;
  }
  onProgress?.(total, total);
}

/** What the new backing file has; behind its end zeroes. */
async function statusOf(
  base: BlockBackend | undefined,
  offset: number,
  lengthBytes: number,
  io: { readonly signal?: AbortSignal },
): Promise<{ readonly zero: boolean; readonly lengthBytes: number }> {
  if (base === undefined || offset >= base.lengthBytes) return { zero: true, lengthBytes };
  const inside = Math.min(lengthBytes, base.lengthBytes - offset);
  const { zero, lengthBytes: length } = await base.blockStatusAbove(undefined, offset, inside, io);
  return { zero, lengthBytes: length };
}

/** Compares one stretch that the image does not hold, and writes the clusters that differ. */
async function keepRange(
  disk: BlockBackend,
  base: BlockBackend | undefined,
  offset: number,
  length: number,
  io: { readonly signal?: AbortSignal },
): Promise<void> {
  const old = await disk.read(offset, length, io);
  const next = new Uint8Array(length);
  const inside = Math.max(0, Math.min(length, (base?.lengthBytes ?? 0) - offset));
  if (base !== undefined && inside > 0) next.set(await base.read(offset, inside, io));
  const { writeZeroesAlignment } = disk.limits;
  const unit = writeZeroesAlignment > 1 ? writeZeroesAlignment : DEFAULT_UNIT_BYTES;
  let from = -1;
  for (let at = 0; at < length; ) {
    const end = Math.min(length, at + unit - ((offset + at) % unit));
    const differs = firstDifference(old.subarray(at, end), next.subarray(at, end)) < end - at;
    if (differs && from < 0) from = at;
    if (!differs && from >= 0) {
      await disk.write(offset + from, old.subarray(from, at), io);
      from = -1;
    }
    at = end;
  }
  if (from >= 0) await disk.write(offset + from, old.subarray(from), io);
}
