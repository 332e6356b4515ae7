/**
 * Writes what an image holds into the image below it, or further below.
 *
 * Above: the tool's `commit`. Below: the copy engine, the format driver's `makeEmpty`.
 *
 * 1. Each layer above the base is opened without what is below it, and the base alone, to be written: nobody reads through
 *    a file that is being written. Layers go in from the lowest to the highest.
 * 2. The base is flushed before the image is emptied. A failure or a crash before that leaves the image as it was, and a
 *    base that shows the same through it.
 * 3. Where a layer ends, the one above it shows zeroes, not what the base has there: so it is in the base afterwards.
 * 4. A base that is shorter than the image grows; one that is longer keeps its end, also where a layer between them has
 *    something behind the end of a layer above it.
 */
import { BlockError } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";
import { convertImage } from "../copy/convert-image.js";
import { closing } from "../open/closing.js";
import { nameOfOptions, resolveName } from "../open/filename.js";
import { fileOpenGate } from "../open/open-gate.js";
import { openImage } from "../open/open-image.js";
import type { ImageSource, OpenImageOptions } from "../open/types.js";
import { resizeImage } from "../resize/resize-image.js";

/** Longest chain that is followed. */
const MAX_CHAIN_LENGTH = 200;

/** Options of `commitImage`. `readOnly` and `backing` are its own. */
export interface CommitOptions
  extends Omit<OpenImageOptions, "readOnly" | "backing" | "forceShare"> {
  /** The image of the chain that is written, by its name; absent: the one just below. Implies `keep`. */
  readonly base?: string;
  /** Do not empty the image afterwards (`-d`). */
  readonly keep?: boolean;
  /** At most this many bytes a second are written (`-r`). */
  readonly rateLimitBytesPerSecond?: number;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Commits an image.
 *
 * @throws BlockError `EINVAL` when there is no backing file, or none of that name, `ENOTSUP` when the format cannot be
 *   emptied, before anything is written; what the drivers throw
 */
export async function commitImage(image: ImageSource, options: CommitOptions): Promise<void> {
  const { base, keep = base !== undefined } = options;
  const layers: BlockBackend[] = [];
  await closing(layers, async () => {
    const target = await openChain(image, options, layers, keep);
    const [top] = layers;
    await closing([target], async () => {
      if (!keep && top?.root.driver.makeEmpty === undefined) {
        const message = `format '${top?.root.driverName}' cannot be emptied`;
        throw new BlockError("ENOTSUP", message, { op: "commit" });
      }
      await writeLayers(layers.toReversed(), target, options);
      await target.flush();
    });
    if (keep || top === undefined) return;
    await top.root.driver.makeEmpty?.();
    await top.flush();
  });
}

/**
 * Opens the layers above the base, the top first, and the base.
 *
 * @param layers - filled as they open, so that the caller closes them whatever happens
 */
async function openChain(
  image: ImageSource,
  options: CommitOptions,
  layers: BlockBackend[],
  keep: boolean,
): Promise<BlockBackend> {
  const { base, keep: _k, rateLimitBytesPerSecond: _r, onProgress: _p, ...open } = options;
  const { format: _f, imageOpts: _i, nodeOptions: _n, onProbedRaw: _w, ...below } = open;
  const gate = options.openGate ?? fileOpenGate(gateOptions(options));
  let source: ImageSource = image;
  let own: OpenImageOptions = open;
  for (let depth = 0; depth < MAX_CHAIN_LENGTH; depth++) {
    const layer = await openImage(source, { ...own, backing: null, readOnly: keep || depth > 0 });
    layers.push(layer);
    const info = await layer.root.driver.formatInfo?.();
    const { backingFilename: filename, backingFormat: format } = info ?? {};
    if (filename === undefined) throw noSuchBase(image, base);
    const name =
      layer.root.filename ?? (typeof source === "string" ? source : nameOfOptions(source));
    const request = { kind: "backing", filename, image: name } as const;
    const node = await gate(format === undefined ? request : { ...request, format });
    if (node === null) throw noSuchBase(image, base);
    const isBase = base === undefined || base === filename || base === resolveName(name, filename);
    if (isBase) return await openImage(node, { ...below, readOnly: false });
    source = node;
    own = below;
  }
  throw new BlockError("ELOOP", `the chain is longer than ${MAX_CHAIN_LENGTH} images`, {
    op: "commit",
  });
}

function gateOptions({ drivers, cache }: CommitOptions): Parameters<typeof fileOpenGate>[0] {
  return { drivers, ...(cache === undefined ? {} : { cache }) };
}

function noSuchBase(image: ImageSource, base: string | undefined): BlockError {
  const name = typeof image === "string" ? image : nameOfOptions(image);
  const message =
    base === undefined
      ? "Image does not have a backing file"
      : `Did not find '${base}' in the backing chain of '${name}'`;
  return new BlockError("EINVAL", message, { op: "commit" });
}

/** From the lowest to the highest. */
async function writeLayers(
  layers: readonly BlockBackend[],
  target: BlockBackend,
  options: CommitOptions,
): Promise<void> {
  const { onProgress, signal, rateLimitBytesPerSecond } = options;
  const shown = layers.map((_, index) => shownLengthOf(layers.slice(index)));
  const total = shown.reduce((sum, lengthBytes) => sum + lengthBytes, 0);
  let before = 0;
  let shownEnd = Infinity;
  for (const [index, layer] of layers.entries()) {
    const lengthBytes = shown[index] as number;
    await zeroPast(target, shownEnd, lengthBytes, signal);
    if (lengthBytes > target.lengthBytes) {
      await resizeImage(target, { lengthBytes, ...(signal === undefined ? {} : { signal }) });
    }
    const done = before;
    await convertImage({
      sources: [layer],
      sourceLengthBytes: lengthBytes,
      target,
      targetBacking: { lengthBytes: target.lengthBytes, bareLayers: true },
      onProgress: (bytes) => onProgress?.(done + bytes, total),
      ...(rateLimitBytesPerSecond === undefined ? {} : { rateLimitBytesPerSecond }),
      ...(signal === undefined ? {} : { signal }),
    });
    before += lengthBytes;
    shownEnd = lengthBytes;
  }
}

/** How much of the first of some layers the image shows: up to the end of the shortest. */
function shownLengthOf(layers: readonly BlockBackend[]): number {
  return Math.min(...layers.map(({ lengthBytes }) => lengthBytes));
}

/** What a longer layer shows behind the end of the one below it is zero. */
async function zeroPast(
  target: BlockBackend,
  shownEnd: number,
  lengthBytes: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const end = Math.min(lengthBytes, target.lengthBytes);
  if (shownEnd >= end) return;
  const io = signal === undefined ? {} : { signal };
  await target.writeZeroes(shownEnd, end - shownEnd, { mayUnmap: true, ...io });
}
