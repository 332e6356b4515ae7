/**
 * Converts: copies disks into an image that stands.
 *
 * Above: the tool's `convert`. Below: Planner, Copier, Writer. Beside: ConvertTarget, which makes the image and takes
 * care that half of one is not taken for a whole.
 */
import { alignUp, BlockError, KiB, MiB, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { copyArena } from "./buffers.js";
import { Copier, type WriteOrder } from "./copier.js";
import { Planner } from "./planner.js";
import { RateLimit } from "./rate-limit.js";
import { SourceList } from "./source-list.js";
import type { ConvertOptions, ConvertResult } from "./types.js";
import { Writer } from "./writer.js";

const DEFAULT_SPARSE_BYTES: number = 4 * KiB;
const DEFAULT_PARALLEL = 8;
const MAX_PARALLEL = 16;
/** What one worker carries at a time. */
const ITEM_BYTES: number = 2 * MiB;
/** … when it is to be compressed: the results are as long again, and wait for their turn. */
const COMPRESSED_ITEM_BYTES: number = MiB;
/** No unit of a target is larger than an item. */
const MAX_GRANULE_BYTES: number = ITEM_BYTES;

/**
 * Copies the sources, one behind the other, into the target. Where they end the rest of the target is left alone.
 *
 * The target must be as long as the sources together, or longer. It is flushed neither here nor by the options: whoever
 * closes it does that.
 *
 * @throws BlockError with the offset of the first failure. **After failure:** the target is incomplete, and the
 *   message says so; nothing is in flight
 */
export async function convertImage(options: ConvertOptions): Promise<ConvertResult> {
  const { target, signal } = options;
  const ownLayers = options.targetBacking === undefined ? undefined : ownLayersOf(options);
  const sources = new SourceList(options.sources, ownLayers, options.sourceLengthBytes);
  refuseBadOptions(options, sources);
  const sparseBytes = options.sparseSizeBytes ?? DEFAULT_SPARSE_BYTES;
  const unitBytes = unitOf(options);
  const granuleBytes = Math.min(Math.max(unitBytes, granuleOf(sparseBytes)), MAX_GRANULE_BYTES);
  const isZeroTarget = options.targetIsZero === true && options.targetBacking === undefined;
  const order = orderOf(options, unitBytes);
  const writer = new Writer({
    target,
    compressed: options.compressed === true,
    oneAtATime: order === "sequential",
    granuleBytes,
    minZeroBytes: sparseBytes,
    targetIsZero: isZeroTarget,
    signal,
  });
  const isBare = options.targetBacking?.bareLayers === true;
  const unit = Math.min(alignUp(Math.max(unitBytes, 4 * KiB), 4 * KiB), MAX_GRANULE_BYTES);
  const alignment = isBare ? SECTOR_SIZE_BYTES : unit;
  const itemBytes = options.compressed === true ? COMPRESSED_ITEM_BYTES : ITEM_BYTES;
  const planner = new Planner(sources, {
    alignment,
    maxDataBytes: Math.max(itemBytes, alignment),
    zeroesAreData: sparseBytes === 0,
    backingLengthBytes: options.targetBacking?.lengthBytes,
    bareLayers: isBare,
    signal,
  });
  const progress = new Progress(sources.lengthBytes, options.onProgress);
  let unreadableBytes = 0;
  const copier = new Copier({
    sources,
    planner,
    writer,
    arena: copyArena(),
    parallel: options.parallel ?? DEFAULT_PARALLEL,
    order,
    rateLimit: rateLimitOf(options),
    onUnreadable: options.salvage === true ? unreadable : undefined,
    onDone: (item) => progress.done(item.kind === "backing", item.lengthBytes),
    signal,
  });
  function unreadable(hole: { offset: number; lengthBytes: number; cause: unknown }): void {
    unreadableBytes += hole.lengthBytes;
    const part = sources.partAt(hole.offset);
    options.onUnreadable?.({
      ...hole,
      source: part.index,
      offset: hole.offset - part.start,
    });
  }
  try {
    await copier.run();
  } catch (error) {
    throw incomplete(error);
  }
  return {
    totalBytes: sources.lengthBytes,
    dataBytes: writer.dataBytes,
    zeroBytes: writer.zeroBytes,
    backingBytes: progress.backingBytes,
    unreadableBytes,
  };
}

/** Counts, and tells. */
class Progress {
  backingBytes = 0;
  #doneBytes = 0;
  readonly #totalBytes: number;
  readonly #tell: ConvertOptions["onProgress"];

  constructor(totalBytes: number, tell: ConvertOptions["onProgress"]) {
    this.#totalBytes = totalBytes;
    this.#tell = tell;
  }

  done(isBacking: boolean, lengthBytes: number): void {
    this.#doneBytes += lengthBytes;
    if (isBacking) this.backingBytes += lengthBytes;
    this.#tell?.(this.#doneBytes, this.#totalBytes);
  }
}

function refuseBadOptions(options: ConvertOptions, sources: SourceList): void {
  const { target, parallel = DEFAULT_PARALLEL, sparseSizeBytes = 0 } = options;
  const refuse = (message: string): never => {
    throw new BlockError("EINVAL", `convert: ${message}`, { op: "convert" });
  };
  if (sources.parts.length === 0) refuse("there is no source");
  if (target.lengthBytes < sources.lengthBytes) {
    refuse(
      `the target has ${target.lengthBytes} bytes, and ${sources.lengthBytes} are needed: it is too small`,
    );
  }
  if (!Number.isInteger(parallel) || parallel < 1 || parallel > MAX_PARALLEL) {
    refuse(`parallel is ${parallel}, and must be 1 to ${MAX_PARALLEL}`);
  }
  if (sparseSizeBytes % SECTOR_SIZE_BYTES !== 0 || sparseSizeBytes < 0) {
    refuse(`sparse size ${sparseSizeBytes} is not a multiple of ${SECTOR_SIZE_BYTES}`);
  }
  if (options.compressed === true && !target.capabilities.compressedWrite) {
    throw new BlockError(
      "ENOTSUP",
      `convert: format '${target.root.driverName}' has no compression`,
      { op: "convert" },
    );
  }
}

/**
 * A format that hands out clusters does so as writes come: one at a time, for a sequential layout. Compressed
 * clusters are appended in the order in which they are handed over, many at a time, and a byte store has a place
 * for each byte already.
 */
function orderOf(options: ConvertOptions, unitBytes: number): WriteOrder {
  if (options.outOfOrder === true) return "any";
  const isByteStore = unitBytes <= options.target.limits.requestAlignment;
  return options.compressed === true || isByteStore ? "submitted" : "sequential";
}

function ownLayersOf({ targetBacking }: ConvertOptions): number | undefined {
  const layers = targetBacking?.ownLayers ?? 1;
  return Number.isFinite(layers) ? layers : undefined;
}

/**
 * The unit in which the target hands out space: its cluster or subcluster; 1 for a byte store. What is compressed is
 * a whole cluster, whatever its parts: the length that suits a format best.
 */
function unitOf({ target, compressed }: ConvertOptions): number {
  const { writeZeroesAlignment, requestAlignment, optimalTransfer } = target.limits;
  return Math.max(
    writeZeroesAlignment,
    requestAlignment,
    compressed === true ? optimalTransfer : 1,
  );
}

/** The unit in which zeroes are looked for. A power of two, from a sector to 4 KiB. */
function granuleOf(sparseBytes: number): number {
  let granule = SECTOR_SIZE_BYTES;
  while (granule < DEFAULT_SPARSE_BYTES && granule * 2 <= sparseBytes) granule *= 2;
  return granule;
}

function rateLimitOf({ rateLimitBytesPerSecond: rate }: ConvertOptions): RateLimit | undefined {
  return rate === undefined || rate <= 0 ? undefined : new RateLimit(rate);
}

function incomplete(error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  return new BlockError(error.code, `${error.message}; the target is incomplete`, {
    op: "convert",
    ...(error.offset === undefined ? {} : { offset: error.offset }),
    ...(error.length === undefined ? {} : { length: error.length }),
    cause: error,
  });
}
