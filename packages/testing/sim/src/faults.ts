/** Failures on demand: which request of a SimDisk fails, how often, and with what. */
import { BlockError, type BlockErrorCode, hex } from "@blocklayer/bytes";

/** What a SimDisk does. */
export type SimRequestKind =
  | "read"
  | "write"
  | "zero"
  | "discard"
  | "truncate"
  | "flush"
  | "status";

/** A request as hooks and faults see it. Offset and length are bytes; both 0 for a flush. */
export interface SimRequest {
  readonly kind: SimRequestKind;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Counts the requests of this kind on this disk from 1. */
  readonly nth: number;
}

/** One failure to come. */
export interface Fault {
  readonly kind: SimRequestKind;
  /** Which request of this kind from now on; 1 is the next. By default 1. */
  readonly nth?: number;
  /** By default `EIO`. */
  readonly code?: BlockErrorCode;
  /** How many in a row fail, by default 1; `Infinity` for ever. */
  readonly times?: number;
  /** Only requests that touch `[offset, offset + lengthBytes)` count. */
  readonly range?: { readonly offset: number; readonly lengthBytes: number };
  /** Of a write: this many bytes reach the disk before it fails. Of a read: this many reach the buffer. */
  readonly partialBytes?: number;
  /** Of a write or of zeroes: some of its sectors reach the disk before it fails; this seed says which. */
  readonly tornSeed?: number;
  /**
   * Of a flush: what the volatile cache held is lost with it, as where an operating system marks pages as clean that
   * it could not write. Readers still see it, and nothing makes it durable any more: as a byte store must that cannot
   * tell what it lost, the disk fails every later flush too. `"some"` loses about half of it.
   */
  readonly losesCache?: "all" | "some";
  /** Decides what `"some"` is. By default 1. */
  readonly lossSeed?: number;
}

/** An armed fault: how many are still to pass, how many still to fail. */
interface ArmedFault {
  readonly fault: Fault;
  toPass: number;
  toFail: number;
}

/** The faults of one disk. */
export class FaultPlan {
  #armed: ArmedFault[] = [];

  /** Whether a request could fail at all. */
  get empty(): boolean {
    return this.#armed.length === 0;
  }

  add(fault: Fault): void {
    this.#armed.push({ fault, toPass: (fault.nth ?? 1) - 1, toFail: fault.times ?? 1 });
  }

  clear(): void {
    this.#armed = [];
  }

  /** The fault that hits this request, counted against every armed one. */
  match(request: SimRequest): Fault | undefined {
    let hit: Fault | undefined;
    for (const armed of this.#armed) {
      if (!concerns(armed.fault, request)) continue;
      if (armed.toPass > 0) {
        armed.toPass--;
        continue;
      }
      armed.toFail--;
      hit ??= armed.fault;
    }
    if (hit !== undefined) this.#armed = this.#armed.filter((armed) => armed.toFail > 0);
    return hit;
  }
}

/** The error of a fault. */
export function faultError(fault: Fault, request: SimRequest, node: string): BlockError {
  return new BlockError(
    fault.code ?? "EIO",
    `${node}: ${request.kind} at ${hex(request.offset)}: injected failure`,
    { op: request.kind, node, offset: request.offset, length: request.lengthBytes },
  );
}

function concerns(fault: Fault, request: SimRequest): boolean {
  if (fault.kind !== request.kind) return false;
  const range = fault.range;
  if (range === undefined) return true;
  return (
    request.offset < range.offset + range.lengthBytes &&
    range.offset < request.offset + request.lengthBytes
  );
}
