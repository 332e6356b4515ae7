/** Who decides about files that images name: the caller of the graph, never the image. */
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { NodeOptions } from "./options.js";

/** What an image asks for when it names another file. */
export interface GateRequest {
  readonly kind: "backing" | "data-file";
  /** As written in the image. */
  readonly filename: string;
  /** The driver that the image names. Absent: the gate must decide; the graph probes no such file. */
  readonly format?: string;
  /** The file name of the image that asks, or its node's name when it has none. */
  readonly image: string;
}

/**
 * Decides about a file that an image names.
 *
 * @returns how to open it, or `null` to go on as if the image named none
 * @throws to refuse
 */
export type OpenGate = (request: GateRequest) => MaybePromise<NodeOptions | null>;

/** The gate of a graph that was given none. */
export function refuseAll({ kind, filename, image }: GateRequest): never {
  throw new BlockError(
    "EACCES",
    `'${image}' names the ${kind} file '${filename}', and no open gate allows it`,
    { op: "open", node: image },
  );
}
