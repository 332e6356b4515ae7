/**
 * A driver in small: what the README tells a caller of the cache to do, over a file whose writes end
 * when the test says so.
 */
import { SeqCache, type SeqFlush, writeLength } from "../../src/index.js";
import { PoisonPool } from "./pool.js";

/** A write to the file that has not ended. */
export interface PendingWrite {
  readonly offset: number;
  readonly length: number;
  end(error?: Error): Promise<void>;
}

export class SmallDriver {
  readonly cache: SeqCache;
  readonly file: Uint8Array;
  readonly pending: PendingWrite[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  readonly #alignment: number;

  constructor(clusterSize: number, alignment = 4, fileBytes = 4096) {
    this.cache = new SeqCache({ clusterSize, allocator: new PoisonPool() });
    this.file = new Uint8Array(fileBytes);
    this.#alignment = alignment;
  }

  /** Writes what was handed out, and settles it. */
  writeOut(flush: SeqFlush): Promise<void> {
    const writing = this.#writeOut(flush).finally(() => this.#inFlight.delete(writing));
    this.#inFlight.add(writing);
    return writing;
  }

  /** A writer, after its critical section: at most one finished cluster. */
  async flushOne(): Promise<void> {
    const flush = this.cache.nextFlush();
    if (flush !== undefined) await this.writeOut(flush);
  }

  /** A flush: what is there now [S9], and what others are writing [S8]. */
  async flush(): Promise<void> {
    const waits = new Set(this.#inFlight);
    for (let left = this.cache.flushableCount; left > 0; left--) {
      const flush = this.cache.nextFlush({ unfinished: true });
      if (flush === undefined) break;
      const writing = this.writeOut(flush);
      waits.add(writing);
      await writing.catch(() => {});
    }
    // Also those that took an entry from under this flush since it began.
    for (const writing of this.#inFlight) waits.add(writing);
    await Promise.all(waits);
  }

  async #writeOut(flush: SeqFlush): Promise<void> {
    const bytes = flush.buffer.subarray(0, writeLength(flush, this.#alignment));
    try {
      await this.#write(flush.offset, bytes);
    } catch (error) {
      this.cache.putBack(flush.token);
      throw error;
    }
    this.cache.discard(flush.token);
  }

  /** The device takes the bytes at once, and has them in the file at the end. */
  #write(offset: number, source: Uint8Array): Promise<void> {
    const bytes = source.slice();
    return new Promise((resolve, reject) => {
      this.pending.push({
        offset,
        length: bytes.length,
        end: async (error) => {
          if (error === undefined) {
            this.file.set(bytes, offset);
            resolve();
          } else reject(error);
          await turns();
        },
      });
    });
  }
}

/** Lets everything run that can. */
export async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}
