/**
 * An open file of the host, and what is known of it: the state that FileDriver and its helpers share.
 *
 * Above: FileDriver. Below: Node's `fs`.
 * 1. `lengthBytes` is what the operating system would say, as far as this process changed it: every write that
 *    ended has been told to `noteWritten`.
 * 2. `fd` is -1 from `close` on, so that a number given out again by the system is never used.
 */
import { BlockError } from "@blocklayer/bytes";
import { type BigIntStats, close, constants, fstat, ftruncate, open, stat } from "node:fs";
import { promisify } from "node:util";
import { deviceLengthBytes, type DeviceNumber, deviceNumberOf } from "./block-device.js";
import { ExtentCache } from "./extent-cache.js";
import { errnoOf, fileError, type NamedFile, openError } from "./file-error.js";
import { hostPath } from "./host-path.js";
import type { NativeFs } from "./native.js";

const openAsync = promisify(open);
const closeAsync = promisify(close);
const ftruncateAsync = promisify(ftruncate);
const statAsync: (path: string | Buffer) => Promise<BigIntStats> = (path) =>
  promisify(stat)(path, { bigint: true });
const fstatAsync: (fd: number) => Promise<BigIntStats> = (fd) =>
  promisify(fstat)(fd, { bigint: true });

export type HostFileKind = "regular" | "device";

/** How to open a file. */
export interface HostFileRequest extends NamedFile {
  readonly readOnly: boolean;
  /** Fall back to read-only when writing is not allowed. */
  readonly autoReadOnly: boolean;
  /** Past the page cache: O_DIRECT. */
  readonly direct: boolean;
  /** The driver: `file` takes regular files and block devices, `host_device` only the latter. */
  readonly driver: "file" | "host_device";
}

/** An open descriptor. */
export class HostFile implements NamedFile {
  readonly filename: string;
  readonly nodeName: string;
  readonly kind: HostFileKind;
  /** Of the device, when it is one. */
  readonly device: DeviceNumber | undefined;
  /** Device and inode: to see that a name still means the same file. */
  readonly identity: string;
  /** `major:minor` of the file system, and the inode: how /proc/locks names the file. */
  readonly lockDevice: string;
  readonly inode: string;
  fd: number;
  direct: boolean;
  readOnly: boolean;
  lengthBytes: number;
  /** Something was written that no `fdatasync` has followed. */
  dirty = false;
  readonly extents: ExtentCache = new ExtentCache();

  constructor(fd: number, request: HostFileRequest, readOnly: boolean, stats: BigIntStats) {
    this.fd = fd;
    this.filename = request.filename;
    this.nodeName = request.nodeName;
    this.direct = request.direct;
    this.readOnly = readOnly;
    this.kind = stats.isFile() ? "regular" : "device";
    this.device = stats.isFile() ? undefined : deviceNumberOf(stats.rdev);
    const { major, minor } = deviceNumberOf(stats.dev);
    this.lockDevice = `${major}:${minor}`;
    this.inode = stats.ino.toString();
    this.identity = `${this.lockDevice}:${this.inode}`;
    this.lengthBytes = Number(stats.size);
  }

  /** Called when a write to `[offset, end)` has ended. */
  noteWritten(offset: number, end: number): void {
    if (end > this.lengthBytes) this.lengthBytes = end;
    this.dirty = true;
    this.extents.noteWritten(offset, end);
  }

  /** Length and blocks as the operating system sees them now. */
  async stat(): Promise<{ readonly sizeBytes: number; readonly blocks: number }> {
    try {
      const stats = await fstatAsync(this.fd);
      return { sizeBytes: Number(stats.size), blocks: Number(stats.blocks) };
    } catch (cause) {
      throw fileError(cause, "stat", this);
    }
  }

