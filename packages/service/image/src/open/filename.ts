/**
 * Names of images, as QEMU reads them, and names inside images, resolved against the image's own.
 *
 * 1. `json:{…}` holds node options; keys may be dotted (`"file.filename"`) or nested.
 * 2. A prefix `abc:` in front of the first slash is a protocol. `file:` names a path that may hold a colon.
 * 3. A prefix that no driver knows is an error, never a path: what a newer version would reach over the
 *    network must not turn into a local file here.
 * 4. A relative name inside an image counts from the folder of the image, textually: `sub/x` and `../b` give `sub/../b`.
 */
import { BlockError } from "@blocklayer/bytes";
import type { DriverDefinition } from "@blocklayer/block-api";
import { type NodeOptions, parseJsonFilename } from "@blocklayer/block-graph";
import { isRecord } from "./is-record.js";

const PROTOCOL = /^([^:/]*):/;

/** The protocol prefix of a name (`nbd` of `nbd://host`), or `undefined` for a path. */
export function protocolOf(filename: string): string | undefined {
  return PROTOCOL.exec(filename)?.[1];
}

/** Whether a name is absolute: it has a protocol, or starts with a slash. */
function isAbsoluteName(filename: string): boolean {
  return filename.startsWith("/") || protocolOf(filename) !== undefined;
}

/**
 * Node options for the byte store that a name means, or for the whole graph when it is `json:{…}`.
 *
 * @throws BlockError `EINVAL` for JSON that is none, `ENOTSUP` for a protocol that no driver knows
 * @example parseFilename("disk.img", drivers) // { driver: "file", filename: "disk.img" }
 */
export function parseFilename(filename: string, drivers: readonly DriverDefinition[]): NodeOptions {
  if (filename === "") throw new BlockError("EINVAL", "file name is empty");
  const described = parseJsonFilename(filename);
  if (described !== undefined) return described;
  const prefix = protocolOf(filename);
  if (prefix === undefined || prefix === "file") return parsePath(filename, drivers);
  const driver = drivers.find((candidate) =>
    candidate.protocolPrefixes?.some((known) => filename.startsWith(known)),
  );
  if (driver === undefined) {
    throw new BlockError(
      "ENOTSUP",
      `'${filename}': protocol '${prefix}' is unknown; for a path with a colon write './${filename}' or 'file:${filename}'`,
    );
  }
  const named = { ...(driver.parseFilename?.(filename) ?? { filename }), driver: driver.name };
  return withNamedFile(named, drivers);
}

/** A filter's name holds the name of another file (`blkdebug::disk.img`), which is read by the same rules. */
function withNamedFile(named: NodeOptions, drivers: readonly DriverDefinition[]): NodeOptions {
  const { file } = named;
  if (!isRecord(file) || typeof file["filename"] !== "string" || "driver" in file) return named;
  return { ...named, file: parseFilename(file["filename"], drivers) };
}

function parsePath(filename: string, drivers: readonly DriverDefinition[]): NodeOptions {
  const driver = drivers.find((candidate) => candidate.name === "file");
  if (driver === undefined) {
    throw new BlockError("ENOTSUP", `'${filename}': there is no driver for paths ('file') here`);
  }
  const path = filename.startsWith("file:") ? filename.slice("file:".length) : filename;
  return { ...(driver.parseFilename?.(path) ?? { filename: path }), driver: driver.name };
}

/**
 * The name of a file that an image names, seen from where the user stands.
 *
 * @param image - the image's own name, as the user gave it
 * @param name - as it stands in the image
 * @returns `name` itself when absolute, else `name` in the image's folder
 * @throws BlockError `EINVAL` when the image's name has no folder (`json:` without a file name)
 * @example resolveName("sub/s.qcow2", "../b.qcow2") // "sub/../b.qcow2"
 */
export function resolveName(image: string, name: string): string {
  if (isAbsoluteName(name)) return name;
  if (image.startsWith("json:")) {
    throw new BlockError(
      "EINVAL",
      `'${name}' is relative, and the image that names it ('${shorten(image)}') has no folder`,
    );
  }
  const plain = image.startsWith("file:") ? image.slice("file:".length) : image;
  const query = protocolOf(plain) === undefined ? -1 : plain.search(/[?#]/);
  const path = query < 0 ? plain : plain.slice(0, query);
  const slash = path.lastIndexOf("/");
  const colon = protocolOf(path)?.length ?? -1;
  return path.slice(0, Math.max(slash, colon) + 1) + name;
}

/**
 * The one file name that node options come down to (`file.file.filename`), as messages and `info` show it.
 *
 * @returns the innermost `filename` along `file`, or `json:` and the options when there is none
 */
export function nameOfOptions(options: NodeOptions): string {
  let at: unknown = options;
  for (let depth = 0; isRecord(at) && depth < 16; depth++) {
    if (typeof at["filename"] === "string") return at["filename"];
    if (typeof at["file"] === "string") return at["file"];
    at = at["file"];
  }
  return `json:${JSON.stringify(options)}`;
}

function shorten(filename: string): string {
  return filename.length > 200 ? `${filename.slice(0, 200)}…` : filename;
}
