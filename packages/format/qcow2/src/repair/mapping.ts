/**
 * Mending the mapping tables: entries that break rules, clusters that are two things at once.
 *
 * Above: repair.ts. Below: entries.ts decides, tables.ts edits.
 *
 * 1. What a guest can read stays readable, byte for byte, in the active disk and in snapshots. What it cannot read
 *    leaves the image, is listed, and reads as zeroes from then on.
 * 2. Guest data in a cluster that is metadata too is copied elsewhere; so is an L2 table that lies on other
 *    metadata, and what is referred to more often than a refcount can count. From then on the two live apart.
 * 3. Memory: two counters for each cluster of the file, MAX_BATCH_BYTES of tables, MAX_MOVES notes. The file grows by
 *    MAX_COPIED_BYTES at most: what would need more stays as it is, and is reported.
 *
 * 4. Every entry is judged before the first copy is made: what an entry names behind the end of the file must not turn
 *    into somebody's copy.
 *
 * Refcount tables and blocks are no metadata here: where they overlap with something they are built anew.
 */
import { divideRoundUp, hex, viewOf } from "@blocklayer/bytes";
import { Counters } from "../check/counters.js";
import type { Findings } from "../check/findings.js";
import {
  COMPRESSED_HIGH,
  compressedEntryHigh,
  compressedEntryLow,
  compressedLengthOf,
  compressedOffsetOf,
  ENTRY_BYTES,
  type Geometry,
  type HostOffset,
  hostOffsetOf,
  standardEntryHigh,
  standardEntryLow,
  ZERO_LOW,
} from "../geometry.js";
import { type EntryBounds, type Mend, mendL1Entry, mendL2Entry } from "./entries.js";
import { mendExtendedEntry } from "./extended-entries.js";
import type { EditedTable, Entry, L1Place, Tables } from "./tables.js";

/** What a cluster is used as, in bits. */
export const USE = { header: 1, l1: 2, snapshots: 4, bitmaps: 8, l2: 16 } as const;

/** Moves that are noted before they are carried out. */
const MAX_MOVES = 2 ** 18;
/** Copies of one repair, all in all. */
const MAX_COPIED_BYTES = 2 ** 30;

/** What a copy is of: a table is written to, so that it never serves as data too. */
type CopyKind = "table" | "data" | "compressed";

/** An entry that is to name a copy of what it names now. */
interface Move {
  readonly kind: CopyKind;
  /** Of the entry. */
  readonly at: HostOffset;
  readonly high: number;
  readonly low: number;
  readonly why: string;
}

/** A place that several entries may name, and how many do. */
interface SharedPlace {
  readonly hostOffset: HostOffset;
  shares: number;
}

