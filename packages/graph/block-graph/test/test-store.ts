/**
 * A byte store for tests: files that outlive their nodes, a log of every call, hooks that delay or fail calls, and
 * limits that it insists on.
 */
import { isMemoryAligned } from "@blocklayer/aligned-io";
import { assert, BlockError, type IoVector, type MaybePromise } from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type DriverDefinition,
  limitsOf,
  type Permissions,
  type ReopenRequest,
  stringOption,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";

/** One call of a driver: `a.img write 0+512`. */
export type CallLog = string[];

/** Called before each call does its work: may throw, or return a promise to wait for. */
export type CallHook = (call: string) => MaybePromise<void>;

/** The files there are, and how their driver behaves. */
export class TestWorld {
  readonly files: Map<string, Uint8Array> = new Map();
  readonly log: CallLog = [];
  readonly open: Map<string, TestStore> = new Map();
  hook: CallHook = () => undefined;
  limits: Partial<BlockLimits> = {};
  capabilities: Partial<BlockCapabilities> = {};

  file(name: string, content: Uint8Array | number): void {
    this.files.set(name, typeof content === "number" ? new Uint8Array(content) : content);
  }

  /** The `file` driver of this world. */
  get driver(): DriverDefinition {
    return {
      name: "file",
      kind: "protocol",
      openOptions: {
        filename: { type: "string", help: "Name of the file" },
        "cache.direct": { type: "boolean", help: "Past the page cache", default: false },
      },
      reopenOptions: ["cache.direct"],
      open: async (context): Promise<BlockDriver> => {
        const filename = stringOption(context.options, "filename") ?? "";
        const mode = context.readOnly ? "ro" : "rw";
        const { held, shared } = context.permissions;
        await this.call(`${filename} open ${mode} ${held}/${shared}`);
        if (!this.files.has(filename)) throw new BlockError("ENOENT", `${filename}: no such file`);
        const store = new TestStore(this, filename, context.readOnly, context.permissions);
        this.open.set(filename, store);
        return store;
      },
    };
  }

  call(text: string): MaybePromise<void> {
    this.log.push(text);
    return this.hook(text);
  }

  /** The log since the last time, then empty. */
  takeLog(): readonly string[] {
    return this.log.splice(0);
  }
}

export class TestStore implements BlockDriver {
  readonly driverName = "file";
  readonly limits: BlockLimits;
  permissions: Permissions;
  readOnly: boolean;
  readonly #world: TestWorld;
  readonly #filename: string;

  constructor(world: TestWorld, filename: string, readOnly: boolean, permissions: Permissions) {
    this.#world = world;
    this.#filename = filename;
    this.readOnly = readOnly;
    this.permissions = permissions;
    this.limits = limitsOf(world.limits);
  }

  get capabilities(): BlockCapabilities {
    const write = !this.readOnly;
    return {
      write,
      compressedWrite: false,
      writeZeroes: write,
      discard: write,
      fua: false,
      truncate: write,
      backing: false,
      ...(write ? this.#world.capabilities : {}),
    };
  }

  get bytes(): Uint8Array {
    return this.#world.files.get(this.#filename) ?? new Uint8Array();
  }

  get lengthBytes(): number {
    return this.bytes.length;
  }

  async readv(offset: number, target: IoVector): Promise<void> {
    this.#checkVector("read", offset, target);
    await this.#call(`read ${offset}+${target.lengthBytes}`);
    const inside = this.bytes.subarray(offset, offset + target.lengthBytes);
    target.copyFrom(inside);
    target.fill(0, inside.length);
  }

  async writev(offset: number, source: IoVector, options?: WriteOptions): Promise<void> {
    this.#checkVector("write", offset, source);
    assert(options?.fua !== true || this.capabilities.fua, "fua only where it is known");
    await this.#call(`write ${offset}+${source.lengthBytes}${options?.fua === true ? " fua" : ""}`);
    this.#grow(offset + source.lengthBytes);
    source.copyTo(this.bytes.subarray(offset, offset + source.lengthBytes));
  }

  async writeZeroes(offset: number, length: number, options?: WriteZeroesOptions): Promise<void> {
    assert(this.capabilities.writeZeroes, "writeZeroes only where it is known");
    this.#checkRange("zero", offset, length, this.limits.maxWriteZeroes);
    await this.#call(`zero ${offset}+${length}${options?.mayUnmap === true ? " unmap" : ""}`);
    this.#grow(offset + length);
    this.bytes.fill(0, offset, offset + length);
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#checkRange("discard", offset, length, this.limits.maxDiscard);
    await this.#call(`discard ${offset}+${length}`);
    this.bytes.fill(0, offset, offset + length);
  }

  async blockStatus(offset: number, length: number): Promise<BlockStatus> {
    this.#checkRange("status", offset, length, Number.MAX_SAFE_INTEGER);
    await this.#call(`status ${offset}+${length}`);
    const page = 4096;
    const isHole = (at: number): boolean => !this.bytes.subarray(at, at + page).some(Boolean);
    const first = offset - (offset % page);
    let end = first + page;
    while (end < offset + length && isHole(end) === isHole(first)) end += page;
    const zero = isHole(first);
    return {
      lengthBytes: Math.min(end - offset, length),
      allocated: true,
      data: !zero,
      zero,
      compressed: false,
      hostOffset: offset,
    };
  }

  async truncate(lengthBytes: number, _options?: TruncateOptions): Promise<void> {
    await this.#call(`truncate ${lengthBytes}`);
    this.#resize(lengthBytes);
  }

  async flushToOs(): Promise<void> {
    await this.#call("flush to os");
  }

  async flushToDisk(): Promise<void> {
    await this.#call("flush to disk");
  }

  async reopen(request: ReopenRequest): Promise<void> {
    const { held, shared } = request.permissions ?? this.permissions;
    await this.#call(`reopen ${request.readOnly ? "ro" : "rw"} ${held}/${shared}`);
    this.readOnly = request.readOnly;
    this.permissions = { held, shared };
  }

  async close(): Promise<void> {
    this.#world.open.delete(this.#filename);
    await this.#call("close");
  }

  #call(text: string): MaybePromise<void> {
    return this.#world.call(`${this.#filename} ${text}`);
  }

  #grow(lengthBytes: number): void {
    if (lengthBytes > this.lengthBytes) this.#resize(lengthBytes);
  }

  #resize(lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    bytes.set(this.bytes.subarray(0, lengthBytes));
    this.#world.files.set(this.#filename, bytes);
  }

  #checkVector(op: string, offset: number, vector: IoVector): void {
    this.#checkRange(op, offset, vector.lengthBytes, this.limits.maxTransfer);
    for (const part of vector.parts) {
      assert(isMemoryAligned(part, this.limits.memoryAlignment), `${op}: memory is aligned`);
    }
  }

  #checkRange(op: string, offset: number, length: number, max: number): void {
    const { requestAlignment } = this.limits;
    assert(length > 0 && length <= max, `${op}: length ${length} is within the limits`);
    assert(offset % requestAlignment === 0, `${op}: offset ${offset} is aligned`);
    assert(length % requestAlignment === 0, `${op}: length ${length} is aligned`);
  }
}

/** A promise that a test settles. */
export interface Gate {
  readonly opened: Promise<void>;
  open(): void;
  fail(error: unknown): void;
}

export function gate(): Gate {
  let open: () => void = () => undefined;
  let fail: (error: unknown) => void = () => undefined;
  const opened = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { opened, open, fail };
}

/** Lets everything that can go on do so. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
