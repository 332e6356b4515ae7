// What is simulated: a qcow2 image in a graph, over a disk that a seed disturbs.
import { directChild, parseOptions } from "@blocklayer/block-api";
import { BlockGraph } from "@blocklayer/block-graph";
import { IoVector } from "@blocklayer/bytes";
import {
  createOptions,
  createQcow2,
  openQcow2,
  qcow2Driver,
  qcow2DriverWith,
} from "@blocklayer/qcow2";
import { Random, SimDisk, SimScheduler, stampedBytes } from "@blocklayer/sim";
import { simCodec } from "./codec.mjs";

/** Completions after which a run counts as one that never ends; the longest ones take some ten thousand. */
const MAX_COMPLETIONS = 300_000;
/** The tag of what the backing file holds. */
export const BACKING_TAG = 0xbac;
export const PREFILL_TAG = 0xf11;
/** What the image calls its backing file. */
export const BACKING_NAME = "backing.raw";
/** What the image calls its external data file. */
export const DATA_NAME = "data.raw";

/** Requests of guest data, by what the driver says before them. */
const DATA_EVENTS = new Set(["read_aio", "write_aio", "write_compressed", "cow_read", "cow_write"]);

/** Lets all promises go on as far as they get. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** What the backing file of a configuration holds. */
export function backingContent(/** @type {import("./config.mjs").SimConfig} */ config) {
  return config.backingBytes === undefined
    ? undefined
    : stampedBytes(BACKING_TAG, 0, config.backingBytes);
}

/**
 * @typedef {object} ImageBytes - what an image is made of
 * @property {Uint8Array} file
 * @property {Uint8Array} [data] - its external data file
 */

/**
 * An empty image.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @returns {Promise<ImageBytes>}
 */
export async function createImage(config) {
  const disk = new SimDisk({ volatileCache: false });
  const data = config.dataFile === undefined ? undefined : new SimDisk({ volatileCache: false });
  const given = {
    size: config.lengthBytes,
    cluster_size: config.clusterSize,
    refcount_bits: config.refcountBits,
    compat: config.version === 2 ? "0.10" : "1.1",
    ...(config.backingBytes === undefined
      ? {}
      : { backing_file: BACKING_NAME, backing_fmt: "raw" }),
    ...(config.extendedL2 ? { extended_l2: true } : {}),
    ...(config.lazyRefcounts ? { lazy_refcounts: true } : {}),
    ...(data === undefined
      ? {}
      : { data_file: DATA_NAME, data_file_raw: config.dataFile === "raw" }),
  };
  const file = directChild(disk);
  await createQcow2({
    file,
    ...(data === undefined ? {} : { dataFile: directChild(data) }),
    options: parseOptions(createOptions, given, "qcow2"),
  });
  if (config.prefillBytes !== undefined) {
    const image = await openQcow2({ file });
    await image.writev(0, IoVector.of(initialContent(config).subarray(0, config.prefillBytes)));
    await image.close();
  }
  return { file: disk.bytes, ...(data === undefined ? {} : { data: data.bytes }) };
}

/** What the guest finds at first: what was prefilled, the backing file's bytes, zeroes. */
export function initialContent(/** @type {import("./config.mjs").SimConfig} */ config) {
  const content = new Uint8Array(config.lengthBytes);
  content.set((backingContent(config) ?? content).subarray(0, content.length));
  content.set(stampedBytes(PREFILL_TAG, 0, config.prefillBytes ?? 0));
  return content;
}

/** Options of the driver that a configuration asks for. */
export function openOptionsOf(/** @type {import("./config.mjs").SimConfig} */ config) {
  return {
    "compressed-write-cache": config.compressedCache,
    "l2-cache-size": config.l2CacheBytes,
    "l2-cache-entry-size": 512,
    "refcount-cache-size": 4 * config.clusterSize,
    "pass-discard-request": config.passDiscards,
    "pass-discard-other": config.passDiscards,
  };
}

/** Whether a range of an image's file touches its header, its L1 table or its refcount table. */
function touchesNames(bytes, start, end) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const clusterSize = 2 ** view.getUint32(20);
  const l1 = Number(view.getBigUint64(40));
  const refcountTable = Number(view.getBigUint64(48));
  return [
    [0, clusterSize],
    [l1, l1 + 8 * view.getUint32(36)],
    [refcountTable, refcountTable + clusterSize * view.getUint32(56)],
  ].some(([from, to]) => start < to && from < end);
}

/** The image, the file below it, and the ways to open it. */
export class Stack {
  /** @type {BlockGraph} */
  #graph;
  /** @type {import("@blocklayer/block-graph").BlockBackend} */
  backend;
  /** What the codec made, to be recognised in a write. */
  #payloads = [];
  /**
   * The compressed cache has been on from the start, so what is compressed was promised before it is written. With
   * blocks larger than clusters a write may carry what a neighbour wrote before, and nothing can be said.
   */
  #gathers;
  /** A write failed that names a table: the file may name it all the same, so its clusters stay taken. */
  failedToName = false;
  /** A write of gathered data failed while the image was open. */
  #lostCompressed = false;
  /** The file may grow to any length again. */
  spaceIsBack = false;

