/**
 * Keeps a probed raw disk raw.
 *
 * Whoever opens an image without naming its format lets the content decide. A guest that may write any bytes
 * to a disk whose format was guessed could put an image header there, one that names a file of its choice
 * as its backing, and read that file when the disk is opened again. So a disk whose format was probed refuses
 * writes after which its first sector would look like another format. A disk opened as raw by name takes them.
 *
 * Above: RawDriver. Below: the `file` child.
 *
 * 1. Changes of the first sector run one at a time: what is judged is what the sector will hold, even when
 *    several harmless pieces would make a header together.
 * 2. Changes behind the first sector never wait.
 */
import {
  alignUp,
  andThen,
  BlockError,
  IoVector,
  type MaybePromise,
  SECTOR_SIZE_BYTES,
} from "@blocklayer/bytes";
import type { BlockChild } from "@blocklayer/block-api";
import { formatOf } from "./signatures.js";

/** What is about to happen to the start of the disk. */
export interface FirstSectorChange {
  readonly offset: number;
  readonly lengthBytes: number;
  /** The bytes to be written; absent: zeroes. */
  readonly source?: IoVector;
}

/** The judge of one disk. */
export class FirstSectorGuard {
  readonly #file: BlockChild;
  readonly #fileOffset: number;
  /** The change that is under way, if it waits for something; never rejects. */
  #last: Promise<void> | undefined;

  /** @param fileOffset - where the disk starts in the file, in bytes */
  constructor(file: BlockChild, fileOffset: number) {
    this.#file = file;
    this.#fileOffset = fileOffset;
  }

  /**
   * Sends a change, unless it would turn the disk into another format.
   *
   * @param send - sends the change to the file
   * @throws BlockError `EPERM` for a change that is refused. After failure: nothing was sent.
   */
  pass(change: FirstSectorChange, send: () => MaybePromise<void>): MaybePromise<void> {
    if (change.offset >= SECTOR_SIZE_BYTES) return send();
    const judgeAndSend = (): MaybePromise<void> =>
      andThen(this.#sectorAfter(change), (sector) => {
        refuseOtherFormat(sector, change);
        return send();
      });
    const sent = this.#last === undefined ? judgeAndSend() : this.#last.then(judgeAndSend);
    if (sent instanceof Promise) this.#follow(sent);
    return sent;
  }

  #follow(sent: Promise<void>): void {
    const end = (): void => {
      if (this.#last === ended) this.#last = undefined;
    };
    const ended: Promise<void> = sent.then(end, end);
    this.#last = ended;
  }

  /** The first sector as it would be. Where the file is shorter, zeroes follow. */
  #sectorAfter(change: FirstSectorChange): MaybePromise<Uint8Array> {
    const unit = this.#file.limits.requestAlignment;
    const available = Math.max(this.#file.lengthBytes - this.#fileOffset, 0);
    const target = IoVector.allocate(alignUp(Math.min(SECTOR_SIZE_BYTES, available), unit));
    const isWhole = change.offset === 0 && change.lengthBytes >= SECTOR_SIZE_BYTES;
    const read =
      isWhole || target.lengthBytes === 0 ? undefined : this.#file.readv(this.#fileOffset, target);
    return andThen(read, () => overlay(target.toBytes(), change));
  }
}

function overlay(before: Uint8Array, change: FirstSectorChange): Uint8Array {
  const sector = new Uint8Array(SECTOR_SIZE_BYTES);
  sector.set(before.subarray(0, SECTOR_SIZE_BYTES));
  const end = Math.min(change.offset + change.lengthBytes, SECTOR_SIZE_BYTES);
  const part = sector.subarray(change.offset, end);
  if (change.source === undefined) part.fill(0);
  else change.source.copyTo(part);
  return sector;
}

function refuseOtherFormat(sector: Uint8Array, change: FirstSectorChange): void {
  const format = formatOf(sector);
  if (format === undefined) return;
  throw new BlockError(
    "EPERM",
    `raw: a write would make this disk look like ${format}, and its format was probed; ` +
      "open it with format 'raw' to allow that",
    { op: "write", offset: change.offset, length: change.lengthBytes },
  );
}
