/**
 * Option schemas: one description of what a driver takes serves its types, its checks,
 * `-o help`, and the line that `blk create` prints.
 */
import { BlockError, parseSize } from "@blocklayer/bytes";

/** One option. `default` absent: the option may be absent too. */
export interface OptionSpec {
  /** `value`: any plain value, which the driver reads itself. */
  readonly type: "size" | "integer" | "boolean" | "string" | "choice" | "value";
  /** One line, without a full stop. */
  readonly help: string;
  /** For `choice`: the words allowed. */
  readonly choices?: readonly string[];
  readonly default?: OptionValue;
}

export type OptionValue = number | boolean | string;
/** By name. A name that ends with `.*` stands for all that begin so: lists and nested options in dotted form. */
export type OptionSchema = Readonly<Record<string, OptionSpec>>;
export type OptionValues = Readonly<Record<string, OptionValue | undefined>>;

/**
 * Checks options against a schema. Strings are read as qemu-img reads them (`64k`, `on`); values that already
 * have the right type pass.
 *
 * @param schema - what is allowed
 * @param given - what the user said
 * @param owner - for messages: `qcow2`
 * @returns a record with defaults filled in and every value of its type
 * @throws BlockError `EINVAL` that names the option, and for an unknown one the known ones
 */
export function parseOptions(
  schema: OptionSchema,
  given: Readonly<Record<string, unknown>>,
  owner: string,
): OptionValues {
  const values: Record<string, OptionValue | undefined> = {};
  for (const [name, spec] of Object.entries(schema)) values[name] = spec.default;
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const spec = specOf(schema, name);
    if (spec === undefined) {
      const known = Object.keys(schema).join(", ");
      throw new BlockError(
        "EINVAL",
        `${owner}: option '${name}' is unknown; known are: ${known || "none"}`,
      );
    }
    values[name] = parseOption(spec, value, `${owner}: option '${name}'`);
  }
  return values;
}

function specOf(schema: OptionSchema, name: string): OptionSpec | undefined {
  if (Object.hasOwn(schema, name)) return name.endsWith(".*") ? undefined : schema[name];
  const dot = name.indexOf(".");
  const pattern = `${name.slice(0, dot)}.*`;
  return dot > 0 && Object.hasOwn(schema, pattern) ? schema[pattern] : undefined;
}

function parseOption(spec: OptionSpec, value: unknown, what: string): OptionValue {
  switch (spec.type) {
    case "size":
      return wholeNumber(typeof value === "string" ? parseSizeOf(value, what) : value, what);
    case "integer":
      return wholeNumber(
        typeof value === "string" && value.trim() !== "" ? Number(value) : value,
        what,
      );
    case "boolean": {
      const word = booleanWord(value);
      if (word !== undefined) return word;
      throw new BlockError("EINVAL", `${what} must be 'on' or 'off', not '${String(value)}'`);
    }
    case "string":
      if (typeof value === "string") return value;
      throw new BlockError("EINVAL", `${what} must be a string`);
    case "value":
      if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
        return value;
      }
      throw new BlockError("EINVAL", `${what} must be a plain value`);
    case "choice": {
      const choices = spec.choices ?? [];
      if (typeof value === "string" && choices.includes(value)) return value;
      throw new BlockError(
        "EINVAL",
        `${what} must be one of ${choices.join(", ")}, not '${String(value)}'`,
      );
    }
  }
}

/** A boolean, or one of QEMU's words for it (`on yes true y`, `off no false n`); `undefined` for all else. */
export function booleanWord(value: unknown): boolean | undefined {
  if (typeof value === "boolean") return value;
  if (value === "on" || value === "yes" || value === "true" || value === "y") return true;
  if (value === "off" || value === "no" || value === "false" || value === "n") return false;
  return undefined;
}

function parseSizeOf(text: string, what: string): number {
  try {
    return parseSize(text);
  } catch (cause) {
    throw new BlockError("EINVAL", `${what}: '${text}' is not a size`, { cause });
  }
}

function wholeNumber(value: unknown, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new BlockError("EINVAL", `${what} must be a whole number, not '${String(value)}'`);
}

/** An option that is set, as a number. Requires: the schema gives it a number or a default. */
export function numberOption(values: OptionValues, name: string): number {
  const value = values[name];
  if (typeof value === "number") return value;
  throw new BlockError("EINVAL", `option '${name}' is required`);
}

/** A boolean option; absent is `false`. */
export function booleanOption(values: OptionValues, name: string): boolean {
  return values[name] === true;
}

/** A string option, or `undefined`. */
export function stringOption(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === "string" ? value : undefined;
}
