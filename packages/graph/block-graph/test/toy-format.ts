/**
 * A format for tests: a header of one cluster (magic, disk length, names of the backing file and its format), a
 * table of one cluster with a byte for each cluster of the disk, then the clusters at fixed places. The table is
 * cached until a flush.
 */
import {
  assert,
  BlockError,
  CorruptImageError,
  type IoVector,
  IoVector as Vector,
} from "@blocklayer/bytes";
import {
  type BackingReference,
  type BlockCapabilities,
  type BlockChild,
  type BlockDriver,
  type BlockStatus,
  type DriverDefinition,
  limitsOf,
  type ReopenRequest,
} from "@blocklayer/block-api";

export const TOY_CLUSTER = 4096;
const DATA_START = 2 * TOY_CLUSTER;

/** What a toy image says of itself. */
export interface ToyHeader {
  readonly lengthBytes: number;
  readonly backing?: BackingReference;
}

/** The bytes of an empty toy image. */
export function toyImage({ lengthBytes, backing }: ToyHeader): Uint8Array {
  const bytes = new Uint8Array(DATA_START);
  const header = `TOY1${JSON.stringify({ lengthBytes, backing })}`;
  bytes.set(new TextEncoder().encode(header));
  return bytes;
}

class ToyDriver implements BlockDriver {
  readonly driverName = "toy";
  readonly limits = limitsOf({ writeZeroesAlignment: TOY_CLUSTER, discardAlignment: TOY_CLUSTER });
  lengthBytes: number;
  readonly #file: BlockChild;
  readonly #backing: BlockChild | undefined;
  readonly #table: Uint8Array;
  #isDirty = false;
  #readOnly: boolean;

  constructor(
    file: BlockChild,
    backing: BlockChild | undefined,
    lengthBytes: number,
    table: Uint8Array,
    readOnly: boolean,
  ) {
    this.#file = file;
    this.#backing = backing;
    this.lengthBytes = lengthBytes;
    this.#table = table;
    this.#readOnly = readOnly;
  }

  get capabilities(): BlockCapabilities {
    const write = !this.#readOnly;
    return {
      write,
      compressedWrite: false,
      writeZeroes: false,
      discard: false,
      fua: false,
      truncate: false,
      backing: true,
    };
  }

  async readv(offset: number, target: IoVector): Promise<void> {
    for (const [at, length] of clusters(offset, target.lengthBytes)) {
      const part = target.slice(at - offset, at - offset + length);
      if (this.#table[index(at)] === 1) await this.#file.readv(DATA_START + at, part);
      else if (this.#backing !== undefined) await this.#backing.readv(at, part);
      else part.fill(0);
    }
  }

  async writev(offset: number, source: IoVector): Promise<void> {
    for (const [at, length] of clusters(offset, source.lengthBytes)) {
      const part = source.slice(at - offset, at - offset + length);
      if (this.#table[index(at)] !== 1) await this.#copyUp(index(at));
      await this.#file.writev(DATA_START + at, part);
    }
  }

  async #copyUp(cluster: number): Promise<void> {
    const old = Vector.allocate(TOY_CLUSTER);
    if (this.#backing !== undefined) await this.#backing.readv(cluster * TOY_CLUSTER, old);
    if (this.#table[cluster] === 1) return;
    this.#table[cluster] = 1;
    this.#isDirty = true;
    await this.#file.writev(DATA_START + cluster * TOY_CLUSTER, old);
  }

  writeZeroes(): never {
    throw new BlockError("ENOTSUP", "toy: no zeroes");
  }

  discard(): void {}

  blockStatus(offset: number, lengthBytes: number): BlockStatus {
    const allocated = this.#table[index(offset)] === 1;
    let end = (index(offset) + 1) * TOY_CLUSTER;
    while (end < offset + lengthBytes && (this.#table[index(end)] === 1) === allocated) {
      end += TOY_CLUSTER;
    }
    const length = Math.min(end - offset, lengthBytes);
    const plain = {
      lengthBytes: length,
      allocated,
      data: allocated,
      zero: false,
      compressed: false,
    };
    return allocated ? { ...plain, hostOffset: DATA_START + offset, recurse: true } : plain;
  }

  truncate(): never {
    throw new BlockError("ENOTSUP", "toy: fixed length");
  }

  async flushToOs(): Promise<void> {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    await this.#file.writev(TOY_CLUSTER, Vector.of(this.#table));
  }

  flushToDisk(): void {}

  reopen(request: ReopenRequest): void {
    this.#readOnly = request.readOnly;
  }

  close(): void {}
}

/** The `toy` driver. */
export const toyDriver: DriverDefinition = {
  name: "toy",
  kind: "format",
  openOptions: { "lazy-refcounts": { type: "boolean", help: "Nothing", default: false } },
  reopenOptions: ["lazy-refcounts"],
  probe: (head) => (new TextDecoder().decode(head.subarray(0, 4)) === "TOY1" ? 100 : 0),
  async open(context): Promise<BlockDriver> {
    const { file } = context.children;
    assert(file !== undefined, "a format has a file");
    const head = new Uint8Array(DATA_START);
    await file.readv(0, Vector.of(head));
    const text = new TextDecoder().decode(head.subarray(0, TOY_CLUSTER)).replaceAll("\0", "");
    if (!text.startsWith("TOY1")) {
      throw new CorruptImageError({ structure: "header", hostOffset: 0, rule: "magic is TOY1" });
    }
    const header = JSON.parse(text.slice(4)) as ToyHeader;
    const backing =
      header.backing === undefined
        ? context.children.backing
        : await context.openBacking(header.backing);
    const table = head.slice(TOY_CLUSTER);
    return new ToyDriver(file, backing, header.lengthBytes, table, context.readOnly);
  },
};

function index(offset: number): number {
  return Math.floor(offset / TOY_CLUSTER);
}

function* clusters(offset: number, length: number): Generator<readonly [number, number]> {
  for (let at = offset; at < offset + length; ) {
    const end = Math.min((index(at) + 1) * TOY_CLUSTER, offset + length);
    yield [at, end - at];
    at = end;
  }
}