  /** Sets the length. Requires: a regular file, and no request in flight. */
  async setLength(lengthBytes: number): Promise<void> {
    try {
      await ftruncateAsync(this.fd, lengthBytes);
    } catch (cause) {
      throw fileError(cause, "truncate", this, lengthBytes);
    }
    this.lengthBytes = lengthBytes;
    this.dirty = true;
    this.extents.forget();
  }

  async close(): Promise<void> {
    const fd = this.fd;
    this.fd = -1;
    if (fd < 0) return;
    try {
      await closeAsync(fd);
    } catch (cause) {
      throw fileError(cause, "close", this);
    }
  }
}

/**
 * Opens a regular file or a block device.
 *
 * @throws BlockError `ENOENT`, `EACCES`, …; `EINVAL` for what is neither a file nor a block device, and where
 *   the file system has no O_DIRECT
 */
export async function openHostFile(
  request: HostFileRequest,
  native: NativeFs | undefined,
): Promise<HostFile> {
  await refuseOtherKinds(request);
  const opened = await openDescriptor(request);
  try {
    // Once more on the descriptor: the name may mean something else by now.
    const stats = await fstatAsync(opened.fd);
    refuseKind(stats, request);
    const file = new HostFile(opened.fd, request, opened.readOnly, stats);
    if (file.device !== undefined) {
      file.lengthBytes = await deviceLengthBytes(opened.fd, file.device, native, request);
    }
    return file;
  } catch (error) {
    await closeAsync(opened.fd).catch(() => undefined);
    throw error;
  }
}

/** Looks before it opens: to open a pipe would wait for a writer, and to open a device may change it. */
async function refuseOtherKinds(request: HostFileRequest): Promise<void> {
  let stats: BigIntStats;
  try {
    stats = await statAsync(hostPath(request.filename));
  } catch (cause) {
    throw openError(cause, request);
  }
  refuseKind(stats, request);
}

function refuseKind(stats: BigIntStats, request: HostFileRequest): void {
  if (stats.isBlockDevice()) return;
  if (stats.isFile() && request.driver === "file") return;
  const needed = request.driver === "file" ? "a regular file or a block device" : "a block device";
  throw new BlockError(
    stats.isDirectory() ? "EISDIR" : "EINVAL",
    `Could not open '${request.filename}': it is ${kindName(stats)}, and driver '${request.driver}' needs ${needed}`,
    { op: "open", node: request.nodeName },
  );
}

function kindName(stats: BigIntStats): string {
  if (stats.isFile()) return "a regular file";
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  return "a character device";
}

async function openDescriptor(
  request: HostFileRequest,
): Promise<{ readonly fd: number; readonly readOnly: boolean }> {
  const flags = request.direct ? directFlag(request) : 0;
  try {
    return {
      fd: await openAsync(hostPath(request.filename), flags | accessFlag(request.readOnly)),
      readOnly: request.readOnly,
    };
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === "EINVAL" && request.direct) throw noDirect(request, cause);
    const refused = errno === "EACCES" || errno === "EROFS" || errno === "EPERM";
    if (!refused || request.readOnly || !request.autoReadOnly) throw openError(cause, request);
  }
  try {
    return {
      fd: await openAsync(hostPath(request.filename), flags | constants.O_RDONLY),
      readOnly: true,
    };
  } catch (cause) {
    throw openError(cause, request);
  }
}

function accessFlag(readOnly: boolean): number {
  return readOnly ? constants.O_RDONLY : constants.O_RDWR;
}

function directFlag(request: NamedFile): number {
  const flag: number | undefined = constants.O_DIRECT;
  if (flag !== undefined) return flag;
  throw new BlockError(
    "ENOTSUP",
    `Could not open '${request.filename}': cache.direct=on is not possible on ${process.platform}`,
    { op: "open", node: request.nodeName },
  );
}

function noDirect(request: NamedFile, cause: unknown): BlockError {
  return new BlockError(
    "EINVAL",
    `Could not open '${request.filename}': its file system does not take O_DIRECT (cache.direct=on)`,
    { op: "open", node: request.nodeName, cause },
  );
}
