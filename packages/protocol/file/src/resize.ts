/** Changing the length of a file, with space set aside or not. */
import { BlockError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import type { PreallocationMode, TruncateOptions } from "@blocklayer/block-api";
import { fdatasync } from "node:fs";
import { promisify } from "node:util";
import { alignedZeroes } from "./aligned-memory.js";
import { fileError } from "./file-error.js";
import type { HostFile } from "./host-file.js";
import { writeAt } from "./positional-io.js";
import type { FileSpace } from "./space.js";

const fdatasyncAsync = promisify(fdatasync);

/** What a file that was empty gets written, so that it has a block to probe alignments on. */
const FIRST_BLOCK_BYTES = 4096;

/**
 * Sets the length of a file.
 *
 * Requires: no request in flight.
 *
 * @param sync - makes the file stable; who keeps track of failed syncs gives its own, since the system tells of each
 *   lost write only once
 * @throws BlockError `ENOTSUP` for a device, for a preallocation that is not possible here, and for one that
 *   comes with a shorter file. After failure: the length is as before.
 */
export async function resizeFile(
  file: HostFile,
  space: FileSpace,
  lengthBytes: number,
  options: TruncateOptions = {},
  sync: () => MaybePromise<void> = () => syncFile(file),
): Promise<void> {
  const mode = options.preallocation ?? "off";
  const before = file.lengthBytes;
  refuse(file, lengthBytes, mode);
  if (lengthBytes === before) return;
  if (lengthBytes < before || mode === "off") {
    await file.setLength(lengthBytes);
    if (before === 0) await writeFirstBlock(file);
    return;
  }
  try {
    if (mode === "falloc") {
      await space.reserve(before, lengthBytes);
      if (before === 0) await writeFirstBlock(file);
    } else {
      await file.setLength(lengthBytes);
      await space.fillGrowth(before, lengthBytes, options.signal);
      if (file.lengthBytes > lengthBytes) await file.setLength(lengthBytes);
      await sync();
    }
  } catch (error) {
    // The first failure is the one to tell; a file that is too long holds zeroes only.
    await file.setLength(before).catch(() => undefined);
    throw error;
  }
}

function refuse(file: HostFile, lengthBytes: number, mode: PreallocationMode): void {
  const details = { op: "truncate", node: file.nodeName, offset: lengthBytes };
  if (mode === "metadata") {
    throw new BlockError(
      "ENOTSUP",
      `'${file.filename}': preallocation=metadata is not for a plain file`,
      details,
    );
  }
  if (file.kind === "device" && lengthBytes !== file.lengthBytes) {
    throw new BlockError("ENOTSUP", `'${file.filename}': a device keeps its length`, details);
  }
  if (mode !== "off" && lengthBytes < file.lengthBytes) {
    throw new BlockError(
      "ENOTSUP",
      `'${file.filename}': preallocation can only be used when a file grows`,
      details,
    );
  }
}

/**
 * Gives a new sparse file one real block of zeroes, as QEMU does: reads of a hole accept alignments that the
 * disk does not, which would mislead whoever probes.
 */
async function writeFirstBlock(file: HostFile): Promise<void> {
  if (file.direct && file.lengthBytes < FIRST_BLOCK_BYTES) return;
  const lengthBytes = Math.min(FIRST_BLOCK_BYTES, file.lengthBytes);
  if (lengthBytes === 0) return;
  try {
    await writeAt(file, 0, IoVector.of(alignedZeroes(lengthBytes)));
  } catch {
    // A convenience for others; whoever really writes here will hear of the trouble.
  }
}

async function syncFile(file: HostFile): Promise<void> {
  try {
    await fdatasyncAsync(file.fd);
  } catch (cause) {
    throw fileError(cause, "flush", file);
  }
}
