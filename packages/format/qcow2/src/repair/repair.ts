/**
 * Mending broken metadata.
 *
 * Above: the driver's `check` with `fix`, and opening a dirty image. Below: the other files of this folder, and the
 * check, which looks and never writes.
 *
 *     `all`:  snapshot table ─▶ bitmaps ─▶ mapping tables        decided in a plan, nothing written
 *             ─▶ references of the plan ─▶ appended copies       written, synced; nobody names them yet
 *             ─▶ refcounts raised, or the structure built anew   durable
 *             ─▶ COPIED flags ─▶ the plan                        durable, by write-order.ts: now the tables say what the
 *                                                                refcounts allow
 *             ─▶ refcounts lowered                               durable
 *             ─▶ a check of all of it ─▶ dirty and corrupt bits  cleared only when nothing is left
 *     `leaks`: references ─▶ refcounts lowered ─▶ COPIED flags, when nothing else is wrong
 *
 * 1. Guest data that can be read before is read the same after. What leaves the image is listed.
 * 2. A crash leaves an image that another repair mends: no refcount is too low for a reference that is new, no
 *    cluster is freed before its last reference is gone.
 * 3. Where something cannot be read, the references are not all known, and nothing is changed.
 * 4. Nobody else writes meanwhile, and the driver has no state of its own that the file does not have.
 *
 * Source: the qcow2 specification; behaviour and words of qemu-img 7.2 where it mends the same.
 */
import type { BlockChild, CheckOptions, CheckResult, RepairKind } from "@blocklayer/block-api";
import { divideRoundUp, viewOf } from "@blocklayer/bytes";
import { checkQcow2, countsOf, type Examination, examine, resultOf } from "../check/check.js";
import { checkRefcountBlocks, compareRefcounts } from "../check/compare.js";
import type { Counters } from "../check/counters.js";
import { Findings } from "../check/findings.js";
import { ENTRY_BYTES, geometryOf } from "../geometry.js";
import { hasFeature, INCOMPATIBLE, type Qcow2Header } from "../header/header.js";
import { findNamedBehindEnd } from "./behind-end.js";
import { mendBitmaps } from "./bitmaps.js";
import { passCopiedFlags } from "./copied-flags.js";
import { MappingMender, USE } from "./mapping.js";
import { PlannedFile } from "./planned-file.js";
import { isTableShared, needsRebuild, rebuildRefcounts } from "./rebuild.js";
import { changeRefcounts } from "./refcounts.js";
import { relocateL1 } from "./relocate-l1.js";
import { mendSnapshots } from "./snapshot-table.js";
import { type L1Place, Tables } from "./tables.js";

/** Where `l1_table_offset` lies in the header. */
const HEADER_L1_POSITION = 40;
/** L1 tables that are copied in one round, all in all: a hostile image may have many snapshots. */
const MAX_MOVED_L1_BYTES = 2 ** 28;
/** Where `incompatible_features` lies. */
const HEADER_INCOMPATIBLE_POSITION = 72;
/** What mends one thing can bring another to light: a table that was built anew no longer hides what it lay on. */
const MAX_ROUNDS = 3;

/** Options of a repair. */
export interface RepairOptions extends CheckOptions {
  readonly fix: RepairKind;
}

/** What a repair came to. */
export interface Repaired {
  readonly result: CheckResult;
  /** As it is on the disk now. */
  readonly header: Qcow2Header;
}

/**
 * Repairs an image.
 *
 * @param file - the image file, writable at any byte; when it can grow, it may
 * @param header - as decoded from it
 * @returns the counts of what is left and of what was mended
 * @throws BlockError of the file; `ENOSPC`, `EFBIG` when a new refcount structure has no room; `ENOMEM`, `ECANCELED`
 *
 * **After failure:** the image is as broken as before or less; another repair may go on.
 */
