/**
 * The image that a conversion writes into: made, opened, and in the end whole or not taken for whole.
 *
 * Above: the tool's `convert`. Below: createImage's parts, HeldHead, the graph.
 *
 * 1. A target that is made here starts with a notice until `complete` has flushed everything that follows: see
 *    HeldHead. Neither a killed process nor a power cut leaves half an image that opens. So does an external data file
 *    that is valid as a raw image: it would open as a disk by itself.
 * 2. `abandon` removes a file that was made here. A file that was there before, or a device, is left, with the notice.
 * 3. A target that was there (`existing`) is written in place, as the user asked for: after a failure it is
 *    incomplete, and only the error says so.
 */
import { parseOptions } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import {
  type BlockBackend,
  BlockGraph,
  type NodeOptions,
  type OpenGate,
} from "@blocklayer/block-graph";
import { type CacheMode, type CacheModeName } from "../open/cache-mode.js";
import { withLeafOptions } from "../open/leaf-options.js";
import { fileOpenGate } from "../open/open-gate.js";
import { cacheOf, openImage } from "../open/open-image.js";
import type { ImageSource, OpenImageOptions } from "../open/types.js";
import { carryOut } from "./create-image.js";
import { type FullCreatePlan, planCreation } from "./create-plan.js";
import { HELD_HEAD_DRIVER, HeldHead } from "./held-head.js";
import type { Store } from "./store.js";
import type { CreateImageOptions, CreatePlan } from "./types.js";

/** What both kinds of target take. Default cache: `unsafe`, as qemu-img's; see the README for what that means. */
interface TargetOpenOptions {
  readonly cache?: CacheMode | CacheModeName;
  readonly openGate?: OpenGate;
}

/** A new image. */
export type NewTargetOptions = CreateImageOptions &
  TargetOpenOptions & {
    /** Options to open the new image's node with: `{ "compression-level": 9 }`. */
    readonly nodeOptions?: Readonly<Record<string, unknown>>;
  };

/** An image that is there already (`-n`). */
export type ExistingTargetOptions = Omit<OpenImageOptions, "readOnly" | "forceShare">;

export class ConvertTarget implements AsyncDisposable {
  /** Open for writing. Closed by `complete` and `abandon`. */
  readonly backend: BlockBackend;
  /** Every byte reads as zero: `targetIsZero` of a conversion. */
  readonly isKnownZero: boolean;
  /** The file was made here, so that `abandon` removes it. */
  readonly isNewFile: boolean;
  /** What was made; absent for a target that was there. */
  readonly plan: CreatePlan | undefined;
  readonly #parts: TargetParts;
  #state: "open" | "complete" | "abandoned" = "open";

  private constructor(parts: TargetParts) {
    this.backend = parts.backend;
    this.isKnownZero = parts.isKnownZero;
    this.isNewFile = parts.isNewFile;
    this.plan = parts.plan;
    this.#parts = parts;
  }

  /**
   * Makes an image and opens it for writing.
   *
   * @throws what `createImage` and the graph throw. **After failure:** as after `abandon`
   */
  static async create(options: NewTargetOptions): Promise<ConvertTarget> {
    const plan = await planCreation(options);
    // Before a file that is there is emptied for an option that does not exist.
    parseOptions(plan.format.openOptions, options.nodeOptions ?? {}, plan.format.name);
    options.onFormatting?.(plan.shown);
    const { isNewFile, isNewDataFile, isFreshStore } = await carryOut(plan, options.signal);
    const heads = headsOf(plan);
    let backend: BlockBackend | undefined;
    try {
      backend = await openMade(options, plan, heads);
      const hasBacking = plan.formatOptions["backing_file"] !== undefined;
      const isKnownZero = !hasBacking && (isFreshStore || (await readsAsZero(backend)));
      const { store, shown } = plan;
      const newData = isNewDataFile ? { newDataStore: plan.dataStore } : {};
      const parts = { backend, isKnownZero, isNewFile, plan: shown, heads, store, ...newData };
      return new ConvertTarget(parts);
    } catch (error) {
      // The first error is the one to tell.
      await backend?.close().catch(() => undefined);
      if (isNewFile) await plan.store.remove();
      if (isNewDataFile) await plan.dataStore?.remove();
      throw error;
    }
  }

