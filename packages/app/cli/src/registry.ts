/** The drivers of the tool. Nothing below this package picks them. */
import type { DriverDefinition } from "@blocklayer/block-api";
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
];
