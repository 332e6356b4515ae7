/**
 * A byte store in memory that has what real disks have: a volatile write cache, failures, and requests that
 * complete in any order. It grows when written past its end.
 *
 * Above: the format driver under test, through `directChild`. Below: ChunkStore. Beside: Trace, which
 * `crashStates` reads.
 *
 * 1. Without a scheduler and without a hook that waits, every method returns plainly.
 * 2. Reads see what was written; what was written since the last completed `flushToDisk` is *pending*, and a
 *    crash may lose or tear any of it.
 * 3. A flush makes durable what was complete when it started.
 * 4. A change takes effect at its completion. One that fails has no effect, except the part that a fault names;
 *    a flush that fails makes nothing durable, and loses what a fault says.
 * 5. A request that breaks the declared limits is an AssertionError: a bug of the layer above.
 */
import {
  assert,
  BlockError,
  type IoVector,
  isAligned,
  type MaybePromise,
  andThen,
} from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type BlockStatusOptions,
  limitsOf,
  type ReopenRequest,
  type RequestOptions,
  storeCapabilities,
  type TruncateOptions,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { assertUnchanged, type Change, opOf } from "./change.js";
import type { ChunkStore } from "./chunk-store.js";
import {
  type Fault,
  FaultPlan,
  faultError,
  type SimRequest,
  type SimRequestKind,
} from "./faults.js";
import { Random } from "./random.js";
import { contentOf, type SimDiskOptions } from "./sim-disk-options.js";
import { tornPieces } from "./tear.js";
import { applyOp, type Trace, type TraceOp } from "./trace.js";

/** A change that is complete and not durable yet. `at` orders it against flushes. */
interface PendingChange {
  readonly op: TraceOp;
  readonly at: number;
}

