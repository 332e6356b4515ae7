/**
 * What one or more SimDisks were asked to do, in order: the input of the crash enumerator.
 *
 * Written by SimDisk (changes and flushes) and by whoever drives the guest (marks). Read by `crashStates`.
 *
 * 1. A *position* is a number of events: the state "at position p" is that after the first p of them.
 * 2. A change that ends at once has one event, `complete`. One that a scheduler holds back has `issue` first,
 *    and `complete` or `fail` at its end.
 * 3. The bytes of an op never change: stores share them.
 * 4. A flush covers what was complete at the position where the flush started.
 * 5. What a failed flush lost (`lost`) never reaches the medium, whatever flush comes later.
 * 6. Disks that record into one trace lose power together; each counts from 0 in the order in which they began.
 */
import { assert, hex } from "@blocklayer/bytes";
import type { ChunkStore } from "./chunk-store.js";

/** A change of the medium of a disk. Offsets and lengths are bytes; `id` counts from 1 in order of issue. */
export type TraceOp =
  | {
      readonly kind: "write";
      readonly disk: number;
      readonly id: number;
      readonly offset: number;
      readonly lengthBytes: number;
      readonly bytes: Uint8Array;
      /** Stable as soon as it is complete. */
      readonly fua: boolean;
    }
  | {
      readonly kind: "zero";
      readonly disk: number;
      readonly id: number;
      readonly offset: number;
      readonly lengthBytes: number;
      readonly fua: boolean;
    }
  | {
      readonly kind: "discard";
      readonly disk: number;
      readonly id: number;
      readonly offset: number;
      readonly lengthBytes: number;
    }
  | {
      readonly kind: "truncate";
      readonly disk: number;
      readonly id: number;
      readonly lengthBytes: number;
    };

/** Something that the guest, or the test, knows at this point. */
export interface TraceMark {
  readonly label: string;
  readonly data: unknown;
}

/** One entry of the trace. */
export type TraceEvent =
  | { readonly type: "issue" | "complete" | "fail"; readonly op: TraceOp }
  | { readonly type: "flush"; readonly disk: number; readonly startedAt: number }
  | { readonly type: "lost"; readonly ops: readonly TraceOp[] }
  | { readonly type: "mark"; readonly mark: TraceMark; readonly tightens: boolean };

/** What a mark means for the checks. */
export interface MarkOptions {
  /**
   * `true` (the default): from here on the checks may demand more, so every crash state is looked at again.
   * `false`: from here on they demand the same or less ("a guest write begins"), and no state needs to be.
   */
  readonly tightens?: boolean;
}

/** A disk as it was when its recording began. */
export interface TracedDisk {
  /** What was durable then. */
  readonly initial: ChunkStore;
  /** How a discarded range of it reads. */
  readonly discards: "zero" | "keep";
}

/** The record of disks that lose power together. */
export class Trace {
  readonly events: TraceEvent[] = [];
  readonly #disks: TracedDisk[] = [];
  #nextId = 1;

  /** How many events there are. */
  get position(): number {
    return this.events.length;
  }

  /** The disks that record here. */
  get disks(): readonly TracedDisk[] {
    return this.#disks;
  }

  /**
   * Notes what the guest knows: `guest flush completed`, say.
   *
   * @returns the position behind the mark
   */
  mark(label: string, data?: unknown, options: MarkOptions = {}): number {
    this.events.push({
      type: "mark",
      mark: { label, data },
      tightens: options.tightens !== false,
    });
    return this.events.length;
  }

  /** The marks before a position, in order. */
  marksAt(position: number): TraceMark[] {
    const marks: TraceMark[] = [];
    for (const event of this.events.slice(0, position)) {
      if (event.type === "mark") marks.push(event.mark);
    }
    return marks;
  }

  /**
   * Called by a disk that records here, with a store that it will not write to again.
   *
   * @returns its number
   */
  begin(initial: ChunkStore, discards: "zero" | "keep"): number {
    assert(this.events.length === 0, "disks begin to record before anything happens");
    this.#disks.push({ initial, discards });
    return this.#disks.length - 1;
  }

  /** An id for the next change. */
  nextId(): number {
    return this.#nextId++;
  }
}

/** One change in words: `write #7 of 0x200 bytes at 0x10000`. */
export function describeOp(op: TraceOp): string {
  const disk = op.disk === 0 ? "" : ` on disk ${op.disk}`;
  if (op.kind === "truncate") return `truncate #${op.id} to ${hex(op.lengthBytes)}${disk}`;
  const fua = op.kind !== "discard" && op.fua ? " (fua)" : "";
  return `${op.kind} #${op.id} of ${hex(op.lengthBytes)} bytes at ${hex(op.offset)}${disk}${fua}`;
}

/** Carries a change out. `discards`: whether a discarded range reads as zeroes or as before. */
export function applyOp(store: ChunkStore, op: TraceOp, discards: "zero" | "keep"): void {
  switch (op.kind) {
    case "write":
      store.write(op.offset, op.bytes, true);
      return;
    case "zero":
      store.zero(op.offset, op.lengthBytes);
      return;
    case "discard": {
      const end = Math.min(op.offset + op.lengthBytes, store.lengthBytes);
      if (discards === "zero" && end > op.offset) store.zero(op.offset, end - op.offset);
      return;
    }
    case "truncate":
      store.resize(op.lengthBytes);
  }
}
