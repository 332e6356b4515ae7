/** Which options of a new image are shown, and in which order: scripts read qemu-img's line. */
import type { OptionSchema, OptionValue, OptionValues } from "@blocklayer/block-api";

/** Shown only when the user gave it, whatever its default. */
const ONLY_WHEN_GIVEN: ReadonlySet<string> = new Set(["preallocation"]);

/** A driver's options for creation: what it takes, and what it gets. */
export interface CreationOptions {
  readonly schema: OptionSchema;
  readonly values: OptionValues;
}

/**
 * The options of a new image as qemu-img lists them: the format's in the order of its schema, defaults too; then
 * those of the store that the user gave.
 */
export function inPrintOrder(
  format: CreationOptions,
  store: CreationOptions,
  given: ReadonlySet<string>,
): readonly (readonly [name: string, value: OptionValue])[] {
  const pairs: (readonly [string, OptionValue])[] = [];
  const add = ({ values }: CreationOptions, name: string): void => {
    const value = values[name];
    if (value !== undefined) pairs.push([name, value]);
  };
  for (const name of Object.keys(format.schema)) {
    if (given.has(name) || !ONLY_WHEN_GIVEN.has(name)) add(format, name);
  }
  for (const name of Object.keys(store.schema)) {
    if (given.has(name) && !Object.hasOwn(format.schema, name)) add(store, name);
  }
  return pairs;
}
