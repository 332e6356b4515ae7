/**
 * Making files, as qemu-img does: an existing file is emptied, but never one that somebody uses.
 *
 * So the file is opened without O_TRUNC, locked, and only then cut.
 */
import { BlockError, type BlockErrorCode, errnoText, IoVector, KiB, MiB } from "@blocklayer/bytes";
import {
  booleanOption,
  numberOption,
  type OptionSchema,
  type OptionValues,
  PERMISSION,
  type PreallocationMode,
  stringOption,
} from "@blocklayer/block-api";
import { close, constants, lstat, open, stat, unlink } from "node:fs";
import { promisify } from "node:util";
import { alignedZeroes } from "./aligned-memory.js";
import { canceledError, errnoOf, openError } from "./file-error.js";
import { type HostFile, openHostFile } from "./host-file.js";
import { hostPath } from "./host-path.js";
import { ImageLock } from "./image-lock.js";
import { loadNative, type NativeFs, type NativeLoad } from "./native.js";
import { writeAt } from "./positional-io.js";
import { resizeFile } from "./resize.js";
import { FileSpace } from "./space.js";

const openAsync = promisify(open);
const closeAsync = promisify(close);
const statAsync = promisify(stat);
const lstatAsync = promisify(lstat);
const unlinkAsync = promisify(unlink);

/** As qemu-img makes files; the user's umask takes its bits away. */
const FILE_MODE = 0o644;

/** What is zeroed at the start of a device, so that no old header is found there. */
const DEVICE_HEAD_BYTES: number = 4 * KiB;

/** Options of `createFile`. */
export const CREATE_OPTIONS: OptionSchema = {
  size: { type: "size", help: "Length of the file", default: 0 },
  preallocation: {
    type: "choice",
    choices: ["off", "falloc", "full"],
    help: "Set space aside: off, falloc (asked of the file system) or full (zeroes are written)",
    default: "off",
  },
  nocow: {
    type: "boolean",
    help: "No copy-on-write, where the file system has it",
    default: false,
  },
  extent_size_hint: {
    type: "size",
    help: "Least extent size for the file system to use; 0: its own choice",
    default: MiB,
  },
};

/** What the creator of a file needs, and keeps others from. */
const CREATE_PERMISSIONS = {
  held: PERMISSION.write | PERMISSION.resize,
  shared: PERMISSION.consistentRead | PERMISSION.write | PERMISSION.writeUnchanged,
};

/**
 * Makes a file of zeroes, or empties the one that is there and makes it this long.
 *
 * @param options - checked against `CREATE_OPTIONS`
 * @throws BlockError `EAGAIN` when another process uses the file (it is untouched then); `ENOSPC`, …. After
 *   another failure: a file of length 0 may be left.
 */
export async function createFile(
  filename: string,
  options: OptionValues,
  signal?: AbortSignal,
  load: () => Promise<NativeLoad> = loadNative,
): Promise<void> {
  const named = { filename, nodeName: filename };
  if (signal?.aborted === true) throw canceledError("create", named, signal);
  await touch(filename);
  const { native } = await load();
  const file = await openHostFile(
    { ...named, readOnly: false, autoReadOnly: false, direct: false, driver: "file" },
    native,
  );
  const lock = new ImageLock(file, native, "auto");
  try {
    await lock.set(CREATE_PERMISSIONS);
    if (file.kind === "device") {
      await prepareDevice(file, numberOption(options, "size"));
      return;
    }
    await file.setLength(0);
    giveHints(file, native, options);
    await resizeFile(file, new FileSpace(file, native, 1), numberOption(options, "size"), {
      preallocation: (stringOption(options, "preallocation") ?? "off") as PreallocationMode,
      ...(signal === undefined ? {} : { signal }),
    });
  } finally {
    lock.release();
    await file.close();
  }
}

/**
 * Takes a file away that `createFile` made. Only a regular file goes: a link, a device or a pipe was the user's.
 *
 * @throws BlockError `EINVAL` for anything else, and the errno of the system
 */
export async function removeFile(filename: string): Promise<void> {
  const removeError = (code: BlockErrorCode, message: string, cause?: unknown): BlockError =>
    new BlockError(code, `Could not remove '${filename}': ${message}`, {
      op: "remove",
      node: filename,
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    if ((await lstatAsync(hostPath(filename))).isFile())
      return await unlinkAsync(hostPath(filename));
  } catch (cause) {
    const { code } = openError(cause, { filename, nodeName: filename });
    throw removeError(code, errnoText(code), cause);
  }
  throw removeError("EINVAL", "it is no regular file");
}

/**
 * "Makes" a device: checks that it is long enough, and zeroes its head.
 *
 * @throws BlockError `ENOSPC` when the device is shorter than `size`
 */
export async function createDevice(
  filename: string,
  options: OptionValues,
  load: () => Promise<NativeLoad> = loadNative,
): Promise<void> {
  const { native } = await load();
  const file = await openHostFile(
    {
      filename,
      nodeName: filename,
      readOnly: false,
      autoReadOnly: false,
      direct: false,
      driver: "host_device",
    },
    native,
  );
  const lock = new ImageLock(file, native, "auto");
  try {
    await lock.set({ ...CREATE_PERMISSIONS, held: PERMISSION.write });
    const size = options["size"];
    await prepareDevice(file, typeof size === "number" ? size : 0);
  } finally {
    lock.release();
    await file.close();
  }
}

/** Makes an empty file where there is none. What is there already is not opened: that may wait, or change it. */
async function touch(filename: string): Promise<void> {
  try {
    await statAsync(hostPath(filename));
    return;
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw createError(cause, filename);
  }
  try {
    const flags = constants.O_RDWR | constants.O_CREAT;
    await closeAsync(await openAsync(hostPath(filename), flags, FILE_MODE));
  } catch (cause) {
    throw createError(cause, filename);
  }
}

function createError(cause: unknown, filename: string): BlockError {
  const { code, message } = openError(cause, { filename, nodeName: filename });
  return new BlockError(code, message.replace("Could not open", "Could not create"), {
    op: "create",
    node: filename,
    cause,
  });
}

/** Hints only: a file system that does not know them is none the worse. */
function giveHints(file: HostFile, native: NativeFs | undefined, options: OptionValues): void {
  if (native === undefined) return;
  if (booleanOption(options, "nocow")) native.setNoCow(file.fd);
  const hint = options["extent_size_hint"];
  if (typeof hint === "number" && hint > 0 && hint < 2 ** 32) {
    native.setExtentSizeHint(file.fd, hint);
  }
}

async function prepareDevice(file: HostFile, sizeBytes: number): Promise<void> {
  if (file.lengthBytes < sizeBytes) {
    throw new BlockError(
      "ENOSPC",
      `'${file.filename}' has ${file.lengthBytes} bytes, and ${sizeBytes} are needed`,
      { op: "create", node: file.nodeName },
    );
  }
  const headBytes = Math.min(DEVICE_HEAD_BYTES, file.lengthBytes);
  if (headBytes > 0) await writeAt(file, 0, IoVector.of(alignedZeroes(headBytes)));
}
