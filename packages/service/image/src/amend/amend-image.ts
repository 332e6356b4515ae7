/**
 * Changes the options of the format of an image that is there.
 *
 * Above: the tool's `amend`. Below: the format driver's own `amend`.
 */
import { BlockError, UnsupportedError } from "@blocklayer/bytes";
import { type DriverDefinition, type OptionValue, parseOptions } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import type { DriverChoice } from "../open/types.js";

/** Options of `amendImage`. */
export interface AmendImageOptions extends DriverChoice {
  /** `-o`: strings are read as qemu-img reads them. */
  readonly options: Readonly<Record<string, OptionValue | undefined>>;
  /** Told how far it is; it may begin again, since some options are changed one after the other. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Changes an open, writable image, durably. Requires: nobody else uses it meanwhile.
 *
 * @throws BlockError `EINVAL` for options that make no sense or are for new images only, `ENOTSUP` for a format that
 *   cannot be changed; what the driver throws. **After failure:** the image is sound, and has some of the changes at most
 */
export async function amendImage(disk: BlockBackend, options: AmendImageOptions): Promise<void> {
  const { driver, driverName } = disk.root;
  const definition = options.drivers.find(({ name }) => name === driverName);
  const schema = amendOptionsOf(definition, driverName);
  for (const name of Object.keys(options.options)) refuseCreationOnly(definition, name);
  const values = parseOptions(schema, options.options, driverName);
  const { onProgress, signal } = options;
  await driver.amend?.(values, {
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** What `amend` takes of a format. @throws UnsupportedError when that is nothing */
export function amendOptionsOf(
  definition: DriverDefinition | undefined,
  format: string,
): NonNullable<DriverDefinition["amendOptions"]> {
  if (definition?.amendOptions !== undefined) return definition.amendOptions;
  const message = `Format driver '${format}' does not support option amendment`;
  throw new UnsupportedError(message, { op: "amend" });
}

function refuseCreationOnly(definition: DriverDefinition | undefined, name: string): void {
  const { amendOptions = {}, createOptions = {} } = definition ?? {};
  if (Object.hasOwn(amendOptions, name) || !Object.hasOwn(createOptions, name)) return;
  const message = `Invalid parameter '${name}'. This option is only supported for image creation`;
  throw new BlockError("EINVAL", message, { op: "amend" });
}
