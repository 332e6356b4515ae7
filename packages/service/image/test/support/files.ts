/** File names in memory: a `file` protocol whose requests tests can delay and fail. */
import { andThen, BlockError, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockCapabilities,
  BlockDriver,
  BlockLimits,
  BlockStatus,
  DriverDefinition,
  RequestOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import { MemoryDriver, SparseStore } from "@blocklayer/memory";

export type Hook = (filename: string, offset: number, lengthBytes: number) => MaybePromise<void>;

/** A folder of files. Hooks run in front of each request and may throw or wait. */
export class Files {
  readonly stores = new Map<string, SparseStore>();
  onRead: Hook | undefined;
  onWrite: Hook | undefined;
  statusCalls = 0;
  readonly opened: string[] = [];
  readonly driver: DriverDefinition;

  constructor() {
    this.driver = {
      name: "file",
      kind: "protocol",
      openOptions: {
        filename: { type: "string", help: "Name" },
        "cache.direct": { type: "boolean", help: "-", default: false },
        "force-share": { type: "boolean", help: "-", default: false },
      },
      createOptions: { nocow: { type: "boolean", help: "-", default: false } },
      protocolPrefixes: ["file:"],
      open: ({ options, readOnly }) => {
        const filename = String(options["filename"]);
        const store = this.stores.get(filename);
        if (store === undefined) {
          throw new BlockError("ENOENT", `Could not open '${filename}': No such file or directory`);
        }
        this.opened.push(filename);
        return new HookedDriver(this, filename, store, readOnly);
      },
      createFile: ({ filename }) => {
        this.stores.set(filename, new SparseStore());
      },
      removeFile: (filename) => {
        this.stores.delete(filename);
      },
    };
  }

  /** Makes a file, or replaces it. */
  put(filename: string, bytes: Uint8Array, lengthBytes: number = bytes.length): void {
    const store = new SparseStore(lengthBytes);
    store.write(0, bytes);
    this.stores.set(filename, store);
  }

  /** A file's whole content. */
  get(filename: string): Uint8Array {
    const store = this.stores.get(filename);
    if (store === undefined) throw new Error(`there is no file '${filename}'`);
    const bytes = new Uint8Array(store.lengthBytes);
    store.read(0, bytes);
    return bytes;
  }
}

/** A store in memory behind the hooks. */
class HookedDriver implements BlockDriver {
  readonly driverName = "file";
  readonly #files: Files;
  readonly #filename: string;
  readonly #memory: MemoryDriver;

  constructor(files: Files, filename: string, store: SparseStore, readOnly: boolean) {
    this.#files = files;
    this.#filename = filename;
    this.#memory = new MemoryDriver(store, readOnly);
  }

  get lengthBytes(): number {
    return this.#memory.lengthBytes;
  }

  get limits(): BlockLimits {
    return this.#memory.limits;
  }

  get capabilities(): BlockCapabilities {
    return this.#memory.capabilities;
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const waited = this.#files.onRead?.(this.#filename, offset, target.lengthBytes);
    return andThen(waited, () => this.#memory.readv(offset, target, options));
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const waited = this.#files.onWrite?.(this.#filename, offset, source.lengthBytes);
    return andThen(waited, () => this.#memory.writev(offset, source, options));
  }

  writeZeroes(offset: number, lengthBytes: number, options?: WriteZeroesOptions): void {
    this.#memory.writeZeroes(offset, lengthBytes, options);
  }

  discard(offset: number, lengthBytes: number): void {
    this.#memory.discard(offset, lengthBytes);
  }

  blockStatus(offset: number, lengthBytes: number): BlockStatus {
    this.#files.statusCalls++;
    return this.#memory.blockStatus(offset, lengthBytes);
  }

  truncate(lengthBytes: number): void {
    this.#memory.truncate(lengthBytes);
  }

  flushToOs(): void {}

  flushToDisk(): void {}

  reopen(): void {}

  close(): void {
    this.#memory.close();
  }
}
