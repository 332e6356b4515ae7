/**
 * Which format a file has, told by its first bytes.
 *
 * Probing is for names that the user gave, never for names that stand in an image: whoever can write into a raw
 * image can make it look like any other format.
 */
import { BlockError } from "@blocklayer/bytes";
import type { DriverDefinition } from "@blocklayer/block-api";
import { BlockGraph, type NodeOptions } from "@blocklayer/block-graph";
import { isIncomplete } from "../create/held-head.js";
import { nameOfOptions } from "./filename.js";

/** As many bytes as formats look at. */
const HEAD_BYTES = 2048;

/** What probing found. */
export interface ProbeResult {
  readonly format: string;
  /** `false`: no format knew the bytes, so they are taken as raw. */
  readonly recognized: boolean;
}

/** The format whose driver is surest about these bytes. */
function probeBytes(head: Uint8Array, drivers: readonly DriverDefinition[]): ProbeResult {
  let best: DriverDefinition | undefined;
  let bestScore = 0;
  for (const driver of drivers) {
    if (driver.kind !== "format" || driver.name === "raw") continue;
    const score = driver.probe?.(head) ?? 0;
    if (score > bestScore) {
      best = driver;
      bestScore = score;
    }
  }
  return best === undefined
    ? { format: "raw", recognized: false }
    : { format: best.name, recognized: true };
}

/**
 * Opens a byte store for as long as it takes to read its head.
 *
 * @throws BlockError `ECORRUPT` when the file was left behind by a conversion that did not end
 */
export async function probeFile(
  options: NodeOptions,
  drivers: readonly DriverDefinition[],
): Promise<ProbeResult> {
  const graph = new BlockGraph({ drivers });
  try {
    const backend = await graph.open(options, { readOnly: true });
    const head = await backend.read(0, Math.min(HEAD_BYTES, backend.lengthBytes));
    if (isIncomplete(head)) throw incomplete(options);
    return probeBytes(head, drivers);
  } finally {
    await graph.close();
  }
}

function incomplete(options: NodeOptions): BlockError {
  const name = nameOfOptions(options);
  return new BlockError(
    "ECORRUPT",
    `'${name}' is incomplete: the conversion that wrote it did not end. Convert again, or open it as raw to see what is there`,
    { op: "open", node: name },
  );
}
