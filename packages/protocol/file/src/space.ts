/**
 * Giving space back, zeroing, and setting space aside.
 *
 * Above: FileDriver and createFile. Below: fallocate(2) where there is one, else plain writes.
 * 1. What the file system refuses as unknown is not asked again: `canZero` and `canPunch` turn false for good.
 * 2. A file grows here only by fallocate or by a write at its new end, never by ftruncate: another write that
 *    grew the file further meanwhile must not be cut off.
 * 3. Bytes past the end of the file read as zeroes, so zeroing there only needs a longer file.
 */
import { alignDown, alignUp, BlockError, IoVector, KiB } from "@blocklayer/bytes";
import { alignedZeroes, ZERO_BUFFER_BYTES } from "./aligned-memory.js";
import { canceledError, errnoOf, fileError, isUnsupported } from "./file-error.js";
import type { HostFile } from "./host-file.js";
import { FALLOCATE, type NativeFs } from "./native.js";
import { writeAt } from "./positional-io.js";

/** Interrupted calls in a row before one is an error. */
const MAX_INTERRUPTIONS = 256;

/** No file system has larger blocks than this. */
const TAIL_BLOCK_BYTES: number = 64 * KiB;

/** How to zero. */
export interface ZeroOptions {
  readonly mayUnmap?: boolean | undefined;
  readonly noFallback?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The space behind one file. */
export class FileSpace {
  readonly #file: HostFile;
  readonly #native: NativeFs | undefined;
  /** Smallest unit of a write, in bytes. */
  readonly #alignment: number;
  #canZeroRange: boolean;
  #canPunch: boolean;

  constructor(file: HostFile, native: NativeFs | undefined, alignment: number) {
    this.#file = file;
    this.#native = native;
    this.#alignment = alignment;
    this.#canZeroRange = native !== undefined;
    this.#canPunch = native !== undefined;
  }

  /** Zeroing is cheaper than writing zeroes. */
  get canZero(): boolean {
    return this.#canZeroRange || this.#canPunch;
  }

  /** Space can be given back. */
  get canPunch(): boolean {
    return this.#canPunch;
  }