export class MappingMender implements EntryBounds {
  readonly geometry: Geometry;
  /** Of the file before anything was appended: what an entry may name. */
  readonly fileLengthBytes: number;
  /** Entries that were made to keep the rules. */
  mended = 0;
  readonly #tables: Tables;
  readonly #findings: Findings;
  readonly #hasBacking: boolean;
  readonly #uses = new Counters({ refcountBits: 8, maxRefcount: 255 });
  readonly #claims: Counters;
  readonly #copies: Readonly<Record<CopyKind, Map<HostOffset, SharedPlace>>> = {
    table: new Map(),
    data: new Map(),
    compressed: new Map(),
  };
  #zeroes: SharedPlace | undefined;
  #moves: Move[] = [];
  #copiedBytes = 0;

  constructor(tables: Tables, findings: Findings, fileLengthBytes: number, hasBacking: boolean) {
    this.geometry = tables.geometry;
    this.fileLengthBytes = fileLengthBytes;
    this.#tables = tables;
    this.#findings = findings;
    this.#hasBacking = hasBacking;
    this.#claims = new Counters(tables.geometry);
  }

  contains(hostOffset: HostOffset, lengthBytes: number): boolean {
    // As a check counts: the last cluster of a file need not be whole.
    return hostOffset + lengthBytes - this.fileLengthBytes < this.geometry.clusterSize;
  }

  /** The same, with what was appended. */
  #willContain(hostOffset: HostOffset, lengthBytes: number): boolean {
    const end = this.#tables.plan.lengthBytes;
    return hostOffset + lengthBytes - end < this.geometry.clusterSize;
  }

  /** A structure lies at a place. What lies behind the end of the file is left out. */
  claim(use: number, hostOffset: HostOffset, lengthBytes: number): void {
    if (lengthBytes <= 0 || !this.#willContain(hostOffset, lengthBytes)) return;
    const { clusterSize } = this.geometry;
    const last = Math.floor((hostOffset + lengthBytes - 1) / clusterSize);
    for (let cluster = Math.floor(hostOffset / clusterSize); cluster <= last; cluster++) {
      this.#uses.set(cluster, this.#uses.get(cluster) | use);
      this.#claims.add(cluster, 1);
    }
  }

  /** Whether an L1 table lies apart from every other structure, so that it can be edited. */
  liesApart({ hostOffset, entryCount }: L1Place): boolean {
    const { clusterSize } = this.geometry;
    const last = Math.floor((hostOffset + entryCount * ENTRY_BYTES - 1) / clusterSize);
    if (!this.#willContain(hostOffset, entryCount * ENTRY_BYTES)) return false;
    for (let cluster = Math.floor(hostOffset / clusterSize); cluster <= last; cluster++) {
      if ((this.#uses.get(cluster) & ~USE.l1) !== 0) return false;
    }
    return true;
  }

  /** Mends every table that these L1 tables lead to. */
  async mend(places: readonly L1Place[]): Promise<void> {
    const sound = places.filter((place) => this.liesApart(place));
    const tables = this.#tables;
    const finish = (): Promise<void> => this.#carryOutMoves();
    for (const place of sound) {
      await tables.editL1(place, (high, low, index) => {
        const mend = mendL1Entry(this, high, low);
        if (mend !== undefined) this.#tell(mend, `${place.owner}L1 entry ${index}`);
        return mend;
      });
    }
    tables.startPass();
    for (const place of sound) {
      await tables.editL1(place, (high, low, index) => this.#separateL1(place, high, low, index));
      await finish();
    }
    tables.startPass();
    await tables.editL2(sound, (table) => this.#mendL2(table));
    tables.startPass();
    await tables.editL2(sound, (table) => this.#separateL2(table), finish);
  }

  #separateL1(place: L1Place, high: number, low: number, index: number): undefined {
    const offset = hostOffsetOf(high, low);
    const cluster = offset / this.geometry.clusterSize;
    const others = this.#uses.get(cluster) & ~USE.l2;
    const at = place.hostOffset + index * ENTRY_BYTES;
    let why: string | undefined;
    if (others !== 0) why = "its table lies on other metadata";
    else if (!this.#claims.tryAdd(cluster, 1))
      why = "its table is used more often than can be counted";
    if (why !== undefined) this.#noteMove({ kind: "table", at, high, low, why });
    if (others === 0) this.#uses.set(cluster, USE.l2);
    return undefined;
  }

  /** What has no room among the notes is left to the next round of the repair. */
  #noteMove(move: Move): void {
    if (this.#moves.length < MAX_MOVES) this.#moves.push(move);
  }

  #mendL2(table: EditedTable): void {
    const { l2EntrySize, subclusters } = this.geometry;
    for (let at = 0; at + ENTRY_BYTES <= table.lengthBytes; at += l2EntrySize) {
      const high = table.high(at);
      const low = table.low(at);
      const where = `L2 table ${hex(table.hostOffset)} entry ${at / l2EntrySize}`;
      if (subclusters > 1) {
        this.#mendExtended(table, at, where);
        continue;
      }
      if ((high === 0 && low === 0) || this.#isOwnZeroes(high, low)) continue;
      const mend = mendL2Entry(this, high, low);
      if (mend === undefined) continue;
      this.#tell(mend, where);
      const entry = mend.dropped ? this.#zeroesFor(mend, table.uses) : mend;
      table.set(at, entry.high, entry.low);
    }
  }

  #mendExtended(table: EditedTable, at: number, where: string): void {
    const bitmapAt = at + ENTRY_BYTES;
    const mend = mendExtendedEntry(this, {
      high: table.high(at),
      low: table.low(at),
      zeroes: table.high(bitmapAt),
      allocated: table.low(bitmapAt),
    });
    if (mend === undefined) return;
    this.#tell(mend, where);
    table.set(at, mend.high, mend.low);
    table.set(bitmapAt, mend.zeroes, mend.allocated);
  }

  #separateL2(table: EditedTable): void {
    const { l2EntrySize, clusterSize } = this.geometry;
    for (let at = 0; at + ENTRY_BYTES <= table.lengthBytes; at += l2EntrySize) {
      const high = table.high(at);
      const low = table.low(at);
      if (high === 0 && low === 0) continue;
      const why = this.#whyToMove(high, low, table.uses, clusterSize);
      if (why === undefined) continue;
      const kind = (high & COMPRESSED_HIGH) === 0 ? "data" : "compressed";
      this.#noteMove({ kind, at: table.hostOffset + at, high, low, why });
    }
  }

  /** Counts what an entry refers to. Tells why it should refer to a copy instead, if it should. */
  #whyToMove(high: number, low: number, times: number, clusterSize: number): string | undefined {
    const compressed = (high & COMPRESSED_HIGH) !== 0;
    const start = compressed
      ? compressedOffsetOf(this.geometry, high, low)
      : hostOffsetOf(high, low);
    if (!compressed && (start === 0 || this.geometry.externalData)) return undefined;
    const length = compressed ? compressedLengthOf(this.geometry, high, low) : clusterSize;
    const last = Math.floor((start + length - 1) / clusterSize);
    for (let cluster = Math.floor(start / clusterSize); cluster <= last; cluster++) {
      if (this.#uses.get(cluster) !== 0) return "its data lies on metadata";
      if (!this.#claims.tryAdd(cluster, times))
        return "its data is used more often than can be counted";
    }
    return undefined;
  }

  #tell(mend: Pick<Mend, "dropped" | "message">, where: string): void {
    this.mended++;
    if (mend.dropped) this.#findings.dropped(() => `Dropping ${where}: ${mend.message}`);
    else this.#findings.repaired(() => `Repairing ${mend.message}`);
  }

  /** Zeroes for what a version 2 image cannot say by a flag, where an older layer would come to light. */
  #zeroesFor(mend: Mend, times: number): Entry {
    if (this.geometry.version === 3 || !this.#hasBacking) return mend;
    const { clusterSize, maxRefcount } = this.geometry;
    if (this.#zeroes === undefined || this.#zeroes.shares + times > maxRefcount) {
      if (!this.#mayCopy(clusterSize)) return mend;
      const hostOffset = this.#tables.plan.append(new Uint8Array(clusterSize), clusterSize);
      this.#zeroes = { hostOffset, shares: 0 };
    }
    this.#zeroes.shares += times;
    return this.#entryFor(this.#zeroes.hostOffset, 0);
  }

  /** A table that is visited twice shows what the first visit put there. */
  #isOwnZeroes(high: number, low: number): boolean {
    if (this.#zeroes === undefined || (high & COMPRESSED_HIGH) !== 0) return false;
    return hostOffsetOf(high, low) === this.#zeroes.hostOffset;
  }

  async #carryOutMoves(): Promise<void> {
    const moves = this.#moves;
    this.#moves = [];
    for (const move of moves) {
      const entry = await this.#moved(move);
      if (entry === undefined) continue;
      const bytes = new Uint8Array(ENTRY_BYTES);
      viewOf(bytes).setUint32(0, entry.high);
      viewOf(bytes).setUint32(4, entry.low);
      await this.#tables.plan.patch(move.at, bytes);
      this.#keepSourceOf(move);
      this.mended++;
      const to = hex(hostOffsetOf(entry.high, entry.low));
      const where = `table entry at ${hex(move.at)}`;
      this.#findings.repaired(() => `Repairing ${where}: ${move.why}; copied to ${to}`);
    }
  }

  /** Where it is metadata, too, it may change: not before the entry that leads away from it is there. */
  #keepSourceOf(move: Move): void {
    const { clusterSize } = this.geometry;
    const [from, length] = this.#sourceOf(move);
    const last = Math.floor((from + length - 1) / clusterSize);
    for (let cluster = Math.floor(from / clusterSize); cluster <= last; cluster++) {
      if (this.#uses.get(cluster) === 0) continue;
      this.#tables.plan.keepUntil(move.at, cluster, clusterSize);
    }
  }

  #sourceOf({ kind, high, low }: Move): [from: HostOffset, lengthBytes: number] {
    const { geometry } = this;
    if (kind !== "compressed") return [hostOffsetOf(high, low), geometry.clusterSize];
    return [compressedOffsetOf(geometry, high, low), compressedLengthOf(geometry, high, low)];
  }

  /** The entry for a copy; `undefined` when there is no more room for copies. */
  async #moved(move: Move): Promise<Entry | undefined> {
    const [from, length] = this.#sourceOf(move);
    const to = await this.#copy(move.kind, from, length);
    if (to === undefined) return undefined;
    if (move.kind !== "compressed") return this.#entryFor(to, move.low & ZERO_LOW);
    return { high: compressedEntryHigh(this.geometry, to, length), low: compressedEntryLow(to) };
  }

  #entryFor(hostOffset: HostOffset, flags: number): Entry {
    return {
      high: standardEntryHigh(hostOffset, false),
      low: standardEntryLow(hostOffset, (flags & ZERO_LOW) !== 0),
    };
  }

  /**
   * A copy of a range as the file has it; one serves many, as far as its refcount can count. None is made where no entry
   * could name it: compressed entries have fewer bits for an offset, the larger the clusters are.
   */
  async #copy(
    kind: CopyKind,
    from: HostOffset,
    lengthBytes: number,
  ): Promise<HostOffset | undefined> {
    const known = this.#copies[kind].get(from);
    if (known !== undefined && known.shares < this.geometry.maxRefcount) {
      known.shares++;
      return known.hostOffset;
    }
    const { plan } = this.#tables;
    const { clusterSize, maxCompressedOffset } = this.geometry;
    if (kind === "compressed") {
      const room = plan.roomFor(divideRoundUp(lengthBytes, clusterSize), clusterSize);
      if (room * clusterSize + lengthBytes > maxCompressedOffset) return undefined;
    }
    if (!this.#mayCopy(lengthBytes)) return undefined;
    const bytes = await plan.readWritten(from, lengthBytes);
    const hostOffset = plan.append(bytes, clusterSize);
    this.#copies[kind].set(from, { hostOffset, shares: 1 });
    if (plan.isLarge) await plan.commitAppended();
    return hostOffset;
  }

  #mayCopy(lengthBytes: number): boolean {
    this.#copiedBytes += lengthBytes;
    return this.#copiedBytes <= MAX_COPIED_BYTES && this.#tables.plan.file.capabilities.truncate;
  }
}
