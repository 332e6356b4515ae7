/**
 * A tiny copy-on-write disk over a byte store: sector 0 of the store is the table of a guest disk of 16 sectors
 * (a 32-bit big-endian host sector each, 0: zeroes), the rest is data. Small enough to be seen right, and with
 * the defects of real drivers on demand.
 */
import { IoVector } from "@blocklayer/bytes";
import { plainly, type SimDisk } from "../src/index.js";

export const TOY_SECTORS = 16;
export const SECTOR = 512;

export interface ToyDefects {
  /** The table is written as soon as it changes, before the data is durable. */
  readonly tableBeforeData?: boolean;
  /** A flush does not sync at its end. */
  readonly lazyFlush?: boolean;
  /** A host sector is used again while the durable table still names it. */
  readonly reuseAtOnce?: boolean;
}

export class ToyDisk {
  readonly #disk: SimDisk;
  readonly #defects: ToyDefects;
  readonly #table = new DataView(new ArrayBuffer(SECTOR));
  readonly #free: number[] = [];
  #next = 1;

  constructor(disk: SimDisk, defects: ToyDefects = {}) {
    this.#disk = disk;
    this.#defects = defects;
    plainly(disk.readv(0, IoVector.of(new Uint8Array(this.#table.buffer))));
    for (let sector = 0; sector < TOY_SECTORS; sector++) {
      this.#next = Math.max(this.#next, this.#host(sector) + 1);
    }
  }

  writev(offset: number, source: IoVector): void {
    for (let at = 0; at < source.lengthBytes; at += SECTOR) {
      this.#writeSector((offset + at) / SECTOR, source.slice(at, at + SECTOR));
    }
  }

  writeZeroes(offset: number, lengthBytes: number): void {
    for (let at = 0; at < lengthBytes; at += SECTOR) this.#point((offset + at) / SECTOR, 0);
  }

  discard(offset: number, lengthBytes: number): void {
    this.writeZeroes(offset, lengthBytes);
  }

  flush(): void {
    if (this.#defects.tableBeforeData !== true) plainly(this.#disk.flushToDisk());
    this.#writeTable();
    if (this.#defects.lazyFlush !== true) plainly(this.#disk.flushToDisk());
  }

  content(): Uint8Array {
    const bytes = new Uint8Array(TOY_SECTORS * SECTOR);
    for (let sector = 0; sector < TOY_SECTORS; sector++) {
      const host = this.#host(sector);
      const target = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      if (host !== 0) plainly(this.#disk.readv(host * SECTOR, IoVector.of(target)));
    }
    return bytes;
  }

  #host(sector: number): number {
    return this.#table.getUint32(sector * 4);
  }

  #writeSector(sector: number, source: IoVector): void {
    const host = this.#free.pop() ?? this.#next++;
    plainly(this.#disk.writev(host * SECTOR, source));
    this.#point(sector, host);
  }

  #point(sector: number, host: number): void {
    const old = this.#host(sector);
    this.#table.setUint32(sector * 4, host);
    if (old !== 0 && this.#defects.reuseAtOnce === true) this.#free.push(old);
    if (this.#defects.tableBeforeData === true) this.#writeTable();
  }

  #writeTable(): void {
    plainly(this.#disk.writev(0, IoVector.of(new Uint8Array(this.#table.buffer))));
  }
}