  /** Gives `[offset, offset + lengthBytes)` back, as far as the file reaches. */
  async discard(offset: number, lengthBytes: number): Promise<void> {
    const end = Math.min(offset + lengthBytes, this.#reach(this.#file.lengthBytes));
    if (end > offset) await this.#punch("discard", offset, end);
  }

  /**
   * Makes `[offset, offset + lengthBytes)` read as zeroes, and the file at least as long as its end.
   *
   * @throws BlockError `ENOTSUP` with `noFallback`, when only writing zeroes would do
   */
  async zero(offset: number, lengthBytes: number, options: ZeroOptions): Promise<void> {
    const end = offset + lengthBytes;
    if (options.mayUnmap === true && (await this.#punchZero(offset, end))) return;
    if (await this.#zeroRange(offset, end)) return;
    if (options.mayUnmap !== true && (await this.#punchAndRefill(offset, end))) return;
    await this.#writeZeroes(offset, end, options);
  }

  /**
   * Sets space aside for `[offset, end)` and grows the file to `end`.
   *
   * @throws BlockError `ENOTSUP` where this machine or file system cannot
   */
  async reserve(offset: number, end: number): Promise<void> {
    const errno = this.#native === undefined ? "ENOTSUP" : await this.#call(0, offset, end);
    if (errno === "") return this.#file.noteWritten(offset, end);
    if (!isUnsupported(errno)) {
      throw fileError({ code: errno }, "preallocation", this.#file, offset, end - offset);
    }
    const why =
      this.#native === undefined ? "koffi is not available" : "the file system has no such call";
    throw new BlockError(
      "ENOTSUP",
      `'${this.#file.filename}': preallocation=falloc is not possible (${why}); full works everywhere`,
      { op: "preallocation", node: this.#file.nodeName },
    );
  }

  /** Writes real zeroes over `[offset, end)`, a mebibyte at a time. */
  async fill(offset: number, end: number, signal?: AbortSignal): Promise<void> {
    for (let at = offset; at < end; at += ZERO_BUFFER_BYTES) {
      if (signal?.aborted === true) throw canceledError("write zeroes", this.#file, signal);
      await writeAt(this.#file, at, IoVector.of(alignedZeroes(end - at)));
    }
  }

  /**
   * Writes real zeroes over what a file got when it became longer. Past the page cache in whole units, so it may end
   * longer than `end`; a unit that `offset` lies in keeps its old bytes.
   */
  async fillGrowth(offset: number, end: number, signal?: AbortSignal): Promise<void> {
    await this.fill(alignUp(offset, this.#alignment), alignUp(end, this.#alignment), signal);
  }

  /** Zeroes by making a hole. @returns whether it is done */
  async #punchZero(offset: number, end: number): Promise<boolean> {
    if (!this.#canPunch) return false;
    const { sizeBytes } = await this.#size();
    const inside = Math.min(end, this.#reach(sizeBytes));
    if (offset < inside && !(await this.#punch("write zeroes", offset, inside))) return false;
    if (end > sizeBytes) await this.#growTo(end);
    this.#file.noteWritten(offset, end);
    return true;
  }

  /** Zeroes without giving space back. @returns whether it is done */
  async #zeroRange(offset: number, end: number): Promise<boolean> {
    if (!this.#canZeroRange) return false;
    const errno = await this.#call(FALLOCATE.zeroRange, offset, end);
    if (errno === "") {
      this.#file.extents.forget();
      this.#file.noteWritten(offset, end);
      return true;
    }
    if (isUnsupported(errno)) this.#canZeroRange = false;
    else if (errno !== "EINVAL") throw this.#failure("write zeroes", errno, offset, end);
    return false;
  }

  /** A hole, and then space set aside in it: for file systems without the one call for both. */
  async #punchAndRefill(offset: number, end: number): Promise<boolean> {
    if (!this.#canPunch || this.#file.kind === "device") return false;
    if (!(await this.#punch("write zeroes", offset, end))) return false;
    const errno = await this.#call(0, offset, end);
    if (errno !== "" && !isUnsupported(errno)) {
      throw this.#failure("write zeroes", errno, offset, end);
    }
    if (errno !== "") return false;
    this.#file.noteWritten(offset, end);
    return true;
  }

  async #writeZeroes(offset: number, end: number, options: ZeroOptions): Promise<void> {
    const { sizeBytes } = await this.#size();
    const inside = Math.min(end, Math.max(alignUp(sizeBytes, this.#alignment), offset));
    if (inside > offset) {
      if (options.noFallback === true) throw this.#failure("write zeroes", "ENOTSUP", offset, end);
      await this.fill(offset, inside, options.signal);
    }
    if (end > inside) await this.#growTo(end);
  }

  /** Makes the file reach to `end` by writing the last block before it, which lies past the end. */
  async #growTo(end: number): Promise<void> {
    const length = Math.min(this.#alignment, end);
    const start = alignDown(end - 1, length);
    await writeAt(this.#file, start, IoVector.of(alignedZeroes(end - start)));
  }

  /** @returns `false` when the file system cannot (and then never again) */
  async #punch(op: string, offset: number, end: number): Promise<boolean> {
    const errno = await this.#call(FALLOCATE.punchHole | FALLOCATE.keepSize, offset, end);
    this.#file.extents.forget();
    if (errno === "") {
      this.#file.dirty = true;
      return true;
    }
    if (isUnsupported(errno)) this.#canPunch = false;
    else if (errno !== "EINVAL") throw this.#failure(op, errno, offset, end);
    return false;
  }

  /** Where punching may end: a file's last block is only freed when it is punched whole. */
  #reach(sizeBytes: number): number {
    return this.#file.kind === "device" ? sizeBytes : alignUp(sizeBytes, TAIL_BLOCK_BYTES);
  }

  /** fallocate(2). @returns an errno name, or the empty string */
  async #call(mode: number, offset: number, end: number): Promise<string> {
    if (this.#native === undefined) return "ENOTSUP";
    for (let attempt = 0; attempt < MAX_INTERRUPTIONS; attempt++) {
      const result = await this.#native.allocate(this.#file.fd, mode, offset, end - offset);
      if (result === 0) return "";
      const errno = errnoOf(result);
      if (errno !== "EINTR" && errno !== "EAGAIN") return errno;
    }
    return "EINTR";
  }

  async #size(): Promise<{ readonly sizeBytes: number }> {
    return this.#file.kind === "device"
      ? { sizeBytes: this.#file.lengthBytes }
      : await this.#file.stat();
  }

  #failure(op: string, errno: string, offset: number, end: number): BlockError {
    return fileError({ code: errno }, op, this.#file, offset, end - offset);
  }
}
