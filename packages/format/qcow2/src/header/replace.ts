/**
 * Putting another header in the place of the one in the file.
 *
 * Above: amend, backing/change, bitmap/store. Below: replace-steps.ts, the image.
 *
 * Locking: the image lock is held throughout. A failure leaves it unknown which header counts: the node fails.
 */
import { alignUp, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { Qcow2Image } from "../image.js";
import { readTable } from "../read-tables.js";
import { OVERLAP } from "../refcount/overlap.js";
import { layoutOf } from "./encode.js";
import type { Qcow2Header } from "./header.js";
import { stepsTo } from "./replace-steps.js";

/**
 * Replaces the header, durably, in the file and in memory. Whoever changes a pointer has synced what it points to [C6].
 *
 * @throws BlockError as `encodeHeader`, before anything is written; those of the file
 */
export async function replaceHeader(image: Qcow2Image, next: Qcow2Header): Promise<void> {
  const { backingFileOffset, backingFileSize, lengthBytes } = layoutOf(next);
  const current = await readTable(image.file, 0, alignUp(lengthBytes, SECTOR_SIZE_BYTES));
  const steps = stepsTo(image.header, next, current);
  try {
    for (const { at, bytes } of steps) {
      await image.writeTable(at, bytes, OVERLAP.header);
      await image.sync();
    }
  } catch (cause) {
    image.fail(cause);
    throw cause;
  }
  image.setHeader({ ...next, backingFileOffset, backingFileSize });
}