  /**
   * @param {import("./config.mjs").SimConfig} config
   * @param {ImageBytes} image
   * @param {import("@blocklayer/sim").Trace} [trace]
   */
  constructor(config, image, trace) {
    this.config = config;
    const { alignment, seed, latency } = config;
    this.#gathers = config.compressedCache === "on" && alignment <= config.clusterSize;
    this.scheduler = config.scheduled
      ? new SimScheduler({ seed, settle, maxCompletions: MAX_COMPLETIONS })
      : undefined;
    const delays = new Random(seed * 16 + 6);
    const padded = (bytes) => {
      const content = new Uint8Array(Math.ceil(bytes.length / alignment) * alignment);
      content.set(bytes);
      return content;
    };
    const content = padded(image.file);
    const isFull = () => config.spaceBytes !== undefined && !this.spaceIsBack;
    const disk = {
      limits: { requestAlignment: alignment, memoryAlignment: alignment },
      discards: config.discards,
      ...(trace === undefined ? {} : { trace }),
      ...(this.scheduler === undefined ? {} : { scheduler: this.scheduler }),
      ...(latency === undefined
        ? {}
        : { latency: () => (delays.oneIn(latency.oneIn) ? delays.between(1, latency.most) : 0) }),
    };
    this.file = new SimDisk({
      ...disk,
      content,
      name: "file",
      get maxLengthBytes() {
        return isFull() ? content.length + config.spaceBytes : Number.POSITIVE_INFINITY;
      },
    });
    /** The external data file, if the image has one. */
    this.data =
      image.data === undefined
        ? undefined
        : new SimDisk({ ...disk, content: padded(image.data), name: "data" });
    if (config.holds !== undefined) this.#listen(config.holds);
    this.codec = simCodec(this.scheduler, (payload) => this.#payloads.push(payload));
    this.#watchWrites();
  }

  /** Notes what the writes that fail were for. */
  #watchWrites() {
    const { file } = this;
    const writev = file.writev.bind(file);
    file.writev = (offset, source, options) => {
      const note = (error) => {
        if (this.#gathers && this.#carriesPayload(source)) this.#lostCompressed = true;
        this.failedToName ||= touchesNames(file.bytes, offset, offset + source.lengthBytes);
        throw error;
      };
      try {
        const written = writev(offset, source, options);
        return written instanceof Promise ? written.catch(note) : written;
      } catch (error) {
        return note(error);
      }
    };
  }

  #carriesPayload(source) {
    const bytes = Buffer.from(source.toBytes());
    return this.#payloads.some((payload) => bytes.includes(payload));
  }

  /** Has the file hear of what the driver is about to do, and hold guest data back. */
  #listen({ oneIn, most }) {
    const delays = new Random(this.config.seed * 16 + 8);
    this.file.debugEvent = (event) => {
      if (!DATA_EVENTS.has(event) || !delays.oneIn(oneIn)) return undefined;
      const afterCompletions = delays.between(1, most);
      return this.scheduler.schedule(event, () => undefined, { afterCompletions });
    };
  }

  async open(cacheMode = this.config.compressedCache) {
    const protocol = (name, open) => ({ name, kind: "protocol", openOptions: {}, open });
    const backing = backingContent(this.config);
    const again = (disk) => () => {
      disk.restart();
      return disk;
    };
    const drivers = [
      protocol("sim", again(this.file)),
      ...(this.data === undefined ? [] : [protocol("sim-data", again(this.data))]),
      protocol(
        "sim-backing",
        () => new SimDisk({ content: backing, readOnly: true, name: "backing" }),
      ),
      qcow2DriverWith(this.codec),
    ];
    this.#graph = new BlockGraph({ drivers });
    this.#lostCompressed = false;
    this.backend = await this.#graph.open({
      driver: "qcow2",
      file: { driver: "sim" },
      ...(this.data === undefined ? {} : { "data-file": { driver: "sim-data" } }),
      backing: backing === undefined ? null : { driver: "sim-backing" },
      ...openOptionsOf(this.config),
      "compressed-write-cache": cacheMode,
    });
  }

  /** Decides anew whether compressed writes are gathered. */
  setCache(mode) {
    // From here on a write that fails may be that of a request which waits for it, and is told.
    this.#gathers = false;
    return this.#graph.reopen(this.backend, { options: { "compressed-write-cache": mode } });
  }

  close() {
    return this.#graph.close();
  }

  /** Hands the disk over to another process, and takes it back: the other one has done nothing. */
  async handOver() {
    await this.#graph.inactivateAll();
    await this.#graph.activateAll();
  }

  /** Changes options of the format. Requires: nothing is in flight. */
  amend(options) {
    const values = parseOptions(qcow2Driver.amendOptions, options, "qcow2");
    return this.backend.root.driver.amend(values);
  }

  /** Gives the backing file another name; its content stays. Requires: nothing is in flight. */
  renameBacking(filename) {
    return this.backend.root.driver.changeBacking({ filename, format: "raw" });
  }

  /** No flush may succeed any more: the node says so, or it must, since what it was given is lost [C17]. */
  get hasFailed() {
    const hasLost = this.file.hasLostWrites || this.data?.hasLostWrites === true;
    return hasLost || this.#lostCompressed || this.statistics.failed === true;
  }

  /** The driver's own view of itself: locks, requests, failure. */
  get statistics() {
    return this.backend.root.driver.statistics();
  }
}
