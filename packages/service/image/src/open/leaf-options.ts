/** Options that belong to the byte store at the bottom, wherever in the node options it stands. */
import type { DriverDefinition } from "@blocklayer/block-api";
import type { NodeOptions } from "@blocklayer/block-graph";
import type { CacheMode } from "./cache-mode.js";
import { isRecord } from "./is-record.js";

/** Deepest nesting of `file` that is followed. */
const MAX_DEPTH = 16;

/** How the byte stores of an image are opened. */
export interface LeafChoice {
  readonly cache: CacheMode;
  readonly forceShare: boolean;
}

/**
 * Adds cache mode and sharing to the byte store that `file` leads to. What the user wrote there stays; what the
 * driver does not know is left out.
 */
export function withLeafOptions(
  options: NodeOptions,
  choice: LeafChoice,
  drivers: readonly DriverDefinition[],
  depth = 0,
): NodeOptions {
  if (isRecord(options.file) && depth < MAX_DEPTH) {
    const file = withLeafOptions(options.file as NodeOptions, choice, drivers, depth + 1);
    return { ...options, file };
  }
  const driver = drivers.find((candidate) => candidate.name === options.driver);
  if (driver?.kind !== "protocol") return options;
  const added: Record<string, unknown> = {};
  const add = (name: string, value: boolean): void => {
    if (value && Object.hasOwn(driver.openOptions, name)) added[name] = true;
  };
  add("cache.direct", choice.cache.direct);
  add("cache.no-flush", choice.cache.noFlush);
  add("force-share", choice.forceShare);
  return { ...added, ...options };
}
