// What may be found of an image that is changed as a whole: its disk, its snapshots, its bitmaps, its header.
//
// 1. The disk has *epochs*: one that a snapshot was brought back to, or that was made shorter, is another disk from then
//    on. After a crash it is the one of before or the one of after, never a mixture.
// 2. A snapshot holds exactly what the disk held when it was made: it is there once its making has ended, and gone once its
//    deleting has.
// 3. Bitmaps are stored all at once. What the file has of them is one of those stores; each is as it was stored, or is
//    marked as in use, once something has begun that it does not cover. One that is not marked, and records, covers every
//    sector that is not what it was when the bitmap was last clean.
// 4. Of the header's fields each is of before or of after.
import { History } from "./history.mjs";
import { Violation } from "./guest-run.mjs";

const SECTOR = 512;

/**
 * @typedef {object} BitmapModel
 * @property {number} granularityBytes
 * @property {boolean} recording
 * @property {Uint8Array} must - by sector: it was written while the bitmap recorded
 * @property {Uint8Array} exempt - by sector: it was written while the bitmap did not record
 * @property {Uint8Array} baseline - the disk when the bitmap was last clean
 * @property {number} inUseFrom - of what is stored: it may be found marked from then on
 *
 * @typedef {object} Found - what lies in a file
 * @property {Uint8Array} bytes - of the disk
 * @property {{ name: string, bytes: Uint8Array }[]} snapshots
 * @property {{ name: string, granularityBytes: number, recording: boolean, inconsistent: boolean, dirty: Uint8Array }[]}
 *   bitmaps - `dirty` by sector; undefined for one that is inconsistent
 * @property {Record<string, unknown>} header
 * @property {boolean} dirty - marked for a repair
 * @property {boolean} hasWrongFlags - COPIED is not what the refcounts say
 */

export class UpkeepModel {
  #trace;
  /** @type {{ name: string, bytes: Uint8Array, start: number, end: number, deleteStart: number, deleteEnd: number }[]} */
  snapshots = [];
  /** @type {Map<string, BitmapModel>} as they are in memory */
  bitmaps = new Map();
  /** @type {History<Map<string, BitmapModel>>} as they are in the file */
  stored = new History(new Map());
  /** A write failed that may have marked bitmaps as in use all the same: who does not write then does not unmark them. */
  marksMayStay = false;
  /** When COPIED flags may be wrong: while snapshots are made and deleted. */
  #flagged = [];

  /**
   * @param {import("./config.mjs").SimConfig} config
   * @param {import("@blocklayer/sim").ReferenceDisk} reference
   * @param {import("@blocklayer/sim").Trace} trace
   * @param {string | undefined} backingName
   */
  constructor(config, reference, trace, backingName) {
    this.#trace = trace;
    this.disks = new History(reference);
    this.header = {
      version: new History(config.version),
      refcountBits: new History(config.refcountBits),
      lazyRefcounts: new History(config.lazyRefcounts === true),
      backing: new History(backingName),
    };
  }

  /** The next moment. `tightens`: what is known from here on is more. */
  tick(label, tightens = false) {
    return this.#trace.mark(label, undefined, { tightens });
  }

  get liveSnapshots() {
    const never = Number.POSITIVE_INFINITY;
    return this.snapshots.filter(({ end, deleteStart }) => end !== never && deleteStart === never);
  }

  /** From `start` to `end` flags may be wrong. */
  flagWrong(start) {
    const span = { start, end: Number.POSITIVE_INFINITY };
    this.#flagged.push(span);
    return span;
  }

  /** Something changes, or is about to: bitmaps that record may be marked from here on; all of them when the length changes. */
  noteChange(isResize = false) {
    const now = this.tick("the image changes");
    for (const { value } of this.stored.entries) {
      for (const [name, bitmap] of value) {
        const recording = bitmap.recording || this.bitmaps.get(name)?.recording === true;
        if (isResize || recording) bitmap.inUseFrom = Math.min(bitmap.inUseFrom, now);
      }
    }
  }

  /** A request of the guest to a range begins. @returns what is to be called when it has succeeded */
  noteRequest(offset, length) {
    this.noteChange();
    const first = Math.floor(offset / SECTOR);
    const end = Math.ceil((offset + length) / SECTOR);
    const recording = [];
    for (const bitmap of this.bitmaps.values()) {
      if (bitmap.recording) recording.push(bitmap);
      else bitmap.exempt.fill(1, first, end);
    }
    return () => {
      for (const { must } of recording) must.fill(1, first, end);
    };
  }

  /** The disk has another length: what is new is clean. */
  resized(lengthBytes) {
    for (const bitmap of this.bitmaps.values()) {
      bitmap.must = fitted(bitmap.must, lengthBytes / SECTOR);
      bitmap.exempt = fitted(bitmap.exempt, lengthBytes / SECTOR);
      bitmap.baseline = fitted(bitmap.baseline, lengthBytes);
    }
  }