/** A simulated disk. */
export class SimDisk implements BlockDriver {
  readonly driverName = "sim";
  readonly name: string;
  readonly limits: BlockLimits;
  readonly trace: Trace | undefined;
  readonly #options: SimDiskOptions;
  readonly #discards: "zero" | "keep";
  readonly #volatile: boolean;
  readonly #faults: FaultPlan = new FaultPlan();
  readonly #counts: Record<SimRequestKind, number> = {
    read: 0,
    write: 0,
    zero: 0,
    discard: 0,
    truncate: 0,
    flush: 0,
    status: 0,
  };
  #capabilities: BlockCapabilities;
  /** What readers see. */
  #current: ChunkStore;
  /** What a crash leaves for certain; the same store as `#current` when nothing is volatile. */
  #durable: ChunkStore;
  #pending: PendingChange[] = [];
  #completions = 0;
  #nextId = 1;
  /** Which of the trace's disks this is. */
  readonly #number: number;
  #closed = false;
  /** Why no flush succeeds any more: one that failed has lost writes. */
  #loss: BlockError | undefined;

  constructor(options: SimDiskOptions = {}) {
    this.#options = options;
    this.name = options.name ?? "sim";
    this.limits = limitsOf(options.limits ?? {});
    this.#capabilities = storeCapabilities(options.readOnly !== true);
    this.#discards = options.discards ?? "zero";
    this.#volatile = options.volatileCache !== false;
    this.#current = contentOf(options);
    this.#durable = this.#volatile ? this.#current.fork() : this.#current;
    this.trace = options.trace;
    this.#number = this.trace?.begin(this.#current.fork(), this.#discards) ?? 0;
  }

  get lengthBytes(): number {
    return this.#current.lengthBytes;
  }

  get capabilities(): BlockCapabilities {
    return this.#capabilities;
  }

  /** What readers see, copied. */
  get bytes(): Uint8Array {
    return this.#current.toBytes();
  }

  /** What a crash leaves for certain, copied. */
  get durable(): Uint8Array {
    return this.#durable.toBytes();
  }

  /** The changes that a crash may lose, in order of completion. Requests in flight are not among them. */
  get pending(): readonly TraceOp[] {
    return this.#pending.map((change) => change.op);
  }

  /** How many requests of each kind there were. */
  get counts(): Readonly<Record<SimRequestKind, number>> {
    return this.#counts;
  }

  /** Whether a failed flush has lost writes: no later one succeeds. */
  get hasLostWrites(): boolean {
    return this.#loss !== undefined;
  }

  /** Lets a request to come fail. */
  inject(fault: Fault): void {
    this.#faults.add(fault);
  }

  /** Forgets every fault that has not struck. */
  clearFaults(): void {
    this.#faults.clear();
  }

  /** The disk after a power failure that loses everything that may be lost. For more see `crashStates`. */
  crash(): SimDisk {
    return new SimDisk({ content: this.#durable.fork(), name: this.name });
  }

  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const request = this.#begin("read", offset, target.lengthBytes, options);
    const readInto = (wanted: IoVector): void => {
      let at = offset;
      for (const part of wanted.parts) {
        this.#current.read(at, part);
        at += part.length;
      }
    };
    const onFault = ({ partialBytes = 0 }: Fault): void => {
      if (partialBytes > 0) readInto(target.slice(0, Math.min(partialBytes, target.lengthBytes)));
    };
    return this.#perform(request, options, () => readInto(target), onFault);
  }

  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    assert(options?.compressed !== true, "a byte store gets no compressed writes");
    const request = this.#begin("write", offset, source.lengthBytes, options);
    return this.#change(
      request,
      { kind: "write", offset, source, fua: options?.fua === true },
      options,
    );
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void> {
    const request = this.#begin("zero", offset, lengthBytes, options);
    assert(lengthBytes <= this.limits.maxWriteZeroes, "writeZeroes is within its limit");
    const change: Change = { kind: "zero", offset, lengthBytes, fua: options?.fua === true };
    return this.#change(request, change, options);
  }

  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void> {
    const request = this.#begin("discard", offset, lengthBytes, options);
    assert(lengthBytes <= this.limits.maxDiscard, "a discard is within its limit");
    return this.#change(request, { kind: "discard", offset, lengthBytes }, options);
  }

  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    const request = this.#begin("truncate", 0, lengthBytes, options);
    return this.#change(request, { kind: "truncate", lengthBytes }, options);
  }

  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus> {
    const request = this.#begin("status", offset, lengthBytes, options);
    return this.#perform(request, options, () => {
      const extent = this.#current.extent(offset, lengthBytes);
      return {
        lengthBytes: extent.lengthBytes,
        allocated: true,
        data: extent.stored,
        zero: !extent.stored,
        compressed: false,
        hostOffset: offset,
      };
    });
  }

  flushToOs(): void {
    this.#assertOpen("flush");
  }

  flushToDisk(): MaybePromise<void> {
    const request = this.#begin("flush", 0, 0, undefined);
    const completionsAtStart = this.#completions;
    const startedAt = this.trace?.position ?? 0;
    const effect = (): void => {
      if (this.#loss !== undefined) throw this.#loss;
      const isCovered = (change: PendingChange): boolean => change.at <= completionsAtStart;
      for (const change of this.#pending) {
        if (isCovered(change)) applyOp(this.#durable, change.op, this.#discards);
      }
      this.#pending = this.#pending.filter((change) => !isCovered(change));
      this.trace?.events.push({ type: "flush", disk: this.#number, startedAt });
    };
    return this.#perform(request, undefined, effect, (fault) => this.#loseCache(fault, request));
  }

  reopen(request: ReopenRequest): void {
    this.#assertOpen("reopen");
    this.#capabilities = storeCapabilities(!request.readOnly);
  }

  /** Flushes when writable. The content stays readable through `bytes` and `durable`. */
  close(): MaybePromise<void> {
    const end = (): void => {
      this.#closed = true;
    };
    if (!this.#capabilities.write || this.#closed) return end();
    let flushed: MaybePromise<void>;
    try {
      flushed = this.flushToDisk();
    } catch (error) {
      end();
      throw error;
    }
    return flushed instanceof Promise ? flushed.finally(end) : end();
  }

  /** Takes requests again after `close`: the same disk, for whoever opens it next. */
  restart(): void {
    this.#closed = false;
  }

  statistics(): Readonly<Record<string, number>> {
    return { ...this.#counts, pending: this.#pending.length };
  }

  #assertOpen(kind: string): void {
    if (!this.#closed) return;
    throw new BlockError("ECLOSED", `${this.name}: ${kind}: the disk is closed`, { op: kind });
  }

  #begin(
    kind: SimRequestKind,
    offset: number,
    lengthBytes: number,
    options: RequestOptions | undefined,
  ): SimRequest {
    this.#assertOpen(kind);
    if (options?.signal?.aborted === true) throw this.#canceled(kind, offset, lengthBytes);
    assert(offset >= 0 && Number.isSafeInteger(offset + lengthBytes), "the range is a valid one");
    if (kind !== "flush" && kind !== "truncate") {
      const unit = this.limits.requestAlignment;
      assert(lengthBytes > 0, `a ${kind} has at least one byte`);
      assert(isAligned(offset, unit), `the offset of a ${kind} is aligned to ${unit}`);
      assert(isAligned(lengthBytes, unit), `the length of a ${kind} is aligned to ${unit}`);
    }
    if (kind === "read" || kind === "write") {
      assert(lengthBytes <= this.limits.maxTransfer, `a ${kind} is within maxTransfer`);
    }
    return { kind, offset, lengthBytes, nth: ++this.#counts[kind] };
  }

  /** Takes a request through the hook, the scheduler and the faults to its effect. */
  #perform<T>(
    request: SimRequest,
    options: RequestOptions | undefined,
    effect: () => T,
    onFault?: (fault: Fault) => void,
  ): MaybePromise<T> {
    const complete = (): T => {
      if (options?.signal?.aborted === true) {
        throw this.#canceled(request.kind, request.offset, request.lengthBytes);
      }
      const fault = this.#faults.empty ? undefined : this.#faults.match(request);
      if (fault === undefined) return effect();
      onFault?.(fault);
      throw faultError(fault, request, this.name);
    };
    const scheduler = this.#options.scheduler;
    const finish = (): MaybePromise<T> => {
      if (scheduler === undefined) return complete();
      const afterCompletions = this.#options.latency?.(request) ?? 0;
      const label = `${this.name}: ${request.kind} at ${request.offset}`;
      return scheduler.schedule(label, complete, { afterCompletions });
    };
    const hook = this.#options.onRequest;
    return hook === undefined ? finish() : andThen(hook(request), finish);
  }

  #change(
    request: SimRequest,
    change: Change,
    options: RequestOptions | undefined,
  ): MaybePromise<void> {
    if (!this.#capabilities.write) {
      throw new BlockError("EACCES", `${this.name}: ${request.kind}: the disk is read-only`, {
        op: request.kind,
        offset: request.offset,
        length: request.lengthBytes,
      });
    }
    const end =
      change.kind === "truncate" ? change.lengthBytes : request.offset + request.lengthBytes;
    const isGrowing = change.kind !== "discard" && end > this.lengthBytes;
    if (isGrowing && end > (this.#options.maxLengthBytes ?? Number.POSITIVE_INFINITY)) {
      throw new BlockError("ENOSPC", `${this.name}: ${request.kind}: the disk is full`, {
        op: request.kind,
        offset: request.offset,
        length: request.lengthBytes,
      });
    }
    if (this.#isPlain() && change.kind === "write") {
      let at = change.offset;
      for (const part of change.source.parts) {
        this.#current.write(at, part);
        at += part.length;
      }
      return;
    }
    return this.#recordedChange(request, change, options);
  }

  /** Nothing watches: changes need not be kept as records. */
  #isPlain(): boolean {
    return (
      !this.#volatile &&
      this.trace === undefined &&
      this.#options.scheduler === undefined &&
      this.#options.onRequest === undefined &&
      this.#faults.empty
    );
  }

  #recordedChange(
    request: SimRequest,
    change: Change,
    options: RequestOptions | undefined,
  ): MaybePromise<void> {
    const op = opOf(change, this.trace?.nextId() ?? this.#nextId++, this.#number);
    const mayWait = this.#options.scheduler !== undefined || this.#options.onRequest !== undefined;
    if (mayWait) this.trace?.events.push({ type: "issue", op });
    const effect = (): void => {
      if (change.kind === "write" && mayWait) assertUnchanged(change.source, op);
      this.#complete(op);
    };
    const onFault = (fault: Fault): void => {
      for (const piece of piecesOf(op, fault)) {
        this.#complete({ ...piece, id: this.trace?.nextId() ?? this.#nextId++ });
      }
    };
    const noteFailure = (error: unknown): never => {
      if (mayWait) this.trace?.events.push({ type: "fail", op });
      throw error;
    };
    let result: MaybePromise<void>;
    try {
      result = this.#perform(request, options, effect, onFault);
    } catch (error) {
      return noteFailure(error);
    }
    return result instanceof Promise ? result.catch(noteFailure) : result;
  }

  /** A failed flush drops what the cache held: readers see it until then, and nobody after a crash. */
  #loseCache(fault: Fault, request: SimRequest): void {
    const { losesCache, lossSeed } = fault;
    if (losesCache === undefined) return;
    this.#loss ??= faultError(fault, request, this.name);
    const random = new Random(lossSeed ?? 1);
    const isLost = ({ op }: PendingChange): boolean => {
      const isStable = (op.kind === "write" || op.kind === "zero") && op.fua;
      return !isStable && (losesCache === "all" || random.oneIn(2));
    };
    const lost = this.#pending.filter(isLost);
    this.#pending = this.#pending.filter((change) => !lost.includes(change));
    this.trace?.events.push({ type: "lost", ops: lost.map(({ op }) => op) });
  }

  #complete(op: TraceOp): void {
    applyOp(this.#current, op, this.#discards);
    this.trace?.events.push({ type: "complete", op });
    if (!this.#volatile) return;
    this.#pending.push({ op, at: ++this.#completions });
    // It stays pending too: at the next flush the older changes that it covers are applied before it again.
    if ((op.kind === "write" || op.kind === "zero") && op.fua) {
      applyOp(this.#durable, op, this.#discards);
    }
  }

  #canceled(kind: SimRequestKind, offset: number, length: number): BlockError {
    return new BlockError("ECANCELED", `${this.name}: ${kind}: canceled`, {
      op: kind,
      offset,
      length,
    });
  }
}

/** What a change that fails leaves all the same. */
function piecesOf(op: TraceOp, { partialBytes, tornSeed }: Fault): readonly TraceOp[] {
  if (tornSeed !== undefined) return tornPieces(op, new Random(tornSeed));
  if (op.kind !== "write" || partialBytes === undefined || partialBytes <= 0) return [];
  const bytes = op.bytes.subarray(0, partialBytes);
  return [{ ...op, bytes, lengthBytes: bytes.length }];
}
