/**
 * What a guest may find on its disk: the model that a disk is compared with, in operation and after a crash.
 *
 * Above: crash tests, TrackedGuest. Below: Trace, for positions in time.
 *
 * For every sector it keeps the *versions* that were ever written, each with the times at which its request
 * began and ended. A version may be found at a time unless a later one must have replaced it:
 * 1. In operation: unless another version began after it ended, and has ended.
 * 2. After a crash: unless another version began after it ended, and has ended before a flush began that has
 *    ended (or has ended itself, with fua).
 * 3. A discard adds zeroes to what may be found, and replaces nothing. So does a request that failed.
 * 4. There is no third value: a sector is one version from end to end. Where a request covered a part of a sector
 *    only, the same holds for each byte.
 * 5. A read sees what may be found at some moment between its begin and its end.
 * 6. The disk's length has versions too. What growth adds held zeroes from the start.
 */
import { alignUp, assert, hex, isAligned, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { readStamp } from "./stamp.js";
import type { Trace } from "./trace.js";

export interface ReferenceOptions {
  /** A multiple of the sector. The length at the start. */
  readonly lengthBytes: number;
  /** What the disk holds at the start, durable; by default zeroes. */
  readonly content?: Uint8Array;
  /** What is written whole or not at all, in bytes; a multiple of 4. By default 512. */
  readonly sectorBytes?: number;
  /** Notes the guest's requests, so that `crashStates` and this model have one time. */
  readonly trace?: Trace;
}

/** A request of the guest that may be under way. */
export interface GuestRequest {
  readonly label: string;
  /** When it began. */
  readonly start: number;
  /** When it ended; `Infinity` while it has not. */
  end: number;
  /** It replaces what was there before. */
  readonly replaces: boolean;
  failed: boolean;
  readonly fua: boolean;
}

/** Content of one sector, by one request. */
interface Version {
  readonly request: GuestRequest;
  readonly words: Int32Array;
  /** The bytes of the sector that it covers, when these are not all. */
  readonly part: { readonly start: number; readonly end: number } | undefined;
}

/** A length of the disk, by one request. */
interface LengthVersion {
  readonly request: GuestRequest;
  readonly lengthBytes: number;
}

/** A flush that the guest asked for, with its times. */
export interface GuestFlush {
  readonly start: number;
  end: number;
}

/** A sector that holds what it must not. */
export interface Mismatch {
  readonly sector: number;
  /** In bytes. */
  readonly offset: number;
  /** What was found, in words. */
  readonly found: string;
  /** What may be there, in words. */
  readonly allowed: readonly string[];
}

/** A disk does not hold what its guest was promised. */
export class ReferenceMismatchError extends Error {
  readonly mismatches: readonly Mismatch[];

  constructor(what: string, mismatches: readonly Mismatch[]) {
    super(`${what}\n${mismatches.slice(0, MAX_REPORTED).map(describeMismatch).join("\n")}`);
    this.name = "ReferenceMismatchError";
    this.mismatches = mismatches;
  }
}

const MAX_REPORTED = 8;
const REPORTED_BYTES = 8;

/** The model of one guest disk. */
export class ReferenceDisk {
  readonly sectorBytes: number;
  readonly #trace: Trace | undefined;
  readonly #versions: Version[][] = [];
  readonly #lengths: LengthVersion[] = [];
  readonly #initial: GuestRequest;
  readonly #flushes: GuestFlush[] = [];
  readonly #zeroes: Int32Array;
  #clock = 0;
  #requestCount = 0;
  /** The answer for the position that was asked last: crash states come in groups of one position. */
  #cached: (Allowed & { position: number; after: "crash" | "operation" }) | undefined;

  constructor(options: ReferenceOptions) {
    const { lengthBytes } = options;
    this.sectorBytes = options.sectorBytes ?? SECTOR_SIZE_BYTES;
    this.#trace = options.trace;
    assert(isAligned(this.sectorBytes, 4), "a sector is whole words");
    assert(isAligned(lengthBytes, this.sectorBytes), "the disk is whole sectors");
    this.#zeroes = new Int32Array(this.sectorBytes / 4);
    const content = options.content ?? new Uint8Array(lengthBytes);
    assert(content.length === lengthBytes, "the content is as long as the disk");
    const words = new Int32Array(new Uint8Array(content).buffer);
    this.#initial = {
      label: "initial content",
      start: -1,
      end: -1,
      replaces: true,
      failed: false,
      fua: true,
    };
    this.#lengths.push({ request: this.#initial, lengthBytes });
    for (let sector = 0; sector * this.sectorBytes < lengthBytes; sector++) {
      this.#versions.push([this.#initialVersion(this.#sectorOf(words, sector))]);
    }
  }

  /**
   * The model of the same disk, cut: what its sectors held when, and when it was flushed, is known of it as well. From
   * here on the two have nothing to do with each other.
   *
   * Requires: nothing is in flight; the length is whole sectors, and not longer than the disk.
   */
  cut(lengthBytes: number): ReferenceDisk {
    const { sectorBytes } = this;
    assert(isAligned(lengthBytes, sectorBytes), "the disk is whole sectors");
    assert(lengthBytes <= this.lengthBytes, "the disk is cut");
    const copy = new ReferenceDisk({
      lengthBytes,
      sectorBytes,
      ...(this.#trace === undefined ? {} : { trace: this.#trace }),
    });
    for (const sector of copy.#versions.keys()) {
      copy.#versions[sector] = [...(this.#versions[sector] as Version[])];
    }
    copy.#flushes.push(...this.#flushes);
    copy.#clock = this.#clock;
    copy.#requestCount = this.#requestCount;
    return copy;
  }

  /** The longest that the disk ever was to be. */
  get lengthBytes(): number {
    return this.#versions.length * this.sectorBytes;
  }

  /** The time now: the trace's position, or the number of calls where there is no trace. */
  get now(): number {
    return this.#trace === undefined ? this.#clock : this.#trace.position;
  }

  /** A write begins. The bytes are copied. */
  startWrite(offset: number, bytes: Uint8Array, options: { fua?: boolean } = {}): GuestRequest {
    // Copied to where it lies within whole sectors, so that each sector of it is a version.
    const head = offset % this.sectorBytes;
    const whole = new Uint8Array(alignUp(head + bytes.length, this.sectorBytes));
    whole.set(bytes, head);
    const words = new Int32Array(whole.buffer);
    return this.#start("write", offset, bytes.length, options.fua === true, (index) =>
      this.#sectorOf(words, index),
    );
  }

  /** Zeroing begins. */
  startZeroes(offset: number, lengthBytes: number, options: { fua?: boolean } = {}): GuestRequest {
    return this.#start("zeroes", offset, lengthBytes, options.fua === true, () => this.#zeroes);
  }

  /** A discard begins. */
  startDiscard(offset: number, lengthBytes: number): GuestRequest {
    return this.#start("discard", offset, lengthBytes, false, () => this.#zeroes);
  }

  /** Growth begins. Requires: the new length is whole sectors, and not shorter than any before. */
  startGrow(lengthBytes: number): GuestRequest {
    assert(isAligned(lengthBytes, this.sectorBytes), "the disk is whole sectors");
    assert(lengthBytes >= this.lengthBytes, "the disk grows");
    const request = this.#begin(`guest grows the disk to ${hex(lengthBytes)}`, true, false);
    this.#lengths.push({ request, lengthBytes });
    while (this.lengthBytes < lengthBytes)
      this.#versions.push([this.#initialVersion(this.#zeroes)]);
    return request;
  }

  /** A request has succeeded. */
  finish(request: GuestRequest): void {
    assert(request.end === Number.POSITIVE_INFINITY, "a request ends once");
    request.end = this.#tick(`${request.label} done`, request.fua);
  }

  /** A request has failed: its bytes may be there or not, and nobody may count on either. */
  fail(request: GuestRequest): void {
    assert(request.end === Number.POSITIVE_INFINITY, "a request ends once");
    request.failed = true;
    request.end = this.#tick(`${request.label} failed`, false);
  }

  /** A flush begins. One that fails is never finished, and promises nothing. */
  startFlush(): GuestFlush {
    const flush = { start: this.#tick("flush", false), end: Number.POSITIVE_INFINITY };
    this.#flushes.push(flush);
    return flush;
  }

  finishFlush(flush: GuestFlush): void {
    flush.end = this.#tick("flush done", true);
  }

  /** A write that begins and ends at once. */
  write(offset: number, bytes: Uint8Array): void {
    this.finish(this.startWrite(offset, bytes));
  }

  /** Zeroing that begins and ends at once. */
  writeZeroes(offset: number, lengthBytes: number): void {
    this.finish(this.startZeroes(offset, lengthBytes));
  }

  /** A discard that begins and ends at once. */
  discard(offset: number, lengthBytes: number): void {
    this.finish(this.startDiscard(offset, lengthBytes));
  }

  /** A flush that begins and ends at once. */
  flush(): void {
    this.finishFlush(this.startFlush());
  }

  /**
   * Compares a disk in operation with the model.
   *
   * @param content - the whole disk
   * @throws ReferenceMismatchError that names the sectors
   */
  check(content: Uint8Array): void {
    this.#check(content, this.now, "operation", "the disk in operation");
  }

  /**
   * Compares what a read returned.
   *
   * @param offset - in bytes
   * @param start - `now` when the read began
   * @param end - `now` when it ended; by default now
   * @throws ReferenceMismatchError that names the sectors
   */
  checkRead(offset: number, bytes: Uint8Array, start: number, end: number = this.now): void {
    const first = Math.floor(offset / this.sectorBytes);
    const last = Math.ceil((offset + bytes.length) / this.sectorBytes);
    const wrong: Mismatch[] = [];
    for (let sector = first; sector < last; sector++) {
      const at = sector * this.sectorBytes;
      const from = Math.max(at, offset);
      const to = Math.min(at + this.sectorBytes, offset + bytes.length);
      const found = bytes.slice(from - offset, to - offset);
      const moment = { settledBefore: start, end, fua: false };
      const allowed = sectorVersions(this.#versions[sector] ?? [], moment);
      if (!mayHold(found, from - at, allowed, moment)) {
        wrong.push(this.#mismatch(sector, from, found, allowed.all));
      }
    }
    if (wrong.length > 0) throw new ReferenceMismatchError(`a read at ${hex(offset)}`, wrong);
  }

  /**
   * Compares a disk that came up after a crash.
   *
   * @param content - the whole disk
   * @param position - when the power failed: `CrashState.position`; by default now
   * @param what - heads the error: `CrashState.describe()`
   * @throws ReferenceMismatchError that names the sectors
   */
  checkCrash(content: Uint8Array, position: number = this.now, what = "after a crash"): void {
    this.#check(content, position, "crash", what);
  }

  #check(content: Uint8Array, position: number, after: "crash" | "operation", what: string): void {
    const { sectors: allowed, lengths, moment } = this.#allowedAt(position, after);
    if (!lengths.includes(content.length)) {
      const list = lengths.map(hex).join(" | ");
      const message = `${what}\n  the disk is ${hex(content.length)} bytes long; allowed: ${list}`;
      throw new ReferenceMismatchError(message, []);
    }
    const words = wordsOf(content);
    const perSector = this.sectorBytes / 4;
    const wrong: Mismatch[] = [];
    for (let sector = 0; sector * perSector < words.length; sector++) {
      const versions = allowed[sector] as SectorVersions;
      if (isOneOf(words, sector * perSector, versions.whole)) continue;
      const offset = sector * this.sectorBytes;
      const found = content.slice(offset, offset + this.sectorBytes);
      if (mayHold(found, 0, versions, moment)) continue;
      wrong.push(this.#mismatch(sector, offset, found, versions.all));
    }
    if (wrong.length > 0) throw new ReferenceMismatchError(what, wrong);
  }

  #allowedAt(position: number, after: "crash" | "operation"): Allowed {
    const cached = this.#cached;
    if (cached !== undefined && cached.position === position && cached.after === after) {
      return cached;
    }
    const settledBefore = after === "operation" ? position : this.#flushedBefore(position);
    const moment = { settledBefore, end: position, fua: after === "crash" };
    const sectors = this.#versions.map((versions) => sectorVersions(versions, moment));
    const lengths = allowedOf(this.#lengths, moment).map((version) => version.lengthBytes);
    this.#cached = { position, after, moment, sectors, lengths };
    return this.#cached;
  }

  /** What had ended by then is durable: the latest start of a flush that had ended at the position. */
  #flushedBefore(position: number): number {
    let latest = -1;
    for (const flush of this.#flushes) {
      if (flush.end <= position && flush.start > latest) latest = flush.start;
    }
    return latest;
  }

  #start(
    kind: string,
    offset: number,
    lengthBytes: number,
    fua: boolean,
    wordsAt: (index: number) => Int32Array,
  ): GuestRequest {
    const end = offset + lengthBytes;
    assert(end <= this.lengthBytes, "a guest request ends on the disk");
    const label = `guest ${kind} ${++this.#requestCount} (${hex(offset)}, ${lengthBytes} bytes)`;
    const request = this.#begin(label, kind !== "discard", fua);
    const first = Math.floor(offset / this.sectorBytes);
    for (let index = 0; (first + index) * this.sectorBytes < end; index++) {
      const at = (first + index) * this.sectorBytes;
      const from = Math.max(0, offset - at);
      const to = Math.min(this.sectorBytes, end - at);
      const part = to - from === this.sectorBytes ? undefined : { start: from, end: to };
      this.#versions[first + index]?.push({ request, words: wordsAt(index), part });
    }
    return request;
  }

  #begin(label: string, replaces: boolean, fua: boolean): GuestRequest {
    const start = this.#tick(label, false);
    return { label, start, end: Number.POSITIVE_INFINITY, replaces, failed: false, fua };
  }

  #initialVersion(words: Int32Array): Version {
    return { request: this.#initial, words, part: undefined };
  }

  /** The next moment. Two events never share one. */
  #tick(label: string, tightens: boolean): number {
    this.#cached = undefined;
    if (this.#trace !== undefined) return this.#trace.mark(label, undefined, { tightens });
    return ++this.#clock;
  }

  #sectorOf(words: Int32Array, sector: number): Int32Array {
    const length = this.sectorBytes / 4;
    return words.subarray(sector * length, (sector + 1) * length);
  }

  #mismatch(
    sector: number,
    offset: number,
    found: Uint8Array,
    allowed: readonly Version[],
  ): Mismatch {
    return {
      sector,
      offset,
      found: this.#describeContent(sector, found),
      allowed: allowed.map((version) => version.request.label),
    };
  }

  #describeContent(sector: number, found: Uint8Array): string {
    if (found.length < this.sectorBytes) return `bytes ${firstBytes(found)}`;
    const words = wordsOf(found);
    const versions = this.#versions[sector] ?? [];
    const known = versions.find((version) => equalWords(words, 0, version.words));
    if (known !== undefined) return `that of ${known.request.label}, which is out of date`;
    const stamp = readStamp(found);
    if (stamp !== undefined) return `data with tag ${stamp.tag} for sector ${stamp.sector}`;
    if (equalWords(words, 0, this.#zeroes)) return "zeroes";
    return `bytes that nobody wrote here (${firstBytes(found)})`;
  }
}

