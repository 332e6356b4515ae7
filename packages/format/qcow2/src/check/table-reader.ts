/**
 * Reading tables for a check: many, in large pieces, several at a time.
 *
 * Above: every part of the check that reads. Below: the image file.
 *
 * 1. Bytes behind the end of the file are zeroes, as they are for QEMU.
 * 2. A budget bounds all that one check reads of tables. The tables of a sound image share no
 *    bytes, so they never need more than the file stores; twice that and a margin is allowed,
 *    and what a hostile image wants beyond is not checked.
 * 3. A hole of the file is not read, and costs nothing of that: a long sparse file is as cheap as it is small. What is
 *    stored is counted extent by extent, and only as far as the budget is needed.
 */
import type { BlockChild, RequestOptions } from "@blocklayer/block-api";
import { alignUp, BlockError, IoVector, MiB } from "@blocklayer/bytes";
import type { Findings } from "./findings.js";

/** Neighbours this near are read together, with the gap. */
const MAX_GAP_BYTES = 65536;
/** Longest single read. */
const MAX_READ_BYTES: number = 4 * MiB;
/** Reads in flight. */
const PARALLEL_READS = 8;
const BUDGET_MARGIN_BYTES: number = 64 * MiB;

const NO_BYTES = new Uint8Array(0);

/**
 * Takes one table when it has arrived. The bytes are the reader's: do not keep them. There are none when the table lies
 * in a hole: all of it is zero.
 */
export type TableVisitor = (hostOffset: number, bytes: Uint8Array) => void;

interface ReadGroup {
  readonly start: number;
  end: number;
  readonly offsets: number[];
}

export class TableReader {
  readonly file: BlockChild;
  readonly fileLengthBytes: number;
  readonly #findings: Findings;
  readonly #options: RequestOptions;
  #budgetBytes = BUDGET_MARGIN_BYTES;
  /** Up to here the file's stored bytes are part of the budget. */
  #countedTo = 0;

  constructor(file: BlockChild, findings: Findings, options: RequestOptions) {
    this.file = file;
    this.fileLengthBytes = file.lengthBytes;
    this.#findings = findings;
    this.#options = options;
  }

  /**
   * Reads one table, or what the file has of it.
   *
   * @param what - the table, for the message when it cannot be read
   * @param entryBytes - an entry that the end of the file cuts is filled up with zeroes
   * @returns its bytes up to the end of the file; `undefined` when it could not be read, which then
   *   is among the findings
   */
  async read(
    what: string,
    hostOffset: number,
    lengthBytes: number,
    entryBytes = 1,
  ): Promise<Uint8Array | undefined> {
    const length = Math.max(0, Math.min(lengthBytes, this.fileLengthBytes - hostOffset));
    if (!(await this.#spend(what, length))) return undefined;
    const bytes = new Uint8Array(alignUp(length, entryBytes));
    return (await this.#fill(what, hostOffset, bytes.subarray(0, length))) ? bytes : undefined;
  }

  /** As `read`, for a table that may lie in a hole: then there are no bytes, and all of it is zero. */
  async readSparse(
    what: string,
    hostOffset: number,
    lengthBytes: number,
    entryBytes: number,
  ): Promise<Uint8Array | undefined> {
    const length = Math.max(0, Math.min(lengthBytes, this.fileLengthBytes - hostOffset));
    if (length > 0 && (await this.#isHole(hostOffset, hostOffset + length))) return NO_BYTES;
    return await this.read(what, hostOffset, lengthBytes, entryBytes);
  }

  /**
   * Reads many tables of one length, in no particular order.
   *
   * @param offsets - ascending, without repetition, each in the file
   */
  async readMany(
    what: string,
    offsets: readonly number[],
    lengthBytes: number,
    visit: TableVisitor,
  ): Promise<void> {
    const groups = groupsOf(offsets, lengthBytes);
    const next = groups[Symbol.iterator]();
    const work = async (): Promise<void> => {
      for (let step = next.next(); step.done !== true; step = next.next()) {
        await this.#readGroup(what, step.value, lengthBytes, visit);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_READS }, work));
  }

  async #readGroup(
    what: string,
    { start, end, offsets }: ReadGroup,
    lengthBytes: number,
    visit: TableVisitor,
  ): Promise<void> {
    if (await this.#isHole(start, end)) {
      this.#refuseCancelled();
      for (const offset of offsets) visit(offset, NO_BYTES);
      return;
    }
    if (!(await this.#spend(what, end - start))) return;
    const bytes = new Uint8Array(end - start);
    const inFile = bytes.subarray(0, Math.max(0, this.fileLengthBytes - start));
    if (!(await this.#fill(what, start, inFile))) return;
    for (const offset of offsets) {
      visit(offset, bytes.subarray(offset - start, offset - start + lengthBytes));
    }
  }

  #refuseCancelled(): void {
    if (this.#options.signal?.aborted !== true) return;
    throw new BlockError("ECANCELED", "the check was cancelled", { op: "check" });
  }

  async #spend(what: string, lengthBytes: number): Promise<boolean> {
    this.#refuseCancelled();
    while (lengthBytes > this.#budgetBytes && this.#countedTo < this.fileLengthBytes) {
      const at = this.#countedTo;
      const { isHole, end } = await this.#extentAt(at, this.fileLengthBytes);
      // Others count at the same time.
      if (this.#countedTo !== at) continue;
      this.#countedTo = end;
      if (!isHole) this.#budgetBytes += 2 * (end - at);
    }
    if (lengthBytes <= this.#budgetBytes) {
      this.#budgetBytes -= lengthBytes;
      return true;
    }
    this.#findings.error(() => `ERROR: ${what}: not checked, since the tables overlap too much`);
    return false;
  }

  async #isHole(start: number, end: number): Promise<boolean> {
    const inFile = Math.min(end, this.fileLengthBytes);
    if (start >= inFile) return true;
    const extent = await this.#extentAt(start, inFile);
    return extent.isHole && extent.end >= inFile;
  }

  /** The extent of the file at an offset. Who cannot tell has no holes. */
  async #extentAt(at: number, end: number): Promise<{ isHole: boolean; end: number }> {
    try {
      const { zero, data, lengthBytes } = await this.file.blockStatus(at, end - at, {
        ...this.#options,
        wantZero: true,
      });
      return { isHole: zero && !data, end: at + lengthBytes };
    } catch (error) {
      if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
      return { isHole: false, end };
    }
  }

  async #fill(what: string, hostOffset: number, bytes: Uint8Array): Promise<boolean> {
    if (bytes.length === 0) return true;
    try {
      await this.file.readv(hostOffset, IoVector.of(bytes), this.#options);
      return true;
    } catch (error) {
      if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
      this.#findings.error(() => `ERROR: I/O error in ${what}: ${error.message}`);
      return false;
    }
  }
}

function groupsOf(offsets: readonly number[], lengthBytes: number): ReadGroup[] {
  const groups: ReadGroup[] = [];
  let group: ReadGroup | undefined;
  for (const offset of offsets) {
    const end = offset + lengthBytes;
    if (
      group !== undefined &&
      offset - group.end <= MAX_GAP_BYTES &&
      end - group.start <= MAX_READ_BYTES
    ) {
      group.end = Math.max(group.end, end);
      group.offsets.push(offset);
    } else {
      group = { start: offset, end, offsets: [offset] };
      groups.push(group);
    }
  }
  return groups;
}
