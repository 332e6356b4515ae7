/**
 * The mapping tables of an image as something to be edited: every L1 entry, every L2 table once.
 *
 * Above: mapping.ts, copied-flags.ts. Below: planned-file.ts, check/table-reader.ts.
 *
 * 1. L2 tables are visited in the order of the file, MAX_BATCH_BYTES of them at a time; one that several L1
 *    entries name is visited once in a batch, and whoever edits does the same to it a second time: nothing.
 * 2. Only whole, aligned tables in the file are visited: mapping.ts mends the L1 entries first.
 * 3. The reads of one pass are bounded by one reader's budget, as those of a check are: whoever begins another pass
 *    over everything says so. What is not read is not edited.
 * 4. A table is edited where it lies, also when snapshots share it: an entry that is broken is so for all of them.
 */
import { SECTOR_SIZE_BYTES, viewOf } from "@blocklayer/bytes";
import type { RequestOptions } from "@blocklayer/block-api";
import type { Findings } from "../check/findings.js";
import { TableReader } from "../check/table-reader.js";
import { ENTRY_BYTES, type Geometry, type HostOffset, hostOffsetOf } from "../geometry.js";
import type { PlannedFile } from "./planned-file.js";

/** L2 tables that are looked at together. */
const MAX_BATCH_BYTES = 16 * 2 ** 20;

/** Where an L1 table lies, and whose it is. */
export interface L1Place {
  readonly hostOffset: HostOffset;
  readonly entryCount: number;
  /** For messages: `snapshot 1 (name)`; empty for the active one. */
  readonly owner: string;
  /** Where 8 bytes name `hostOffset`: in the header, or in the snapshot table. */
  readonly pointerAt: HostOffset;
}

/** Two halves of a changed entry. */
export interface Entry {
  readonly high: number;
  readonly low: number;
}

/** Looks at one L1 entry that is not 0; what it returns takes its place. */
export type L1Editor = (high: number, low: number, index: number) => Entry | undefined;

/** One L2 table while it is visited. */
export class EditedTable {
  readonly hostOffset: HostOffset;
  readonly lengthBytes: number;
  /** L1 entries that name it, in this batch. */
  readonly uses: number;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #changed = new Set<number>();

  constructor(hostOffset: HostOffset, bytes: Uint8Array, uses: number) {
    this.hostOffset = hostOffset;
    this.lengthBytes = bytes.length;
    this.uses = uses;
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  high(at: number): number {
    return this.#view.getUint32(at);
  }

  low(at: number): number {
    return this.#view.getUint32(at + 4);
  }

  set(at: number, high: number, low: number): void {
    this.#view.setUint32(at, high);
    this.#view.setUint32(at + 4, low);
    this.#changed.add(Math.floor(at / SECTOR_SIZE_BYTES));
  }

  /** Hands the changed sectors to the plan. */
  planInto(plan: PlannedFile): void {
    for (const sector of this.#changed) {
      const at = sector * SECTOR_SIZE_BYTES;
      plan.putSector(this.hostOffset + at, this.#bytes.slice(at, at + SECTOR_SIZE_BYTES));
    }
  }
}

export type L2Editor = (table: EditedTable) => void;

export class Tables {
  readonly geometry: Geometry;
  readonly plan: PlannedFile;
  readonly active: L1Place;
  readonly #findings: Findings;
  readonly #options: RequestOptions;
  #reader: TableReader;

  constructor(
    geometry: Geometry,
    plan: PlannedFile,
    active: L1Place,
    findings: Findings,
    options: RequestOptions,
  ) {
    this.geometry = geometry;
    this.plan = plan;
    this.active = active;
    this.#findings = findings;
    this.#options = options;
    this.#reader = this.#newReader();
  }

  /** Begins another pass. */
  startPass(): void {
    this.#reader = this.#newReader();
  }

  /** Visits the entries of one L1 table that are not 0. */
  async editL1(place: L1Place, edit: L1Editor): Promise<void> {
    const bytes = await this.#readL1(this.#reader, place);
    const view = viewOf(bytes);
    const sectors = new Set<number>();
    for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if (high === 0 && low === 0) continue;
      const changed = edit(high, low, at / ENTRY_BYTES);
      if (changed === undefined) continue;
      view.setUint32(at, changed.high);
      view.setUint32(at + 4, changed.low);
      sectors.add(Math.floor(at / SECTOR_SIZE_BYTES));
    }
    for (const sector of sectors) {
      const at = sector * SECTOR_SIZE_BYTES;
      await this.plan.patch(place.hostOffset + at, bytes.subarray(at, at + SECTOR_SIZE_BYTES));
    }
  }

  /**
   * Visits every L2 table that these L1 tables name.
   *
   * @param afterBatch - what cannot be done within a visit
   */
  async editL2(
    places: readonly L1Place[],
    edit: L2Editor,
    afterBatch: () => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    const reader = this.#reader;
    const { clusterSize } = this.geometry;
    const batch = new Map<HostOffset, number>();
    const visit = async (): Promise<void> => {
      await this.#visitBatch(reader, batch, edit);
      await afterBatch();
      if (this.plan.isLarge) await this.plan.commit();
      batch.clear();
    };
    for (const place of places) {
      const bytes = await this.#readL1(reader, place);
      const view = viewOf(bytes);
      for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
        const offset = hostOffsetOf(view.getUint32(at), view.getUint32(at + 4));
        if (offset === 0 || offset % clusterSize !== 0) continue;
        if (offset >= this.plan.lengthBytes) continue;
        batch.set(offset, (batch.get(offset) ?? 0) + 1);
        if (batch.size * clusterSize >= MAX_BATCH_BYTES) await visit();
      }
    }
    if (batch.size > 0) await visit();
  }

  async #visitBatch(
    reader: TableReader,
    batch: ReadonlyMap<HostOffset, number>,
    edit: L2Editor,
  ): Promise<void> {
    const offsets = [...batch.keys()].sort((a, b) => a - b);
    const { clusterSize } = this.geometry;
    await reader.readMany("check_refcounts_l2", offsets, clusterSize, (offset, bytes) => {
      const table = new EditedTable(offset, bytes, batch.get(offset) ?? 1);
      edit(table);
      table.planInto(this.plan);
    });
  }

  async #readL1(reader: TableReader, { hostOffset, entryCount }: L1Place): Promise<Uint8Array> {
    const length = entryCount * ENTRY_BYTES;
    const bytes = await reader.readSparse("check_refcounts_l1", hostOffset, length, 1);
    return bytes ?? new Uint8Array(0);
  }

  #newReader(): TableReader {
    return new TableReader(this.plan.child, this.#findings, this.#options);
  }
}
