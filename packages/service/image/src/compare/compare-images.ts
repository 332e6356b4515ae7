/**
 * Compares what two disks read as.
 *
 * Above: the tool's `compare`. Below: ComparePlan, and reads of both backends.
 *
 * 1. Both sides of a piece are read at the same time, and several pieces are in flight.
 * 2. What is told is the first difference on the disk, whichever piece was ready first.
 * 3. What is known to be zeroes on both sides is not read.
 */
import { alignDown, firstNonZero, IoVector, MiB, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { RequestOptions } from "@blocklayer/block-api";
import type { BlockBackend } from "@blocklayer/block-graph";
import { CoMutex } from "@blocklayer/co-lock";
import { copyArena } from "../copy/buffers.js";
import { type ComparePiece, ComparePlan } from "./compare-plan.js";
import { firstDifference } from "./same-bytes.js";
import type { CompareOptions, CompareResult } from "./types.js";

/** Length of a read, and how many pieces are in flight; each takes two buffers of this length. */
const PIECE_BYTES: number = MiB;
const PARALLEL = 6;

/**
 * Compares two open images.
 *
 * Where one is longer, its tail must read as zeroes. `strict` also wants the same length and the same allocation.
 *
 * @throws BlockError what reading throws; `ECANCELED` when aborted
 */
export async function compareImages(
  first: BlockBackend,
  second: BlockBackend,
  options: CompareOptions = {},
): Promise<CompareResult> {
  const sizesDiffer = first.lengthBytes !== second.lengthBytes;
  if (options.strict === true && sizesDiffer) return { kind: "size-mismatch" };
  const difference = await new Comparison(first, second, options).run();
  if (difference === undefined) return { kind: "identical", sizesDiffer };
  const { kind, offset } = difference;
  if (kind === "allocation-mismatch") return { kind, offset };
  const isInTail = offset >= Math.min(first.lengthBytes, second.lengthBytes);
  return { kind, offset, sizesDiffer: sizesDiffer && isInTail };
}

interface Difference {
  readonly kind: "content-mismatch" | "allocation-mismatch";
  readonly offset: number;
}

class Comparison {
  readonly #first: BlockBackend;
  readonly #second: BlockBackend;
  readonly #options: CompareOptions;
  readonly #requestOptions: RequestOptions;
  readonly #plan: ComparePlan;
  readonly #planning = new CoMutex();
  readonly #totalBytes: number;
  #doneBytes = 0;
  #found: Difference | undefined;
  #failure: { readonly error: unknown; readonly offset: number } | undefined;

  constructor(first: BlockBackend, second: BlockBackend, options: CompareOptions) {
    this.#first = first;
    this.#second = second;
    this.#options = options;
    this.#requestOptions = options.signal === undefined ? {} : { signal: options.signal };
    this.#plan = new ComparePlan(first, second, PIECE_BYTES, options.signal);
    this.#totalBytes = Math.max(first.lengthBytes, second.lengthBytes);
  }

  async run(): Promise<Difference | undefined> {
    await Promise.all(Array.from({ length: PARALLEL }, () => this.#work()));
    const failure = this.#failure;
    const found = this.#found;
    // A difference that lies in front of the failure is an answer all the same.
    if (failure !== undefined && (found === undefined || failure.offset < found.offset)) {
      throw failure.error;
    }
    return found;
  }

  async #work(): Promise<void> {
    let offset = 0;
    try {
      for (;;) {
        const piece = await this.#next();
        if (piece === undefined) return;
        offset = piece.offset;
        await this.#compare(piece);
        this.#doneBytes += piece.lengthBytes;
        this.#options.onProgress?.(this.#doneBytes, this.#totalBytes);
      }
    } catch (error) {
      if (this.#failure === undefined || offset < this.#failure.offset) {
        this.#failure = { error, offset };
      }
    }
  }

  async #next(): Promise<ComparePiece | undefined> {
    const lease = await this.#planning.acquire();
    try {
      if (this.#found !== undefined || this.#failure !== undefined) return undefined;
      return await this.#plan.next();
    } finally {
      lease.release();
    }
  }

  async #compare(piece: ComparePiece): Promise<void> {
    if (this.#options.strict === true && piece.allocationDiffers) {
      this.#report({ kind: "allocation-mismatch", offset: piece.offset });
    } else if (piece.read === "both") await this.#compareBoth(piece);
    else if (piece.read !== "none") await this.#compareWithZero(piece);
  }

  async #compareBoth({ offset, lengthBytes }: ComparePiece): Promise<void> {
    const buffer = await copyArena().allocate(2 * PIECE_BYTES, this.#requestOptions);
    try {
      const a = buffer.bytes.subarray(0, lengthBytes);
      const b = buffer.bytes.subarray(PIECE_BYTES, PIECE_BYTES + lengthBytes);
      await bothEnded([this.#read(this.#first, offset, a), this.#read(this.#second, offset, b)]);
      const at = firstDifference(a, b);
      if (at < lengthBytes) this.#reportContent(offset + at);
    } finally {
      buffer.release();
    }
  }

  async #compareWithZero({ offset, lengthBytes, read }: ComparePiece): Promise<void> {
    const buffer = await copyArena().allocate(lengthBytes, this.#requestOptions);
    try {
      await this.#read(read === "first" ? this.#first : this.#second, offset, buffer.bytes);
      const at = firstNonZero(buffer.bytes);
      if (at < lengthBytes) this.#reportContent(offset + at);
    } finally {
      buffer.release();
    }
  }

  async #read(backend: BlockBackend, offset: number, bytes: Uint8Array): Promise<void> {
    await backend.readv(offset, IoVector.of(bytes), this.#requestOptions);
  }

  #reportContent(position: number): void {
    this.#report({ kind: "content-mismatch", offset: alignDown(position, SECTOR_SIZE_BYTES) });
  }

  #report(difference: Difference): void {
    if (this.#found === undefined || difference.offset < this.#found.offset) {
      this.#found = difference;
    }
  }
}

/** Waits for both, then throws: the buffers must not go while a read still fills them. */
async function bothEnded(requests: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(requests)) {
    if (result.status === "rejected") throw result.reason;
  }
}
