/** The drivers of the tool. Nothing below this package picks them. */
import { open } from "node:fs/promises";
import type { DriverDefinition } from "@blocklayer/block-api";
import { BlockError, errnoText } from "@blocklayer/bytes";
import { createBlkdebugDriver } from "@blocklayer/filters";
import { fileDriver, hostDeviceDriver } from "@blocklayer/file";
import { memoryDriver, nullDriver } from "@blocklayer/memory";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";

export const DRIVERS: readonly DriverDefinition[] = [
  fileDriver,
  hostDeviceDriver,
  memoryDriver,
  nullDriver,
  rawDriver,
  qcow2Driver,
  createBlkdebugDriver({ readConfig: readRulesFile }),
];

/** More rules than anybody writes; and no device or pipe, of which there is no end. */
const MAX_RULES_BYTES: number = 2 ** 20;

/** The text of a file of rules. */
async function readRulesFile(filename: string): Promise<string> {
  const file = await open(filename).catch((error: NodeJS.ErrnoException): never => {
    const message = `blkdebug: could not read '${filename}': ${errnoText(error.code ?? "EIO")}`;
    throw new BlockError("ENOENT", message, { op: "open", cause: error });
  });
  try {
    const stat = await file.stat();
    if (stat.isFile() && stat.size <= MAX_RULES_BYTES) return await file.readFile("utf8");
    throw new BlockError("EINVAL", `blkdebug: '${filename}' is no file of rules`, { op: "open" });
  } finally {
    await file.close();
  }
}