/** A stretch of time in which a disk was looked at: a read's, or a moment. */
interface Moment {
  /** What has ended by then has replaced what was there before. */
  readonly settledBefore: number;
  /** What began later cannot be found. */
  readonly end: number;
  /** What had ended with fua by its end counts as settled too: at a crash. */
  readonly fua: boolean;
}

/** What may be found in a sector. */
interface SectorVersions {
  readonly all: readonly Version[];
  /** Those of them that may be there from end to end: of whole sectors, and no part that came later is certain. */
  readonly whole: readonly Version[];
}

/** What may be found at one moment. */
interface Allowed {
  readonly moment: Moment;
  readonly sectors: readonly SectorVersions[];
  readonly lengths: readonly number[];
}

/** The versions of a whole sector, or of the length, that may be found; see the rules at the head of the file. */
function allowedOf<T extends Version | LengthVersion>(versions: readonly T[], moment: Moment): T[] {
  return notReplaced(
    versions,
    versions.filter((version) => !("part" in version) || version.part === undefined),
    moment,
  );
}

/** The versions that none of the `replacing` must have replaced. */
function notReplaced<T extends Version | LengthVersion>(
  versions: readonly T[],
  replacing: readonly T[],
  moment: Moment,
): T[] {
  let latestStart = Number.NEGATIVE_INFINITY;
  for (const { request } of replacing) {
    if (isSettled(request, moment) && request.start > latestStart) latestStart = request.start;
  }
  return versions.filter(
    ({ request }) => request.start <= moment.end && request.end >= latestStart,
  );
}

