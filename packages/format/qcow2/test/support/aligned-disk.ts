/** An image of qcow2 in a graph, over a simulated file that takes only aligned requests. */
import type { BlockDriver, DriverDefinition } from "@blocklayer/block-api";
import { type BlockBackend, BlockGraph } from "@blocklayer/block-graph";
import { SimDisk, type SimRequest } from "@blocklayer/sim";
import { qcow2Driver } from "../../src/index.js";
import { createInMemory } from "./images.js";

/** A disk, its file, and what reached that file. */
export interface AlignedDisk {
  readonly graph: BlockGraph;
  readonly backend: BlockBackend;
  readonly file: SimDisk;
  /** Every request to the file since the image was opened. */
  readonly requests: SimRequest[];
  /** Called before each request; may delay or fail it. */
  hook: (request: SimRequest) => void | Promise<void>;
  /** What the file holds, also after it was closed. */
  bytes(): Uint8Array;
  statistic(name: string): number | boolean | string | undefined;
}

/** Makes an image and opens it for writing. The alignment can be changed while it is open, as a reopen does. */
export async function openAligned(
  create: Readonly<Record<string, unknown>>,
  alignment = 512,
  options: Readonly<Record<string, unknown>> = {},
): Promise<AlignedDisk> {
  const image = await createInMemory(create);
  const requests: SimRequest[] = [];
  let onRequest: AlignedDisk["hook"] = () => {};
  const file = new SimDisk({
    content: image.bytes,
    lengthBytes: Math.ceil(image.bytes.length / alignment) * alignment,
    limits: { requestAlignment: alignment, memoryAlignment: alignment },
    onRequest: (request) => {
      requests.push(request);
      return onRequest(request);
    },
  });
  const simDriver: DriverDefinition = {
    name: "sim",
    kind: "protocol",
    openOptions: {},
    open: (): BlockDriver => file,
  };
  const graph = new BlockGraph({ drivers: [simDriver, qcow2Driver] });
  const backend = await graph.open({ driver: "qcow2", file: { driver: "sim" }, ...options });
  requests.length = 0;
  const disk: AlignedDisk = {
    graph,
    file,
    requests,
    hook: () => {},
    backend,
    bytes: () => file.bytes,
    statistic: (name) => backend.root.driver.statistics?.()[name],
  };
  onRequest = (request) => disk.hook(request);
  return disk;
}
