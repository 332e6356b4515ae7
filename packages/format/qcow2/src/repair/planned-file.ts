/**
 * An image file with changes that are decided and not written yet.
 *
 * Above: every part of a repair. Below: the image file.
 *
 * A repair first decides, then writes in an order that a crash cannot hurt. In between, whoever reads through
 * `child` sees the file as it will be.
 *
 * 1. Changes are kept by sectors: a sector is written whole, and nothing else of the file.
 * 2. What is appended is written and synced before anything that may name it.
 * 3. Memory is bounded: whoever adds many changes asks `isLarge`, and commits.
 * 4. `append` never takes room that the file has: what lies there may be all that is left of something. Nor room that
 *    an entry names already.
 * 5. What was copied does not change before the entry that names the copy is durable.
 */
import type { BlockChild, BlockStatus, BlockStatusOptions } from "@blocklayer/block-api";
import {
  alignUp,
  assert,
  BlockError,
  divideRoundUp,
  IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import type { HostOffset } from "../geometry.js";
import type { NamedBehindEnd } from "./behind-end.js";
import { WriteOrder } from "./write-order.js";

/** Changes that are worth committing early. */
const MAX_PLANNED_BYTES = 64 * 2 ** 20;
/** Longest single write. */
const MAX_WRITE_BYTES = 2 ** 20;

export class PlannedFile {
  readonly file: BlockChild;
  /** The file with every change in place, for reading. */
  readonly child: BlockChild;
  readonly #sectors = new Map<number, Uint8Array>();
  /** Where the file ends on the disk, and from where on sectors are appended ones. */
  #writtenEnd: number;
  #end: number;
  /** Known before anything is appended. */
  #named: NamedBehindEnd | undefined;
  #order: WriteOrder | undefined;

  constructor(file: BlockChild) {
    this.file = file;
    this.#writtenEnd = file.lengthBytes;
    this.#end = file.lengthBytes;
    const end = (): number => this.#end;
    this.child = {
      nodeName: file.nodeName,
      get lengthBytes() {
        return end();
      },
      limits: file.limits,
      capabilities: { ...file.capabilities, write: false },
      readv: async (offset, target, options) => {
        const bytes = await this.read(offset, target.lengthBytes, options?.signal);
        target.copyFrom(bytes);
      },
      writev: refuse,
      writeZeroes: refuse,
      discard: refuse,
      truncate: refuse,
      blockStatus: (offset, lengthBytes, options) => this.#status(offset, lengthBytes, options),
      flush: refuse,
    };
  }

  /** Where the file will end. */
  get lengthBytes(): number {
    return this.#end;
  }

  get isEmpty(): boolean {
    return this.#sectors.size === 0;
  }

  /** Whether so much is planned that it is time to commit. */
  get isLarge(): boolean {
    return this.#sectors.size * SECTOR_SIZE_BYTES > MAX_PLANNED_BYTES;
  }

  /** The bytes of a range as they will be; zeroes behind the end. */
  async read(
    hostOffset: HostOffset,
    lengthBytes: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const bytes = await this.readWritten(hostOffset, lengthBytes, signal);
    if (this.#sectors.size === 0) return bytes;
    const first = Math.floor(hostOffset / SECTOR_SIZE_BYTES);
    const last = Math.floor((hostOffset + lengthBytes - 1) / SECTOR_SIZE_BYTES);
    for (let sector = first; sector <= last; sector++) {
      const planned = this.#sectors.get(sector);
      if (planned === undefined) continue;
      const at = sector * SECTOR_SIZE_BYTES - hostOffset;
      const skip = Math.max(0, -at);
      bytes.set(planned.subarray(skip, lengthBytes - at), at + skip);
    }
    return bytes;
  }

  /** The bytes of a range as the file has them now; zeroes behind its end. */
  async readWritten(
    hostOffset: HostOffset,
    lengthBytes: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    const inside = Math.min(lengthBytes, Math.max(0, this.file.lengthBytes - hostOffset));
    if (inside > 0) {
      const target = IoVector.of(bytes.subarray(0, inside));
      await this.file.readv(hostOffset, target, signal === undefined ? undefined : { signal });
    }
    return bytes;
  }

  /** Plans a change of any bytes in the file. */
  async patch(hostOffset: HostOffset, bytes: Uint8Array): Promise<void> {
    const start = hostOffset - (hostOffset % SECTOR_SIZE_BYTES);
    const end = alignUp(hostOffset + bytes.length, SECTOR_SIZE_BYTES);
    const whole = await this.read(start, end - start);
    whole.set(bytes, hostOffset - start);
    for (let at = start; at < end; at += SECTOR_SIZE_BYTES) {
      this.putSector(at, whole.slice(at - start, at - start + SECTOR_SIZE_BYTES));
    }
    this.#end = Math.max(this.#end, hostOffset + bytes.length);
  }

  /** Plans the content of one sector. The bytes are the plan's from here on. */
  putSector(hostOffset: HostOffset, bytes: Uint8Array): void {
    assert(hostOffset % SECTOR_SIZE_BYTES === 0, "a sector starts at a multiple of its size");
    this.#sectors.set(hostOffset / SECTOR_SIZE_BYTES, bytes);
  }

  /**
   * Plans new bytes behind everything, at the start of a cluster.
   *
   * @returns where
   * @throws BlockError `ENOSPC`, `EFBIG` when the file cannot grow
   */
  append(bytes: Uint8Array, clusterSize: number): HostOffset {
    if (!this.file.capabilities.truncate) {
      throw new BlockError("ENOSPC", `repair: '${this.file.nodeName}' cannot grow`, {
        op: "check",
        node: this.file.nodeName,
      });
    }
    const start = this.roomFor(divideRoundUp(bytes.length, clusterSize), clusterSize) * clusterSize;
    const padded = new Uint8Array(alignUp(bytes.length, clusterSize));
    padded.set(bytes);
    for (let at = 0; at < padded.length; at += SECTOR_SIZE_BYTES) {
      this.putSector(start + at, padded.slice(at, at + SECTOR_SIZE_BYTES));
    }
    this.#end = start + padded.length;
    return start;
  }

  /** Says which places behind the end nothing may be put to. */
  avoid(named: NamedBehindEnd): void {
    this.#named = named;
  }

  /** Says that the planned entry at `entryAt` names a copy of a cluster, which is read where it lies until then. */
  keepUntil(entryAt: HostOffset, cluster: number, clusterSize: number): void {
    this.#order ??= new WriteOrder(clusterSize);
    this.#order.keepUntil(entryAt, cluster);
  }

  /**
   * The first cluster of a run behind the end, which nothing names.
   *
   * @throws BlockError `ENOSPC`, `EFBIG`
   */
  roomFor(clusterCount: number, clusterSize: number): number {
    const end = divideRoundUp(this.#end, clusterSize);
    const start = this.#named?.runFrom(end, clusterCount) ?? end;
    if (Number.isSafeInteger((start + clusterCount) * clusterSize)) return start;
    throw new BlockError("EFBIG", `repair: '${this.file.nodeName}' would end behind 2^53 - 1`, {
      op: "check",
      node: this.file.nodeName,
    });
  }

  /** Writes now, durably, past the plan; the plan keeps agreeing with the file. */
  async writeThrough(hostOffset: HostOffset, bytes: Uint8Array): Promise<void> {
    await this.file.writev(hostOffset, IoVector.of(bytes));
    const first = Math.floor(hostOffset / SECTOR_SIZE_BYTES);
    const last = Math.floor((hostOffset + bytes.length - 1) / SECTOR_SIZE_BYTES);
    for (let sector = first; sector <= last; sector++) {
      const at = sector * SECTOR_SIZE_BYTES - hostOffset;
      const part = bytes.subarray(Math.max(0, at), at + SECTOR_SIZE_BYTES);
      this.#sectors.get(sector)?.set(part, Math.max(0, -at));
    }
    this.#end = Math.max(this.#end, this.file.lengthBytes);
    this.#writtenEnd = Math.max(this.#writtenEnd, hostOffset + bytes.length);
  }

  /** Writes what was appended, durably. Nothing in the file names it yet. */
  async commitAppended(): Promise<void> {
    if (this.#end <= this.#writtenEnd) return;
    await this.#write((sector) => sector * SECTOR_SIZE_BYTES >= this.#writtenEnd);
    await this.file.flush();
    this.#writtenEnd = this.#end;
  }

  /** Writes all that is planned, in safe order, and durably. */
  async commit(): Promise<void> {
    await this.commitAppended();
    if (this.#sectors.size === 0) return;
    const all = this.#sectors.keys();
    for (const step of this.#order?.stepsFor(all) ?? [new Set(all)]) {
      await this.#write((sector) => step.has(sector));
      await this.file.flush();
    }
    this.#order = undefined;
  }

  /** Writes sectors in the order of the file, neighbours together, and forgets them. */
  async #write(wanted: (sector: number) => boolean): Promise<void> {
    const chosen = [...this.#sectors.keys()].filter(wanted).sort((a, b) => a - b);
    for (let i = 0; i < chosen.length; ) {
      const first = chosen[i] as number;
      const parts: Uint8Array[] = [];
      while (
        chosen[i] === first + parts.length &&
        parts.length * SECTOR_SIZE_BYTES < MAX_WRITE_BYTES
      ) {
        parts.push(this.#sectors.get(chosen[i++] as number) as Uint8Array);
      }
      const at = first * SECTOR_SIZE_BYTES;
      // A file that ends within a sector keeps its length: readers of its last bytes see zeroes either way.
      await this.file.writev(at, IoVector.from(parts).slice(0, this.#roomAt(at, parts.length)));
    }
    for (const sector of chosen) this.#sectors.delete(sector);
  }

  /** As the file has it; what is planned is data. */
  #status(
    hostOffset: HostOffset,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    const inFile = Math.min(lengthBytes, this.file.lengthBytes - hostOffset);
    if (inFile > 0 && !this.#isPlanned(hostOffset, inFile)) {
      return this.file.blockStatus(hostOffset, inFile, options);
    }
    return {
      lengthBytes: inFile > 0 ? inFile : lengthBytes,
      allocated: true,
      data: true,
      zero: false,
      compressed: false,
    };
  }

  #isPlanned(hostOffset: HostOffset, lengthBytes: number): boolean {
    const first = Math.floor(hostOffset / SECTOR_SIZE_BYTES);
    const last = Math.floor((hostOffset + lengthBytes - 1) / SECTOR_SIZE_BYTES);
    if (last - first < this.#sectors.size) {
      for (let sector = first; sector <= last; sector++) if (this.#sectors.has(sector)) return true;
      return false;
    }
    for (const sector of this.#sectors.keys()) if (sector >= first && sector <= last) return true;
    return false;
  }

  #roomAt(hostOffset: HostOffset, sectors: number): number {
    return Math.min(
      sectors * SECTOR_SIZE_BYTES,
      Math.max(this.#end, this.file.lengthBytes) - hostOffset,
    );
  }
}

function refuse(): never {
  throw new BlockError("EROFS", "repair: a plan is changed by its own methods alone");
}