  /** Bitmaps are stored, from here on or not at all. */
  beginStore() {
    const inUseFrom = (name) =>
      this.marksMayStay
        ? Math.min(
            ...this.stored.entries.map(({ value }) => value.get(name)?.inUseFrom ?? Infinity),
          )
        : Number.POSITIVE_INFINITY;
    const copies = [...this.bitmaps].map(([name, one]) => {
      const { must, exempt, baseline } = one;
      const arrays = { must: must.slice(), exempt: exempt.slice(), baseline: baseline.slice() };
      return [name, { ...one, ...arrays, inUseFrom: inUseFrom(name) }];
    });
    return this.stored.begin(new Map(copies), this.tick("bitmaps are stored"));
  }

  /**
   * Compares what lies in a file with what may.
   *
   * @param {Found} found
   * @param {number} position - of the crash
   * @throws Violation, ReferenceMismatchError
   */
  judge(found, position) {
    this.#judgeDisk(found.bytes, position);
    this.#judgeSnapshots(found.snapshots, position);
    this.#judgeBitmaps(found, position);
    for (const [name, history] of Object.entries(this.header)) {
      const allowed = history.allowedAt(position);
      if (!allowed.includes(found.header[name])) {
        throw new Violation(
          `${name} is ${String(found.header[name])}; allowed: ${allowed.join(" | ")}`,
        );
      }
    }
    if (found.dirty && !this.header.lazyRefcounts.allowedAt(position).includes(true)) {
      throw new Violation("the image is dirty, and its refcounts are not lazy");
    }
    const mayBeWrong = this.#flagged.some(({ start, end }) => start <= position && position < end);
    if (found.hasWrongFlags && !mayBeWrong) {
      throw new Violation("COPIED flags are wrong, and no snapshot was being made or deleted");
    }
  }

  #judgeDisk(bytes, position) {
    const problems = [];
    for (const reference of this.disks.allowedAt(position)) {
      try {
        reference.checkCrash(bytes, position);
        return;
      } catch (error) {
        problems.push(error);
      }
    }
    if (problems.length === 1) throw problems[0];
    const what = problems.map(({ message }) => message).join("\nnor:\n");
    throw new Violation(`the disk is none of ${problems.length} that may be there:\n${what}`);
  }

  #judgeSnapshots(found, position) {
    const expected = new Map(this.snapshots.map((one) => [one.name, one]));
    for (const { name, bytes } of found) {
      const one = expected.get(name);
      if (one === undefined || one.start > position || one.deleteEnd <= position) {
        throw new Violation(`there is a snapshot '${name}', and there must be none`);
      }
      const wrong = firstDifference(bytes, one.bytes);
      if (wrong >= 0) throw new Violation(`snapshot '${name}' holds other bytes from ${wrong} on`);
    }
    const names = new Set(found.map(({ name }) => name));
    const lost = this.snapshots.find(
      ({ name, end, deleteStart }) => end <= position && position < deleteStart && !names.has(name),
    );
    if (lost !== undefined) throw new Violation(`snapshot '${lost.name}' is lost`);
  }

  #judgeBitmaps({ bitmaps, bytes }, position) {
    const problems = this.stored.allowedAt(position).map((version) => {
      const names = bitmaps.map(({ name }) => name);
      const missing = [...version.keys()].find((name) => !names.includes(name));
      if (missing !== undefined) return `bitmap '${missing}' is missing`;
      return bitmaps
        .map((one) => problemOf(one, version.get(one.name), bytes, position))
        .find((problem) => problem !== undefined);
    });
    if (problems.includes(undefined)) return;
    throw new Violation(
      `the bitmaps are none of those that were stored: ${problems.join("; or ")}`,
    );
  }
}

/** Why a bitmap of the file is not what was stored. */
function problemOf(found, stored, bytes, position) {
  const { name } = found;
  if (stored === undefined) return `bitmap '${name}' was not stored`;
  if (found.inconsistent) {
    return position >= stored.inUseFrom ? undefined : `bitmap '${name}' is inconsistent`;
  }
  if (found.granularityBytes !== stored.granularityBytes) return `bitmap '${name}': granularity`;
  if (found.recording !== stored.recording) return `bitmap '${name}': recording`;
  for (let sector = 0; sector < found.dirty.length; sector++) {
    if (found.dirty[sector] === 1) continue;
    if (stored.must[sector] === 1) return `bitmap '${name}' is short of sector ${sector}`;
    if (!stored.recording || stored.exempt[sector] === 1) continue;
    const range = [sector * SECTOR, (sector + 1) * SECTOR];
    const now = bytes.subarray(...range);
    if (firstDifference(now, stored.baseline.subarray(...range)) >= 0) {
      return `bitmap '${name}' does not tell that sector ${sector} was written`;
    }
  }
  return undefined;
}

/** The first byte that differs, or where the shorter one ends; -1 when both are the same. */
export function firstDifference(found, expected) {
  const end = Math.min(found.length, expected.length);
  if (Buffer.compare(found.subarray(0, end), expected.subarray(0, end)) === 0) {
    return found.length === expected.length ? -1 : end;
  }
  for (let at = 0; at < end; at++) if (found[at] !== expected[at]) return at;
  return -1;
}

function fitted(bytes, length) {
  const result = new Uint8Array(length);
  result.set(bytes.subarray(0, length));
  return result;
}
