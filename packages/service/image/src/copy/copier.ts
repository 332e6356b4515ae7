/**
 * The copy engine: workers that each carry one item at a time from the sources to the target.
 *
 * Above: convertImage. Below: Planner (what), SourceList (from), Writer (to).
 *
 * 1. Reads run side by side. Writes go in the order that `order` says: `sequential` is one after the other, which
 *    lays the target out as the disk; `submitted` hands them over in order and has many in flight, for targets that
 *    keep the order themselves (compressed clusters are appended as they come); `any` writes what is ready.
 * 2. A worker holds at most one buffer, so memory is bounded by `parallel` times the item length.
 * 3. The first error stops all workers. They are waited for: nothing is in flight when `run` rejects.
 */
import type { AlignedArena, AlignedBuffer } from "@blocklayer/aligned-io";
import { BlockError, IoVector } from "@blocklayer/bytes";
import type { RequestOptions } from "@blocklayer/block-api";
import { CoMutex } from "@blocklayer/co-lock";
import type { Planner, WorkItem } from "./planner.js";
import type { RateLimit } from "./rate-limit.js";
import { type Hole, salvageInto } from "./salvage.js";
import type { SourceList } from "./source-list.js";
import { Turns } from "./turns.js";
import type { Writer } from "./writer.js";

/** What is promised about the order of writes. */
export type WriteOrder = "sequential" | "submitted" | "any";

/** What a copier works with. */
export interface CopierParts {
  readonly sources: SourceList;
  readonly planner: Planner;
  readonly writer: Writer;
  readonly arena: AlignedArena;
  readonly parallel: number;
  readonly order: WriteOrder;
  readonly rateLimit: RateLimit | undefined;
  /** Told of unreadable places; absent: they are errors. */
  readonly onUnreadable: ((hole: Hole) => void) | undefined;
  readonly onDone: (item: WorkItem) => void;
  readonly signal: AbortSignal | undefined;
}

/** An item on its way. */
interface Load {
  readonly item: WorkItem;
  readonly buffer: AlignedBuffer | undefined;
  readonly ticket: number;
}

interface Failure {
  readonly error: unknown;
}

/** Writes that have begun, in an object: a promise returned from an async function would be waited for. */
interface Submitted {
  readonly end: Promise<void> | undefined;
}

export class Copier {
  readonly #parts: CopierParts;
  readonly #requestOptions: RequestOptions;
  readonly #planning = new CoMutex();
  readonly #turns = new Turns();
  #failure: Failure | undefined;

  constructor(parts: CopierParts) {
    this.#parts = parts;
    this.#requestOptions = parts.signal === undefined ? {} : { signal: parts.signal };
  }

  /**
   * Copies everything.
   *
   * @throws the first error. **After failure:** nothing is in flight; what was written stays
   */
  async run(): Promise<void> {
    const workers = Array.from({ length: this.#parts.parallel }, () => this.#work());
    await Promise.all(workers);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Never rejects: a failure is kept for `run`. */
  async #work(): Promise<void> {
    try {
      while (this.#failure === undefined) {
        this.#refuseAborted();
        const load = await this.#plan();
        if (load === undefined) return;
        await this.#carry(load);
      }
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /**
   * Item, buffer and ticket are taken together, in the order of the plan. So whoever holds a buffer has, of all that
   * wait in this copy, the first turn: two copies that share the arena cannot wait for each other.
   */
  async #plan(): Promise<Load | undefined> {
    const lease = await this.#planning.acquire();
    try {
      const item = await this.#parts.planner.next();
      if (item === undefined) return undefined;
      const buffer =
        item.kind === "data"
          ? await this.#parts.arena.allocate(item.lengthBytes, this.#requestOptions)
          : undefined;
      return { item, buffer, ticket: this.#turns.take() };
    } catch (error) {
      throw atOffset(error, "reading the map");
    } finally {
      lease.release();
    }
  }

  async #carry(load: Load): Promise<void> {
    const { item, buffer } = load;
    try {
      const failure = await this.#fill(load);
      const writes = await this.#inTurn(load, failure);
      await writes.end;
    } finally {
      buffer?.release();
    }
    if (this.#failure === undefined) this.#parts.onDone(item);
  }

  /** Reads. A failure is kept until it is this load's turn, so that what lies in front of it is still written. */
  async #fill({ item, buffer }: Load): Promise<Failure | undefined> {
    try {
      if (buffer !== undefined) await this.#read(item, buffer.bytes);
      return undefined;
    } catch (error) {
      return { error };
    }
  }

  /** Waits for the load's turn, begins its writes, and passes the turn on, whatever happens. */
  async #inTurn(load: Load, readFailure: Failure | undefined): Promise<Submitted> {
    const { order, rateLimit, signal } = this.#parts;
    const isOrdered = order !== "any";
    if (isOrdered) await this.#turns.wait(load.ticket);
    try {
      if (readFailure !== undefined) throw readFailure.error;
      if (load.buffer !== undefined) await rateLimit?.take(load.item.lengthBytes, signal);
      // What failed in front of this load must not be followed by writes.
      if (this.#failure !== undefined) return { end: undefined };
      const end = this.#submit(load);
      if (order === "sequential") await end;
      return { end };
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    } finally {
      if (isOrdered) this.#turns.done();
    }
  }

  async #read(item: WorkItem, bytes: Uint8Array): Promise<void> {
    const { sources, onUnreadable } = this.#parts;
    try {
      await sources.readv(item.offset, IoVector.of(bytes), this.#requestOptions);
    } catch (error) {
      this.#refuseAborted();
      if (onUnreadable === undefined) throw atOffset(error, `reading at byte ${item.offset}`, item);
      await salvageInto(sources, item.offset, bytes, this.#requestOptions, onUnreadable);
    }
  }

  /** Hands an item to the target; the promise is the end of its writes. */
  async #submit({ item, buffer }: Load): Promise<void> {
    const { writer } = this.#parts;
    if (item.kind === "backing") return;
    try {
      if (buffer === undefined) await writer.zeroes(item.offset, item.lengthBytes);
      else await writer.data(item.offset, buffer.bytes);
    } catch (error) {
      throw atOffset(error, `writing at byte ${item.offset}`, item);
    }
  }

  #refuseAborted(): void {
    const { signal } = this.#parts;
    if (signal?.aborted === true) {
      throw new BlockError("ECANCELED", "convert was aborted", {
        op: "convert",
        cause: signal.reason,
      });
    }
  }
}

/** Says where it happened, and keeps the code. */
function atOffset(error: unknown, where: string, item?: WorkItem): BlockError {
  const code = error instanceof BlockError ? error.code : "EIO";
  if (code === "ECANCELED" && error instanceof BlockError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new BlockError(code, `error while ${where}: ${message}`, {
    op: "convert",
    ...(item === undefined ? {} : { offset: item.offset, length: item.lengthBytes }),
    cause: error,
  });
}