export async function repairQcow2(
  file: BlockChild,
  header: Qcow2Header,
  options: RepairOptions,
): Promise<Repaired> {
  const repair = new Repair(file, header, options);
  const result = options.fix === "leaks" ? await repair.leaks() : await repair.all();
  if (result.corruptions === 0 && result.checkErrors === 0) await repair.clearMarks();
  return { result, header: repair.header };
}

class Repair {
  header: Qcow2Header;
  readonly #file: BlockChild;
  readonly #options: RepairOptions;
  /** Everything that is told, in the order in which it is found and mended. */
  readonly #told: Findings;
  #corruptionsFixed = 0;
  #leaksFixed = 0;
  /** Clusters that this repair itself moved things out of: they were no leaks. */
  readonly #vacated = new Set<number>();

  constructor(file: BlockChild, header: Qcow2Header, options: RepairOptions) {
    this.#file = file;
    this.header = header;
    this.#options = options;
    this.#told = new Findings(options.onDropped);
  }

  /** Lowers refcounts that are too high. */
  async leaks(): Promise<CheckResult> {
    const seen = await examine(this.#file, this.header, this.#options);
    const { geometry, references, stored, findings: left } = seen;
    const unread = left.checkErrors > 0;
    const isBuiltWrong = this.#compare(seen, left);
    const highest = compareRefcounts(geometry, references, stored, left);
    const counts = (): Partial<CheckResult> => countsOf(seen, highest);
    if (unread || left.checkErrors > 0 || isBuiltWrong || needsRebuild(seen, this.header)) {
      if (!unread) left.error(() => "ERROR need to rebuild refcount structures");
      left.append(seen.copiedFindings);
      return this.#result(left, counts());
    }
    const plan = new PlannedFile(this.#file);
    const parts = { geometry, references, stored, plan };
    this.#told.append(left);
    let isShared = false;
    this.#leaksFixed = await changeRefcounts(parts, "lower", (cluster, refcount, found) => {
      isShared ||= found > 0;
      this.#noteRepair(cluster, refcount, found);
    });
    let copied = seen.copiedFindings.corruptions;
    if (copied > 0 || isShared) copied = await this.#mendCopied(seen, plan, left.corruptions === 0);
    return {
      ...this.#result(new Findings(), counts()),
      corruptions: left.corruptions + copied,
      leaks: left.leaks - this.#leaksFixed,
    };
  }