  /** Opens an image that is there, to be written in place. */
  static async existing(
    source: ImageSource,
    options: ExistingTargetOptions,
  ): Promise<ConvertTarget> {
    const cache = options.cache ?? "unsafe";
    const backend = await openImage(source, { ...options, cache, readOnly: false });
    return new ConvertTarget({ backend, isKnownZero: false, isNewFile: false });
  }

  /**
   * The target is whole: flushes, lets the head go, closes.
   *
   * @throws BlockError when that fails: then the target is not whole, and `abandon` is called for
   */
  async complete(): Promise<void> {
    if (this.#state !== "open") throw new BlockError("ECLOSED", "the target is closed already");
    await this.backend.flush();
    for (const head of this.#parts.heads?.all ?? []) await head.release();
    await this.backend.close();
    this.#state = "complete";
  }

  /**
   * The target is not whole: closes it, and removes it when it was made here.
   *
   * @returns what became of it
   */
  async abandon(): Promise<"removed" | "left-incomplete"> {
    this.#state = "abandoned";
    try {
      await this.backend.close();
    } catch {
      // What could not be flushed is not needed any more.
    }
    const { store, newDataStore } = this.#parts;
    await newDataStore?.remove();
    const isRemoved = this.isNewFile && store !== undefined && (await store.remove());
    return isRemoved ? "removed" : "left-incomplete";
  }

  /** `await using`: a target that was not completed is abandoned. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === "open") await this.abandon();
  }
}

interface TargetParts {
  readonly backend: BlockBackend;
  readonly isKnownZero: boolean;
  readonly isNewFile: boolean;
  readonly plan?: CreatePlan;
  readonly heads?: Heads;
  readonly store?: Store;
  /** An external data file that was made here. */
  readonly newDataStore?: Store | undefined;
}

/** The heads that are held back. */
interface Heads {
  readonly image: HeldHead;
  /** Of a data file that is a raw image. */
  readonly data: HeldHead | undefined;
  /** In the order in which they are let go: the image last. */
  readonly all: readonly HeldHead[];
}

function headsOf({ dataStore, formatOptions }: FullCreatePlan): Heads {
  const image = new HeldHead();
  const isRaw = dataStore !== undefined && formatOptions["data_file_raw"] === true;
  const data = isRaw ? new HeldHead(`${HELD_HEAD_DRIVER}-of-data`) : undefined;
  return { image, data, all: data === undefined ? [image] : [data, image] };
}

async function openMade(
  options: NewTargetOptions,
  plan: FullCreatePlan,
  heads: Heads,
): Promise<BlockBackend> {
  const { drivers } = options;
  const cache = cacheOf({ cache: options.cache ?? "unsafe" });
  const held = (head: HeldHead, store: Store): NodeOptions => ({
    driver: head.definition.name,
    file: withLeafOptions(store.options, { cache, forceShare: false }, drivers),
  });
  const { dataStore } = plan;
  const hasHeldData = heads.data !== undefined && dataStore !== undefined;
  const node: NodeOptions = {
    ...options.nodeOptions,
    driver: plan.format.name,
    file: held(heads.image, plan.store),
    ...(hasHeldData ? { "data-file": held(heads.data, dataStore) } : {}),
  };
  const openGate = options.openGate ?? fileOpenGate({ drivers, cache });
  const graph = new BlockGraph({
    drivers: [...drivers, ...heads.all.map(({ definition }) => definition)],
    openGate,
  });
  try {
    return await graph.open(node, { readOnly: false, writethrough: cache.writethrough });
  } catch (error) {
    await graph.close();
    throw error;
  }
}

/** More extents than this in an image just made are not zeroes but work. */
const MAX_ZERO_STEPS = 4096;

/** Whether the whole disk is known to be zeroes, without reading it. */
async function readsAsZero(backend: BlockBackend): Promise<boolean> {
  const end = backend.lengthBytes;
  let offset = 0;
  for (let step = 0; step < MAX_ZERO_STEPS && offset < end; step++) {
    const status = await backend.blockStatusAbove(undefined, offset, end - offset);
    if (!status.zero) return false;
    offset += status.lengthBytes;
  }
  return offset >= end;
}
