/**
 * Opening files: `openFile` for use without a graph, and the driver definitions for a registry.
 */
import { BlockError } from "@blocklayer/bytes";
import {
  type BlockDriver,
  booleanOption,
  type DriverDefinition,
  type OpenContext,
  type OptionSchema,
  type Permissions,
  stringOption,
} from "@blocklayer/block-api";
import { CREATE_OPTIONS, createDevice, createFile, removeFile } from "./create-file.js";
import { FileDriver } from "./file-driver.js";
import { defaultPermissions, limitsFor, lockedPermissions, mayKeepHoles } from "./file-limits.js";
import { openHostFile } from "./host-file.js";
import { ImageLock, type LockingMode } from "./image-lock.js";
import { loadNative, type NativeLoad } from "./native.js";

/** How to open a file. */
export interface OpenFileOptions {
  readonly readOnly?: boolean;
  /** Open read-only when writing is not allowed. */
  readonly autoReadOnly?: boolean;
  /** Past the page cache. The limits then ask for aligned requests and buffers. */
  readonly direct?: boolean;
  /** Flushes do nothing: fast, and a crash loses anything. */
  readonly noFlush?: boolean;
  readonly locking?: LockingMode;
  /** Read although somebody else writes. Needs `readOnly`. */
  readonly forceShare?: boolean;
  /** What to hold and share; by default what one writer, or one of several readers, needs. */
  readonly permissions?: Permissions;
  /** For messages; by default the file name. */
  readonly nodeName?: string;
  /** Which driver's rules to keep; by default `file`, which takes block devices too. */
  readonly driver?: "file" | "host_device";
  /** Where the native calls come from; by default koffi, when it is installed. */
  readonly loadNative?: () => Promise<NativeLoad>;
}

/**
 * Opens a regular file or a block device.
 *
 * @param filename - a path; nothing in it is special
 * @throws BlockError `ENOENT`, `EACCES`, … ; `EAGAIN` when another process uses the image; `EINVAL`, `EISDIR`
 *   for what is no file and no block device
 * @example
 * await using disk = await openFile("disk.img", { readOnly: true });
 * const target = IoVector.allocate(512);
 * await disk.readv(0, target);
 */
export async function openFile(
  filename: string,
  options: OpenFileOptions = {},
): Promise<FileDriver> {
  const readOnly = options.readOnly === true;
  const forceShare = options.forceShare === true;
  const nodeName = options.nodeName ?? filename;
  if (forceShare && !readOnly) {
    throw new BlockError(
      "EINVAL",
      `Could not open '${filename}': force-share=on needs read-only=on`,
      {
        op: "open",
        node: nodeName,
      },
    );
  }
  const locking = options.locking ?? "auto";
  const { native } = await (options.loadNative ?? loadNative)();
  const openWith = (how: { readonly readOnly: boolean; readonly direct: boolean }, auto: boolean) =>
    openHostFile(
      { filename, nodeName, ...how, autoReadOnly: auto, driver: options.driver ?? "file" },
      native,
    );
  const file = await openWith(
    { readOnly, direct: options.direct === true },
    options.autoReadOnly === true,
  );
  try {
    const asked = options.permissions ?? defaultPermissions(file.readOnly);
    const permissions = lockedPermissions(asked, file.readOnly, forceShare);
    const lock = new ImageLock(file, native, locking);
    await lock.set(permissions);
    file.extents.mayKeepHoles = mayKeepHoles(lock.state, permissions);
    return new FileDriver({
      file,
      native,
      lock,
      permissions,
      forceShare,
      noFlush: options.noFlush === true,
      limits: await limitsFor(file),
      openAgain: (how) => openWith(how, options.autoReadOnly === true),
    });
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

const OPEN_OPTIONS: OptionSchema = {
  filename: { type: "string", help: "Path of the file" },
  locking: {
    type: "choice",
    choices: ["auto", "on", "off"],
    help: "Keep other users of the image out; auto: where the system has OFD locks",
    default: "auto",
  },
  "cache.direct": { type: "boolean", help: "Go past the page cache (O_DIRECT)", default: false },
  "cache.no-flush": { type: "boolean", help: "Ignore flushes; a crash loses data", default: false },
  "auto-read-only": {
    type: "boolean",
    help: "Open read-only when writing is not allowed",
    default: false,
  },
  "force-share": {
    type: "boolean",
    help: "Read although somebody else writes; needs read-only",
    default: false,
  },
};

const REOPEN_OPTIONS: readonly string[] = ["cache.direct", "cache.no-flush"];

/** Regular files; block devices as well. */
export const fileDriver: DriverDefinition = {
  name: "file",
  kind: "protocol",
  openOptions: OPEN_OPTIONS,
  createOptions: CREATE_OPTIONS,
  reopenOptions: REOPEN_OPTIONS,
  protocolPrefixes: ["file:"],
  parseFilename: (filename) => ({ filename: withoutPrefix(filename, "file:") }),
  open: (context) => openFrom(context, "file"),
  createFile: (context) => createFile(context.filename, context.options, context.signal),
  removeFile,
};

/** Block devices only. */
export const hostDeviceDriver: DriverDefinition = {
  name: "host_device",
  kind: "protocol",
  openOptions: OPEN_OPTIONS,
  createOptions: { size: { type: "size", help: "Least length the device must have" } },
  reopenOptions: REOPEN_OPTIONS,
  protocolPrefixes: ["host_device:"],
  parseFilename: (filename) => ({ filename: withoutPrefix(filename, "host_device:") }),
  open: (context) => openFrom(context, "host_device"),
  createFile: (context) => createDevice(context.filename, context.options),
};

async function openFrom(
  context: OpenContext,
  driver: "file" | "host_device",
): Promise<BlockDriver> {
  const { options } = context;
  const filename = stringOption(options, "filename");
  if (filename === undefined) {
    throw new BlockError("EINVAL", `${driver}: option 'filename' is required`, { op: "open" });
  }
  return openFile(filename, {
    driver,
    nodeName: context.nodeName,
    readOnly: context.readOnly,
    permissions: context.permissions,
    autoReadOnly: booleanOption(options, "auto-read-only"),
    direct: booleanOption(options, "cache.direct"),
    noFlush: booleanOption(options, "cache.no-flush"),
    forceShare: booleanOption(options, "force-share"),
    locking: (stringOption(options, "locking") ?? "auto") as LockingMode,
  });
}

function withoutPrefix(filename: string, prefix: string): string {
  return filename.startsWith(prefix) ? filename.slice(prefix.length) : filename;
}
