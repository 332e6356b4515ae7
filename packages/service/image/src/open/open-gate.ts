/**
 * The gate for images on disk: what may be opened because an image names it.
 *
 * Above: the graph asks it for every backing and data file. Below: `parseFilename`.
 *
 * 1. A name counts from the folder of the image that holds it.
 * 2. A backing file whose format the image does not name is refused. Guessing would let whoever writes a raw base
 *    image choose which file the host opens next.
 * 3. What is opened here is read-only, save data files.
 */
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { NodeOptions, OpenGate } from "@blocklayer/block-graph";
import { type CacheMode, type CacheModeName, parseCacheMode } from "./cache-mode.js";
import { parseFilename, resolveName } from "./filename.js";
import { withLeafOptions } from "./leaf-options.js";
import { probeFile } from "./probe.js";
import type { DriverChoice } from "./types.js";

type GateRequest = Parameters<OpenGate>[0];

/** Options of `fileOpenGate`. */
export interface FileOpenGateOptions extends DriverChoice {
  /**
   * Guess the format of a backing file that the image does not name, as qemu-img does. Unsafe unless every image
   * of the chain comes from a trusted hand. Default `false`: refuse.
   */
  readonly unsafeProbeBacking?: boolean;
  /** Asked first; `false` refuses. For rules like "only below this folder". */
  readonly allow?: (request: GateRequest & { readonly resolvedName: string }) => boolean;
  /** As the image itself was opened. */
  readonly cache?: CacheMode | CacheModeName;
  readonly forceShare?: boolean;
}

/**
 * Makes the gate that most callers want.
 *
 * @example openImage("vm.qcow2", { drivers, openGate: fileOpenGate({ drivers }) })
 */
export function fileOpenGate(options: FileOpenGateOptions): OpenGate {
  const cache = options.cache ?? "writeback";
  const leaf = {
    cache: typeof cache === "string" ? parseCacheMode(cache) : cache,
    forceShare: options.forceShare === true,
  };
  return (request): MaybePromise<NodeOptions> => {
    const resolvedName = resolveName(request.image, request.filename);
    if (options.allow?.({ ...request, resolvedName }) === false)
      throw refused(request, resolvedName);
    const file = parseFilename(resolvedName, options.drivers);
    if (isWholeGraph(file, resolvedName, options)) {
      return withLeafOptions(file, leaf, options.drivers);
    }
    const store = withLeafOptions(file, leaf, options.drivers);
    if (request.kind === "data-file") return store;
    if (request.format !== undefined) return { driver: request.format, file: store };
    if (options.unsafeProbeBacking !== true) throw formatMissing(request);
    return probeFile(store, options.drivers).then(({ format }) => ({
      driver: format,
      file: store,
    }));
  };
}

/** `json:` names that name a format's driver describe the whole graph. */
function isWholeGraph(file: NodeOptions, name: string, { drivers }: DriverChoice): boolean {
  if (!name.startsWith("json:")) return false;
  return drivers.some((driver) => driver.name === file.driver && driver.kind !== "protocol");
}

function refused(request: GateRequest, resolvedName: string): BlockError {
  return new BlockError(
    "EACCES",
    `image '${request.image}': opening its ${request.kind} file '${resolvedName}' is not allowed`,
    { op: "open", node: request.image },
  );
}

function formatMissing({ image, filename }: GateRequest): BlockError {
  return new BlockError(
    "EINVAL",
    `image '${image}' names the backing file '${filename}' but not its format, and guessing it is unsafe. ` +
      `Write the format into the image: qemu-img rebase -u -b '${filename}' -F <format> '${image}'`,
    { op: "open", node: image },
  );
}
