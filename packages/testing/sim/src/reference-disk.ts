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
 * 4. There is no third value: a sector is one version from end to end.
 */
import { assert, hex, isAligned, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { readStamp } from "./stamp.js";
import type { Trace } from "./trace.js";

export interface ReferenceOptions {
  /** A multiple of the sector. */
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

/** The model of one guest disk. */
export class ReferenceDisk {
  readonly lengthBytes: number;
  readonly sectorBytes: number;
  readonly #trace: Trace | undefined;
  readonly #versions: Version[][] = [];
  readonly #flushes: GuestFlush[] = [];
  readonly #zeroes: Int32Array;
  #clock = 0;
  #requestCount = 0;
  /** The answer for the position that was asked last: crash states come in groups of one position. */
  #cached: { position: number; after: "crash" | "operation"; allowed: Version[][] } | undefined;

  constructor(options: ReferenceOptions) {
    this.lengthBytes = options.lengthBytes;
    this.sectorBytes = options.sectorBytes ?? SECTOR_SIZE_BYTES;
    this.#trace = options.trace;
    assert(isAligned(this.sectorBytes, 4), "a sector is whole words");
    assert(isAligned(this.lengthBytes, this.sectorBytes), "the disk is whole sectors");
    this.#zeroes = new Int32Array(this.sectorBytes / 4);
    const content = options.content ?? new Uint8Array(this.lengthBytes);
    assert(content.length === this.lengthBytes, "the content is as long as the disk");
    const words = new Int32Array(new Uint8Array(content).buffer);
    const initial: GuestRequest = {
      label: "initial content",
      start: -1,
      end: -1,
      replaces: true,
      failed: false,
      fua: true,
    };
    for (let sector = 0; sector * this.sectorBytes < this.lengthBytes; sector++) {
      this.#versions.push([{ request: initial, words: this.#sectorOf(words, sector) }]);
    }
  }

  /** The time now: the trace's position, or the number of calls where there is no trace. */
  get now(): number {
    return this.#trace === undefined ? this.#clock : this.#trace.position;
  }

  /** A write begins. Offset and length are whole sectors; the bytes are copied. */
  startWrite(offset: number, bytes: Uint8Array, options: { fua?: boolean } = {}): GuestRequest {
    const words = new Int32Array(new Uint8Array(bytes).buffer);
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
    assert(content.length === this.lengthBytes, "the content is the whole disk");
    const allowed = this.#allowedAt(position, after);
    const words = wordsOf(content);
    const perSector = this.sectorBytes / 4;
    let wrong: number[] | undefined;
    for (let sector = 0; sector < allowed.length; sector++) {
      const versions = allowed[sector] as Version[];
      if (versions.some((version) => equalWords(words, sector * perSector, version.words)))
        continue;
      wrong ??= [];
      wrong.push(sector);
    }
    if (wrong === undefined) return;
    throw new ReferenceMismatchError(
      what,
      wrong.map((sector) => this.#mismatch(sector, content, allowed[sector] as Version[])),
    );
  }

  #allowedAt(position: number, after: "crash" | "operation"): Version[][] {
    const cached = this.#cached;
    if (cached !== undefined && cached.position === position && cached.after === after) {
      return cached.allowed;
    }
    const settledBefore = after === "operation" ? position : this.#flushedBefore(position);
    const allowed = this.#versions.map((versions) => allowedOf(versions, position, settledBefore));
    this.#cached = { position, after, allowed };
    return allowed;
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
    assert(isAligned(offset, this.sectorBytes), "a guest request starts at a sector");
    assert(isAligned(lengthBytes, this.sectorBytes), "a guest request is whole sectors");
    assert(offset + lengthBytes <= this.lengthBytes, "a guest request ends on the disk");
    const label = `guest ${kind} ${++this.#requestCount} (${hex(offset)}, ${lengthBytes} bytes)`;
    const request: GuestRequest = {
      label,
      start: this.#tick(label, false),
      end: Number.POSITIVE_INFINITY,
      replaces: kind !== "discard",
      failed: false,
      fua,
    };
    const first = offset / this.sectorBytes;
    for (let index = 0; index < lengthBytes / this.sectorBytes; index++) {
      this.#versions[first + index]?.push({ request, words: wordsAt(index) });
    }
    return request;
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

  #mismatch(sector: number, content: Uint8Array, allowed: readonly Version[]): Mismatch {
    const offset = sector * this.sectorBytes;
    const found = content.slice(offset, offset + this.sectorBytes);
    return {
      sector,
      offset,
      found: this.#describeContent(sector, found),
      allowed: allowed.map((version) => version.request.label),
    };
  }

  #describeContent(sector: number, found: Uint8Array): string {
    const words = wordsOf(found);
    const versions = this.#versions[sector] ?? [];
    const known = versions.find((version) => equalWords(words, 0, version.words));
    if (known !== undefined) return `that of ${known.request.label}, which is out of date`;
    const stamp = readStamp(found);
    if (stamp !== undefined) return `data with tag ${stamp.tag} for sector ${stamp.sector}`;
    if (equalWords(words, 0, this.#zeroes)) return "zeroes";
    return `bytes that nobody wrote here (${[...found.subarray(0, 8)].map(hex).join(" ")} …)`;
  }
}

/** The versions that may be found; see the rules at the head of the file. */
function allowedOf(
  versions: readonly Version[],
  position: number,
  settledBefore: number,
): Version[] {
  let latestStart = Number.NEGATIVE_INFINITY;
  for (const { request } of versions) {
    if (!request.replaces || request.failed || request.start > position) continue;
    const isSettled = request.end <= settledBefore || (request.fua && request.end <= position);
    if (isSettled && request.start > latestStart) latestStart = request.start;
  }
  return versions.filter(({ request }) => request.start <= position && request.end >= latestStart);
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
