/**
 * Node options: QEMU's `-blockdev` keys, nested or dotted.
 *
 * Above: open.ts, and whoever reads `--image-opts` or a `json:` file name. Below: nothing; pure functions.
 *
 * 1. The canonical form has an object, a name or `null` under each child key (`file`, `backing`, `data-file`), and
 *    plain values under every other key; a driver's own nested options have dots (`cache.direct`).
 * 2. Both spellings of one option at once are refused, as is a key that is given twice.
 */
import { BlockError } from "@blocklayer/bytes";
import { booleanWord, parseKeyValues } from "@blocklayer/block-api";

/**
 * What a node is to be. Besides these keys it takes the options of its driver.
 *
 * @example { driver: "qcow2", file: { driver: "file", filename: "disk.qcow2" } }
 */
export interface NodeOptions {
  /** The driver's name. Absent: a protocol by its file name; a format only where probing is allowed. */
  readonly driver?: string | undefined;
  readonly "node-name"?: string | undefined;
  readonly "read-only"?: boolean | string | undefined;
  /** The node that holds the bytes: its options, or the name of a node that stands. */
  readonly file?: NodeOptions | string | undefined;
  /** What shows through: options, a node's name, `null` for nothing; absent: what the image names. */
  readonly backing?: NodeOptions | string | null | undefined;
  readonly "data-file"?: NodeOptions | string | undefined;
  /** Another word for `file`, which QEMU's blkdebug uses. */
  readonly image?: NodeOptions | string | undefined;
  readonly [driverOption: string]: unknown;
}

/** The keys that hold a child. `image` is a second word for `file`. */
const CHILD_KEYS = ["file", "backing", "data-file", "image"] as const;
type ChildKey = (typeof CHILD_KEYS)[number];

/** How deep options may nest: more than any backing chain that can be opened. */
const MAX_DEPTH = 256;

/** An option after flattening: what a command line can say. */
export type FlatOptions = Readonly<Record<string, unknown>>;

/**
 * Nests dotted child keys, and gives dots to all others.
 *
 * @throws BlockError `EINVAL` when an option is given twice
 * @example unflattenOptions({ driver: "qcow2", "file.driver": "file", "file.filename": "a.qcow2" })
 *   // { driver: "qcow2", file: { driver: "file", filename: "a.qcow2" } }
 */
export function unflattenOptions(given: FlatOptions): NodeOptions {
  return nest(flattenOptions(given), "", 0);
}

/**
 * Puts dots into every nested key. An empty object leaves nothing behind.
 *
 * @example flattenOptions({ file: { driver: "file" } }) // { "file.driver": "file" }
 */
export function flattenOptions(given: FlatOptions): FlatOptions {
  const flat = new Map<string, unknown>();
  flattenInto(flat, given, "", 0);
  return Object.fromEntries(flat);
}

function flattenInto(
  flat: Map<string, unknown>,
  given: object,
  prefix: string,
  depth: number,
): void {
  if (depth > MAX_DEPTH) throw badOption(prefix, `nests deeper than ${MAX_DEPTH} levels`);
  for (const [name, value] of Object.entries(given)) {
    const key = prefix + name;
    if (value === undefined) continue;
    if (typeof value === "object" && value !== null) {
      flattenInto(flat, value, `${key}.`, depth + 1);
      continue;
    }
    if (flat.has(key)) throw badOption(key, "is given twice");
    flat.set(key, value);
  }
}

function nest(flat: FlatOptions, prefix: string, depth: number): NodeOptions {
  if (depth > MAX_DEPTH) throw badOption(prefix, `nests deeper than ${MAX_DEPTH} levels`);
  const own = new Map<string, unknown>();
  const below = new Map<ChildKey, Map<string, unknown>>();
  for (const [key, value] of Object.entries(flat)) {
    const role = CHILD_KEYS.find((child) => key.startsWith(`${child}.`));
    if (role === undefined) {
      own.set(key, value);
      continue;
    }
    const group = below.get(role) ?? new Map<string, unknown>();
    group.set(key.slice(role.length + 1), value);
    below.set(role, group);
  }
  for (const [role, group] of below) {
    if (own.has(role)) {
      throw badOption(prefix + role, `is given both as a whole and as '${prefix}${role}.…'`);
    }
    own.set(role, nest(Object.fromEntries(group), `${prefix}${role}.`, depth + 1));
  }
  return Object.fromEntries(own);
}

