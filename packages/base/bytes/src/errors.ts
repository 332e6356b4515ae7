/**
 * The errors of the block layer.
 *
 * 1. A `code` is stable within a major version; a message is not.
 * 2. Bad bytes are a CorruptImageError. A failed assertion is a bug of ours, never of the image.
 * 3. Messages begin with the thing: `L2 table at host offset 0x50000: entry 17 is unaligned`.
 */

/** The errno names in use, with the words that the C library has for them. */
export const ERRNO_TEXT = {
  EACCES: "Permission denied",
  EAGAIN: "Resource temporarily unavailable",
  EBADF: "Bad file descriptor",
  EBUSY: "Device or resource busy",
  ECANCELED: "Operation canceled",
  EDQUOT: "Disk quota exceeded",
  EEXIST: "File exists",
  EFBIG: "File too large",
  EINVAL: "Invalid argument",
  EIO: "Input/output error",
  EISDIR: "Is a directory",
  ELOOP: "Too many levels of symbolic links",
  EMFILE: "Too many open files",
  ENAMETOOLONG: "File name too long",
  ENODEV: "No such device",
  ENOENT: "No such file or directory",
  ENOMEM: "Cannot allocate memory",
  ENOSPC: "No space left on device",
  ENOTDIR: "Not a directory",
  ENOTSUP: "Operation not supported",
  EPERM: "Operation not permitted",
  EPIPE: "Broken pipe",
  ERANGE: "Numerical result out of range",
  EROFS: "Read-only file system",
  ETIMEDOUT: "Connection timed out",
  ETXTBSY: "Text file busy",
} as const;

/** The codes of a BlockError: errno names where one fits, and our own where none does. */
export type BlockErrorCode = keyof typeof ERRNO_TEXT | "ECORRUPT" | "ENODEFAILED" | "ECLOSED";

/** What a BlockError may know besides its message. Offsets and lengths are bytes. */
export interface BlockErrorDetails {
  /** The operation that failed: `read`, `write`, `flush`, `open`, … */
  readonly op?: string;
  /** The name of the block node, or of the file, that failed. */
  readonly node?: string;
  readonly offset?: number;
  readonly length?: number;
  readonly cause?: unknown;
}

/** The one base class: whatever the block layer throws on purpose is a BlockError. */
export class BlockError extends Error {
  readonly code: BlockErrorCode;
  readonly op: string | undefined;
  readonly node: string | undefined;
  readonly offset: number | undefined;
  readonly length: number | undefined;

  constructor(code: BlockErrorCode, message: string, details: BlockErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "BlockError";
    this.code = code;
    this.op = details.op;
    this.node = details.node;
    this.offset = details.offset;
    this.length = details.length;
  }
}

/** Where an image breaks which rule. Offsets are bytes in the file that holds the structure. */
export interface CorruptionSite extends BlockErrorDetails {
  /** The structure: `header`, `L1 table`, `L2 table`, `refcount block`, … */
  readonly structure: string;
  /** Where the structure (or the broken entry) starts in its file. */
  readonly hostOffset?: number;
  /** The broken rule, as a sentence without a full stop. */
  readonly rule: string;
}

/** The bytes of an image break a rule of its format. Its `code` is `ECORRUPT`. */
export class CorruptImageError extends BlockError {
  readonly structure: string;
  readonly hostOffset: number | undefined;
  readonly rule: string;

  constructor(site: CorruptionSite) {
    const at = site.hostOffset === undefined ? "" : ` at host offset ${hex(site.hostOffset)}`;
    super("ECORRUPT", `${site.structure}${at}: ${site.rule}`, site);
    this.name = "CorruptImageError";
    this.structure = site.structure;
    this.hostOffset = site.hostOffset;
    this.rule = site.rule;
  }
}

/** What was asked for is valid, and this version does not do it. Its `code` is `ENOTSUP`. */
export class UnsupportedError extends BlockError {
  constructor(message: string, details: BlockErrorDetails = {}) {
    super("ENOTSUP", message, details);
    this.name = "UnsupportedError";
  }
}

/** A condition that our own code promises does not hold: a bug, to be reported to us. */
export class AssertionError extends Error {
  constructor(message: string) {
    super(`assertion failed: ${message}`);
    this.name = "AssertionError";
  }
}

/**
 * Stays on in production: at entry, before a write, after a read; one condition each.
 *
 * @param condition - what must hold
 * @param message - the condition in words, as it should be
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** An offset as the field writes it: `0x50000`. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/**
 * The words of the C library for an errno name, or the name itself.
 *
 * @example errnoText("ENOSPC") // "No space left on device"
 */
export function errnoText(code: string): string {
  return Object.hasOwn(ERRNO_TEXT, code) ? ERRNO_TEXT[code as keyof typeof ERRNO_TEXT] : code;
}

/** Whether a value that was thrown carries this code. */
export function hasCode(error: unknown, code: BlockErrorCode): error is BlockError {
  return error instanceof BlockError && error.code === code;
}