/** What was there before it is gone. A request that failed replaces nothing. */
function isSettled(request: GuestRequest, { settledBefore, end, fua }: Moment): boolean {
  if (!request.replaces || request.failed || request.start > end) return false;
  return request.end <= settledBefore || (fua && request.fua && request.end <= end);
}

/** The versions of a sector that may be found. */
function sectorVersions(versions: readonly Version[], moment: Moment): SectorVersions {
  const all = allowedOf(versions, moment);
  let latestPart = Number.NEGATIVE_INFINITY;
  let hasParts = false;
  for (const { part, request } of all) {
    if (part === undefined) continue;
    hasParts = true;
    if (isSettled(request, moment)) latestPart = Math.max(latestPart, request.start);
  }
  const whole = hasParts
    ? all.filter(({ part, request }) => part === undefined && request.end >= latestPart)
    : all;
  return { all, whole };
}

/** Whether a whole sector is one of the versions from end to end. */
function isOneOf(words: Int32Array, start: number, versions: readonly Version[]): boolean {
  for (const version of versions) if (equalWords(words, start, version.words)) return true;
  return false;
}

/** Whether a sector, or a part of it that begins at `start`, may hold these bytes. */
function mayHold(
  found: Uint8Array,
  start: number,
  { all: versions, whole }: SectorVersions,
  moment: Moment,
): boolean {
  if (whole.some((version) => equalBytes(found, bytesOf(version), start))) return true;
  if (whole.length === versions.length) return false;
  // Between two bounds of parts every byte has the same versions.
  const end = start + found.length;
  const bounds = versions.flatMap(({ part }) => (part === undefined ? [] : [part.start, part.end]));
  const inside = bounds.filter((bound) => bound > start && bound < end);
  const cuts = [start, ...inside.sort((a, b) => a - b), end];
  return cuts.slice(1).every((to, index) => {
    const from = cuts[index] as number;
    const covering = versions.filter(
      ({ part }) => part === undefined || (part.start <= from && to <= part.end),
    );
    const candidates = notReplaced(covering, covering, moment).map(bytesOf);
    for (let at = from; at < to; at++) {
      if (!candidates.some((bytes) => bytes[at] === found[at - start])) return false;
    }
    return true;
  });
}

function equalBytes(found: Uint8Array, bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < found.length; i++) if (bytes[start + i] !== found[i]) return false;
  return true;
}

function bytesOf({ words }: Version): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

/** A view of the bytes as words; copied where they start at an odd place. */
function wordsOf(bytes: Uint8Array): Int32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Int32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
}

function equalWords(words: Int32Array, start: number, expected: Int32Array): boolean {
  for (let i = 0; i < expected.length; i++) if (words[start + i] !== expected[i]) return false;
  return true;
}

function describeMismatch(mismatch: Mismatch): string {
  const { sector, offset, found, allowed } = mismatch;
  return `  sector ${sector} (offset ${hex(offset)}) holds ${found}; allowed: ${allowed.join(" | ")}`;
}

function firstBytes(bytes: Uint8Array): string {
  const list = [...bytes.subarray(0, REPORTED_BYTES)].map(hex).join(" ");
  return bytes.length > REPORTED_BYTES ? `${list} …` : list;
}