/**
 * Reads the argument of `--image-opts`: `key=value` pairs between commas; a doubled comma is a comma. A key without
 * a value is `on`.
 *
 * @throws BlockError `EINVAL` for an empty or repeated key
 * @example parseImageOptions("driver=qcow2,file.filename=a,,b.qcow2")
 */
export function parseImageOptions(text: string): NodeOptions {
  const flat = new Map<string, unknown>();
  for (const [key, value] of parseKeyValues(text)) {
    if (flat.has(key)) throw badOption(key, "is given twice");
    flat.set(key, value);
  }
  return unflattenOptions(Object.fromEntries(flat));
}

/**
 * Reads a `json:{…}` file name.
 *
 * @returns the options, or `undefined` when the name does not start with `json:`
 * @throws BlockError `EINVAL` when what follows is no JSON object
 */
export function parseJsonFilename(filename: string): NodeOptions | undefined {
  if (!filename.startsWith("json:")) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(filename.slice("json:".length));
  } catch (cause) {
    throw new BlockError("EINVAL", `file name 'json:…' is no JSON: ${String(cause)}`, { cause });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new BlockError("EINVAL", "file name 'json:…' is no JSON object");
  }
  return unflattenOptions(Object.fromEntries(Object.entries(parsed)));
}

/** Node options in canonical form, sorted by who reads them. */
export interface SplitOptions {
  readonly driver: string | undefined;
  readonly nodeName: string | undefined;
  readonly readOnly: boolean | undefined;
  readonly file: NodeOptions | string | undefined;
  /** `null`: detached. */
  readonly backing: NodeOptions | string | null | undefined;
  readonly dataFile: NodeOptions | string | undefined;
  /** For the driver. */
  readonly rest: Readonly<Record<string, unknown>>;
}

/**
 * Checks the keys that belong to the graph, and leaves the others to the driver.
 *
 * @throws BlockError `EINVAL` when one of them has the wrong type
 */
export function splitOptions(given: NodeOptions): SplitOptions {
  const { driver, image, backing, "data-file": dataFile, ...others } = unflattenOptions(given);
  const { file, "node-name": nodeName, "read-only": readOnly, ...rest } = others;
  if (file !== undefined && image !== undefined)
    throw badOption("image", "is another word for 'file'");
  return {
    driver: text(driver, "driver"),
    nodeName: text(nodeName, "node-name"),
    readOnly: onOrOff(readOnly, "read-only"),
    file: file === undefined ? childOf(image, "image") : childOf(file, "file"),
    // On a command line an empty string is the only way to say `null`.
    backing: backing === null || backing === "" ? null : childOf(backing, "backing"),
    dataFile: childOf(dataFile, "data-file"),
    rest,
  };
}

/** Children that the caller described keep `null`, which flattening must not lose. */
function childOf(value: unknown, key: string): NodeOptions | string | undefined {
  if (value === undefined || typeof value === "string") return value;
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return Object.fromEntries(Object.entries(value));
  }
  throw badOption(key, "must be the options of a node or a node's name");
}

function text(value: unknown, key: string): string | undefined {
  if (value === undefined || typeof value === "string") return value;
  throw badOption(key, "must be a string");
}

function onOrOff(value: unknown, key: string): boolean | undefined {
  const word = booleanWord(value);
  if (value === undefined || word !== undefined) return word;
  throw badOption(key, "must be 'on' or 'off'");
}

function badOption(key: string, rule: string): BlockError {
  return new BlockError("EINVAL", `option '${key}' ${rule}`, { op: "open" });
}
