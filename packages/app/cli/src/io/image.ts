/**
 * The image that `blk io` works on: its graph, its backend, the requests that run beside the commands.
 *
 * Above: session.ts and the commands. Below: the graph.
 *
 * 1. `close` lets go what is parked, waits for what runs, and closes the graph.
 * 2. Whether every write is stable when it ends (the cache mode) is decided here, not in the graph: `reopen` changes it.
 */
import { BlockError } from "@blocklayer/bytes";
import {
  type DebugControl,
  type DebugObserver,
  parseOptions,
  PERMISSION,
  type Permissions,
} from "@blocklayer/block-api";
import { type BlockBackend, BlockGraph, type BlockNode } from "@blocklayer/block-graph";
import {
  fileOpenGate,
  imageNodeOptions,
  type ImageSource,
  type OpenImageOptions,
  parseCacheMode,
} from "@blocklayer/image";
import { qcow2Driver } from "@blocklayer/qcow2";
import { DRIVERS } from "../registry.js";

/** How an image is opened. */
export interface IoOpenOptions {
  readonly source: ImageSource;
  /** The source is a string of `--image-opts`. */
  readonly imageOpts: boolean;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  /** Writes go to a layer in memory, which is gone in the end. */
  readonly snapshot: boolean;
  /** The word of `-t`; absent: as qemu-io, every write is stable when it ends. */
  readonly cache: string | undefined;
  /** `discard` and the unmapping of zeroes do nothing. */
  readonly ignoresDiscard: boolean;
  readonly forceShare: boolean;
  /** More options for the image's node. */
  readonly nodeOptions: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
  readonly onProbedRaw: (filename: string) => void;
}

const DEFAULT_CACHE = "writethrough";
const OVERLAY = "snapshot-overlay";
const OVERLAY_FILE = "snapshot-file";
const BASE = "snapshot-base";

/** Whoever makes an image writes it, and lets it grow. */
const MAKER: Permissions = {
  held: PERMISSION.consistentRead | PERMISSION.write | PERMISSION.resize,
  shared: PERMISSION.consistentRead,
};

export class IoImage {
  readonly backend: BlockBackend;
  readonly ignoresDiscard: boolean;
  /** Every write is stable when it ends. */
  writethrough: boolean;
  readonly #graph: BlockGraph;
  readonly #running = new Set<Promise<void>>();

  private constructor(
    graph: BlockGraph,
    backend: BlockBackend,
    how: { readonly writethrough: boolean; readonly ignoresDiscard: boolean },
  ) {
    this.#graph = graph;
    this.backend = backend;
    this.writethrough = how.writethrough;
    this.ignoresDiscard = how.ignoresDiscard;
  }

  /** @throws what `openImage` of the image service throws */
  static async open(given: IoOpenOptions): Promise<IoImage> {
    const { readOnly, ignoresDiscard, forceShare } = given;
    if (forceShare && !readOnly) {
      throw new BlockError("EINVAL", "force-share=on can only be used with read-only images");
    }
    const cache = parseCacheMode(given.cache ?? DEFAULT_CACHE);
    const options: OpenImageOptions = {
      drivers: DRIVERS,
      readOnly: readOnly || given.snapshot,
      imageOpts: given.imageOpts,
      cache,
      forceShare,
      nodeOptions: given.nodeOptions,
      onProbedRaw: given.onProbedRaw,
      signal: given.signal,
      ...(given.format === undefined ? {} : { format: given.format }),
    };
    const node = await imageNodeOptions(given.source, options);
    const openGate = fileOpenGate({ drivers: DRIVERS, cache, forceShare });
    const graph = new BlockGraph({ drivers: DRIVERS, openGate });
    try {
      const backend = given.snapshot
        ? await openOverlay(graph, node, readOnly)
        : await graph.open(node, { readOnly, signal: given.signal });
      return new IoImage(graph, backend, { writethrough: cache.writethrough, ignoresDiscard });
    } catch (error) {
      await graph.close();
      throw error;
    }
  }

  /** The first node from the top down that parks requests, if there is one. */
  get debug(): DebugControl | undefined {
    for (let node: BlockNode | undefined = this.backend.root; node !== undefined; node = node.file)
      if (node.driver.debug !== undefined) return node.driver.debug;
    return undefined;
  }

  /** Tells who wants to know of parked requests anywhere in the graph. */
  observe(observer: DebugObserver): void {
    for (const node of this.#graph.nodes()) node.driver.debug?.observe(observer);
  }

  /** How many requests run beside the commands. */
  get runningCount(): number {
    return this.#running.size;
  }

  /** Lets a request run beside the commands. Requires: it does not reject. */
  start(request: Promise<void>): void {
    this.#running.add(request);
    void request.finally(() => this.#running.delete(request));
  }

  /** Waits until no request runs beside the commands. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async reopen(change: {
    readonly readOnly?: boolean;
    readonly options: Readonly<Record<string, unknown>>;
  }): Promise<void> {
    await this.#graph.reopen(this.backend, change);
  }

  /** Lets every parked request go: what is to end must not wait for somebody who has left. */
  release(): void {
    for (const node of this.#graph.nodes()) node.driver.debug?.resumeAll();
  }

  /** @throws the first error of the graph's close; everything is closed all the same */
  async close(): Promise<void> {
    this.release();
    await this.settle();
    await this.#graph.close();
  }
}

/** An empty qcow2 image in memory above the image, which stays as it is. */
async function openOverlay(
  graph: BlockGraph,
  base: Parameters<BlockGraph["add"]>[0],
  readOnly: boolean,
): Promise<BlockBackend> {
  const below = await graph.add({ ...base, "read-only": true, "node-name": BASE });
  await graph.add({ driver: "memory", "node-name": OVERLAY_FILE });
  const store = await graph.open(OVERLAY_FILE, { permissions: MAKER });
  try {
    const { createOptions = {} } = qcow2Driver;
    const options = parseOptions(createOptions, { size: below.lengthBytes }, "qcow2");
    await qcow2Driver.create?.({ file: store.asChild(), options });
  } finally {
    await store.close();
  }
  const overlay = { driver: "qcow2", "node-name": OVERLAY, file: OVERLAY_FILE, backing: BASE };
  return await graph.open(overlay, { readOnly });
}
