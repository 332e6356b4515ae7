/** `-o help`: what a format, and the protocol under it, take at creation; and what can be changed later. */
import type { OptionSchema, OptionSpec } from "@blocklayer/block-api";
import { UsageError } from "./command-line.js";
import { DRIVERS } from "./registry.js";

const TYPE_WORDS: Readonly<Record<OptionSpec["type"], string>> = {
  size: "<size>",
  integer: "<num>",
  boolean: "<bool (on/off)>",
  string: "<str>",
  choice: "<str>",
  value: "<str>",
};
const NAME_COLUMN = 22;

/**
 * @param format - the format's name
 * @param filename - if given, the options of its protocol are listed too
 */
export function optionHelp(format: string, filename: string | undefined): string {
  const driver = DRIVERS.find(({ name }) => name === format);
  if (driver?.createOptions === undefined) throw new UsageError(`Unknown file format '${format}'`);
  const protocol = DRIVERS.find(({ name }) => name === "file")?.createOptions ?? {};
  const schema: OptionSchema =
    filename === undefined ? driver.createOptions : { ...protocol, ...driver.createOptions };
  const rows = rowsOf(schema);
  const more =
    filename === undefined
      ? "\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n"
      : "";
  return `Supported ${format} options:\n${rows.join("\n")}\n${more}`;
}

/** What `amend` takes. */
export function amendHelp(format: string): string {
  const driver = DRIVERS.find(({ name }) => name === format);
  if (driver === undefined) throw new UsageError(`Unknown file format '${format}'`);
  if (driver.amendOptions === undefined) {
    throw new UsageError(`Format driver '${format}' does not support option amendment`);
  }
  return `Amend options for '${format}':\n${rowsOf(driver.amendOptions).join("\n")}\n`;
}

function rowsOf(schema: OptionSchema): readonly string[] {
  return Object.entries(schema)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, spec]) => {
      const choices = spec.choices === undefined ? "" : ` (${spec.choices.join(", ")})`;
      return `  ${`${name}=${TYPE_WORDS[spec.type]}`.padEnd(NAME_COLUMN)} - ${spec.help}${choices}`;
    });
}
