/** Turns what the operating system says into BlockErrors. */
import { BlockError, type BlockErrorCode, ERRNO_TEXT, errnoText, hex } from "@blocklayer/bytes";
import { constants } from "node:os";

/** What an error has to know of a file. */
export interface NamedFile {
  /** As the user wrote it. */
  readonly filename: string;
  /** The block node's name. */
  readonly nodeName: string;
}

/** Errno names that have another name in the block layer. */
const ALIASES: Readonly<Record<string, BlockErrorCode>> = {
  EOPNOTSUPP: "ENOTSUP",
  ENOSYS: "ENOTSUP",
  ENXIO: "ENODEV",
  EOVERFLOW: "EFBIG",
};

/**
 * Errno names by number; of two names for one number, the first in the alphabet (EAGAIN, ENOTSUP).
 * `util.getSystemErrorName` lacks some that only C functions give, as ENOLCK.
 */
const NAME_OF_ERRNO: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .sort(([left], [right]) => (left < right ? 1 : -1))
    .map(([name, value]) => [value, name]),
);

/** The errno name of what Node threw, or of a number that a C function left; `EIO` when there is none. */
export function errnoOf(cause: unknown): string {
  if (typeof cause === "number") return NAME_OF_ERRNO.get(Math.abs(cause)) ?? "EIO";
  const code = (cause as { readonly code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : "EIO";
}

/**
 * The BlockError of a request that failed.
 *
 * @param cause - what Node threw, or an errno number
 * @param op - the operation, in words: `read`, `write`, `flush`
 * @param offset - in bytes; absent for what concerns the whole file
 * @param length - in bytes
 * @example 'disk.img': read of 4096 bytes at offset 0x1000: Input/output error
 */
export function fileError(
  cause: unknown,
  op: string,
  file: NamedFile,
  offset?: number,
  length?: number,
): BlockError {
  const where =
    offset === undefined
      ? ""
      : length === undefined
        ? ` to ${offset} bytes`
        : ` of ${length} bytes at offset ${hex(offset)}`;
  const name = errnoOf(cause);
  const message = `'${file.filename}': ${op}${where}: ${errnoText(name)}`;
  return new BlockError(blockCodeOf(name), message, {
    op,
    node: file.nodeName,
    cause,
    ...(offset === undefined ? {} : { offset }),
    ...(length === undefined ? {} : { length }),
  });
}

/** The BlockError of a file that could not be opened: `Could not open 'x': No such file or directory`. */
export function openError(cause: unknown, file: NamedFile): BlockError {
  const name = errnoOf(cause);
  return new BlockError(
    blockCodeOf(name),
    `Could not open '${file.filename}': ${errnoText(name)}`,
    { op: "open", node: file.nodeName, cause },
  );
}

/** The BlockError of a request that its sender aborted. */
export function canceledError(
  op: string,
  file: NamedFile,
  signal: AbortSignal | undefined,
): BlockError {
  return new BlockError("ECANCELED", `'${file.filename}': ${op} was aborted`, {
    op,
    node: file.nodeName,
    cause: signal?.reason,
  });
}

/** Whether the operating system (or this file system) just does not have the call. */
export function isUnsupported(errno: string): boolean {
  return errno === "ENOTSUP" || errno === "EOPNOTSUPP" || errno === "ENOSYS" || errno === "ENOTTY";
}

function blockCodeOf(name: string): BlockErrorCode {
  const alias = ALIASES[name];
  if (alias !== undefined) return alias;
  return Object.hasOwn(ERRNO_TEXT, name) ? (name as BlockErrorCode) : "EIO";
}
