/**
 * How long the file of a new image becomes: empty, or with another image's disk copied into it.
 *
 * Above: the tool's `measure`. Below: the format's own `measure`; `mapImage` tells what of the source is data.
 *
 * Nothing is made, and of the source only its map is read.
 */
import { alignUp, BlockError, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import {
  type DiskRange,
  type DriverDefinition,
  type MeasureContext,
  type MeasureResult,
  type MeasureSource,
  type OptionValue,
  parseOptions,
} from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import { mapImage } from "../info/map-image.js";
import type { DriverChoice } from "../open/types.js";

/** Options of `measureImage`. */
export interface MeasureImageOptions extends DriverChoice {
  /** The new image's format. Default `raw`. */
  readonly format?: string;
  /** `-o`, as `createImage` takes them. The `size` among them does not count. */
  readonly options?: Readonly<Record<string, OptionValue | undefined>>;
  /** What the new image is to hold: a disk of so many bytes without data, or a copy of an open one. */
  readonly content: number | BlockBackend;
  readonly signal?: AbortSignal;
}

/**
 * Measures an image that is not there.
 *
 * @throws BlockError `EINVAL` for a format or options that make no sense, `ENOTSUP` for a format that cannot be
 *   measured, what the source throws when its map is read
 * @example await measureImage({ drivers, format: "qcow2", content: 10 * GiB }) // { requiredBytes: 1769472, … }
 */
export async function measureImage(options: MeasureImageOptions): Promise<MeasureResult> {
  const { content, signal } = options;
  const definition = definitionOf(options);
  const lengthBytes = typeof content === "number" ? content : content.lengthBytes;
  const values = parseOptions(
    definition.createOptions ?? {},
    { ...ownOptions(options, definition), size: alignUp(lengthBytes, SECTOR_SIZE_BYTES) },
    definition.name,
  );
  if (typeof content === "number") return await measureWith(definition, { options: values });
  const source = await sourceOf(content, signal);
  return await measureWith(definition, { options: values, source });
}

async function measureWith(
  definition: DriverDefinition,
  context: MeasureContext,
): Promise<MeasureResult> {
  const result = await definition.measure?.(context);
  if (result !== undefined) return result;
  const message = `Block driver '${definition.name}' does not support size measurement`;
  throw new BlockError("ENOTSUP", message, { op: "measure" });
}

function definitionOf({ drivers, format = "raw" }: MeasureImageOptions): DriverDefinition {
  const definition = drivers.find(({ name }) => name === format);
  if (definition !== undefined) return definition;
  throw new BlockError("EINVAL", `Unknown file format '${format}'`, { op: "measure" });
}

/** The options that the format knows; those of a file below it change no length. */
function ownOptions(
  { options = {}, drivers }: MeasureImageOptions,
  definition: DriverDefinition,
): Readonly<Record<string, OptionValue | undefined>> {
  const file = drivers.find(({ name }) => name === "file")?.createOptions ?? {};
  const own = definition.createOptions ?? {};
  return Object.fromEntries(
    Object.entries(options).filter(
      ([name]) => Object.hasOwn(own, name) || !Object.hasOwn(file, name),
    ),
  );
}

async function sourceOf(
  source: BlockBackend,
  signal: AbortSignal | undefined,
): Promise<MeasureSource> {
  const info = await source.root.driver.formatInfo?.();
  return {
    data: dataRanges(source, signal),
    ...(info?.bitmaps === undefined ? {} : { bitmaps: info.bitmaps }),
  };
}

/** What does not read as zeroes without looking at the bytes. */
async function* dataRanges(
  source: BlockBackend,
  signal: AbortSignal | undefined,
): AsyncGenerator<DiskRange, void, undefined> {
  for await (const entry of mapImage(source, signal === undefined ? {} : { signal })) {
    if (!entry.zero) yield { offset: entry.start, lengthBytes: entry.length };
  }
}