  /** Mends everything that can be mended. */
  async all(): Promise<CheckResult> {
    const first = await checkQcow2(this.#file, this.header, this.#options);
    if (first.corruptions + first.checkErrors === 0) return this.leaks();
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const before = this.#corruptionsFixed + this.#leaksFixed;
      const stopped = await this.#round();
      if (stopped !== undefined) return this.#result(stopped, {});
      const after = await checkQcow2(this.#file, this.header, this.#options);
      const isDone = after.corruptions + after.leaks === 0 || after.checkErrors > 0;
      if (isDone || this.#corruptionsFixed + this.#leaksFixed === before) {
        return this.#resultAfter(after);
      }
    }
    return this.#resultAfter(await checkQcow2(this.#file, this.header, this.#options));
  }

  /** Once through everything. Returns what keeps a repair from being possible at all. */
  async #round(): Promise<Findings | undefined> {
    const plan = new PlannedFile(this.#file);
    const clusters = divideRoundUp(plan.lengthBytes, geometryOf(this.header).clusterSize);
    const blocked = new Findings();
    const found = await examine(this.#file, this.header, this.#options);
    const { stored: old, references: before } = found;
    plan.avoid(await findNamedBehindEnd(plan, this.header, old, blocked, this.#options));
    if (blocked.checkErrors > 0) return blocked;
    await this.#mendTables(plan, blocked);
    const seen = await examine(plan.child, this.header, this.#options);
    seen.findings.append(blocked);
    if (seen.findings.checkErrors > 0) return seen.findings;
    await plan.commitAppended();
    const counted = await this.#raise(seen, plan, clusters, before.counters);
    if (counted instanceof Findings) return counted;
    await this.#mendCopied(counted, plan, true);
    await plan.commit();
    const { geometry, references, stored } = counted;
    const parts = { geometry, references, stored, plan };
    await changeRefcounts(parts, "lower", (cluster, refcount, found) => {
      this.#noteRepair(cluster, refcount, found);
      // Behind a rebuild these are the old structure, and what leaked before: QEMU counts them as part of it.
      if (counted === seen && !this.#vacated.has(cluster)) this.#leaksFixed++;
    });
    return undefined;
  }

  /** Snapshot table, bitmaps, mapping tables: into the plan. */
  async #mendTables(plan: PlannedFile, blocked: Findings): Promise<void> {
    const told = this.#told;
    const fileLengthBytes = plan.lengthBytes;
    const snapshots = await mendSnapshots(plan, this.header, told);
    if (snapshots.header !== this.header)
      this.#vacate(this.header.snapshotsOffset, snapshots.oldBytes);
    const bitmaps = await mendBitmaps(plan, snapshots.header, told, this.#options);
    this.header = bitmaps.header;
    const geometry = geometryOf(this.header);
    const claimAll = (places: readonly L1Place[]): MappingMender => {
      const tables = new Tables(geometry, plan, this.#activeL1(), blocked, this.#options);
      const hasBacking = this.header.backingFilename !== undefined;
      const mender = new MappingMender(tables, told, fileLengthBytes, hasBacking);
      const { clusterSize } = geometry;
      mender.claim(USE.header, 0, clusterSize);
      mender.claim(USE.snapshots, this.header.snapshotsOffset, snapshots.lengthBytes);
      for (const cluster of bitmaps.clusters) {
        mender.claim(USE.bitmaps, cluster * clusterSize, clusterSize);
      }
      for (const { hostOffset, entryCount } of places) {
        mender.claim(USE.l1, hostOffset, entryCount * ENTRY_BYTES);
      }
      return mender;
    };
    let places: readonly L1Place[] = [this.#activeL1(), ...snapshots.places].filter(
      ({ entryCount }) => entryCount > 0,
    );
    let mender = claimAll(places);
    const apart = await this.#moveL1s(plan, mender, places);
    if (apart !== places) mender = claimAll(apart);
    places = apart;
    await mender.mend(places);
    this.#corruptionsFixed += snapshots.mended + bitmaps.mended + mender.mended;
  }

  #vacate(hostOffset: number, lengthBytes: number): void {
    const { clusterSize } = geometryOf(this.header);
    const end = Math.min(hostOffset + lengthBytes, this.#file.lengthBytes);
    for (let at = hostOffset; at < end; at += clusterSize) this.#vacated.add(at / clusterSize);
  }

  /** Copies L1 tables that do not lie apart. Returns the same list when all of them do. */
  async #moveL1s(
    plan: PlannedFile,
    mender: MappingMender,
    places: readonly L1Place[],
  ): Promise<readonly L1Place[]> {
    const moved: L1Place[] = [];
    let copiedBytes = 0;
    for (const place of places) {
      copiedBytes += mender.liesApart(place) ? 0 : place.entryCount * ENTRY_BYTES;
      if (mender.liesApart(place) || copiedBytes > MAX_MOVED_L1_BYTES) {
        moved.push(place);
        continue;
      }
      const copy = await relocateL1(plan, geometryOf(this.header), place, this.#told);
      if (place.owner === "") this.header = { ...this.header, l1TableOffset: copy.hostOffset };
      this.#corruptionsFixed++;
      this.#vacate(place.hostOffset, place.entryCount * ENTRY_BYTES);
      moved.push(copy);
      if (plan.isLarge) await plan.commitAppended();
    }
    return copiedBytes === 0 ? places : moved;
  }

  /** Refcounts that are too low, or a structure that cannot be mended where it lies. */
  async #raise(
    seen: Examination,
    plan: PlannedFile,
    oldClusters: number,
    before: Counters,
  ): Promise<Examination | Findings> {
    const { geometry, references, stored } = seen;
    const parts = { geometry, references, stored, plan };
    const left = new Findings();
    const isBuiltWrong = this.#compare(seen, left);
    compareRefcounts(geometry, references, stored, left);
    this.#told.append(left);
    const isSuspect = isBuiltWrong || isTableShared(seen, this.header);
    if (!isSuspect && !needsRebuild(seen, this.header, oldClusters)) {
      await changeRefcounts(parts, "raise", (cluster, refcount, found) => {
        // What was appended has its first refcount: nothing was wrong with it.
        if (cluster >= oldClusters) return;
        this.#corruptionsFixed++;
        this.#noteRepair(cluster, refcount, found);
      });
      return seen;
    }
    this.#told.repaired(() => "Rebuilding refcount structure");
    this.header = await rebuildRefcounts({ ...parts, before }, this.header);
    this.#corruptionsFixed += left.corruptions;
    const again = await examine(plan.child, this.header, this.#options);
    checkRefcountBlocks(again.geometry, again.references, again.stored, again.findings);
    return again.findings.checkErrors > 0 ? again.findings : again;
  }

  /** Counts the references to refcount blocks. Returns whether a block or its entry breaks a rule. */
  #compare({ geometry, references, stored }: Examination, left: Findings): boolean {
    const before = left.corruptions;
    checkRefcountBlocks(geometry, references, stored, left);
    return left.corruptions > before;
  }

  /** Returns how many COPIED flags are wrong still. */
  async #mendCopied(
    { geometry, references }: Examination,
    plan: PlannedFile,
    mend: boolean,
  ): Promise<number> {
    const blocked = new Findings();
    const tables = new Tables(geometry, plan, this.#activeL1(), blocked, this.#options);
    const wrong = await passCopiedFlags(tables, { references, findings: this.#told, mend });
    if (!mend) return wrong;
    await plan.commit();
    this.#corruptionsFixed += wrong;
    return 0;
  }

  #activeL1(): L1Place {
    const { l1TableOffset, l1Size } = this.header;
    const pointerAt = HEADER_L1_POSITION;
    return { hostOffset: l1TableOffset, entryCount: l1Size, owner: "", pointerAt };
  }

  #noteRepair(cluster: number, refcount: number, found: number): void {
    this.#told.repaired(
      () => `Repairing cluster ${cluster} refcount=${refcount} reference=${found}`,
    );
  }

  /** Clears the dirty and the corrupt bit, durably. */
  async clearMarks(): Promise<void> {
    const marks = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt;
    if (!hasFeature(this.header.incompatible, marks)) return;
    const incompatible = this.header.incompatible & ~marks;
    const field = new Uint8Array(8);
    viewOf(field).setBigUint64(0, incompatible);
    await this.#file.flush();
    await new PlannedFile(this.#file).writeThrough(HEADER_INCOMPATIBLE_POSITION, field);
    await this.#file.flush();
    this.header = { ...this.header, incompatible };
  }

  /** A result whose findings are those told so far and these. */
  #result(left: Findings, counts: Partial<CheckResult>): CheckResult {
    const { corruptions, leaks, checkErrors } = left;
    this.#told.append(left);
    return {
      ...resultOf(this.#told, counts),
      corruptions,
      leaks,
      checkErrors,
      corruptionsFixed: this.#corruptionsFixed,
      leaksFixed: this.#leaksFixed,
    };
  }

  #resultAfter(after: CheckResult): CheckResult {
    return {
      ...after,
      corruptionsFixed: this.#corruptionsFixed,
      leaksFixed: this.#leaksFixed,
      findings: [...this.#told.list, ...after.findings],
      findingsOmitted: this.#told.omitted + after.findingsOmitted,
    };
  }
}
