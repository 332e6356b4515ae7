/**
 * What a power failure may leave of one disk or of several, at every point of a recorded run.
 *
 * Above: a crash test, which opens each state and checks it. Below: Trace (what happened), combinations
 * (which outcomes), ChunkStore (states that share what they have in common).
 *
 * 1. A state is what was durable, and of every change since some outcome: lost, kept, torn. Changes that
 *    overlap take effect in the order in which they completed.
 * 2. Each content is made once: behind a new change only states that hold some of it. Behind a mark that
 *    tightens and behind a flush every state is made again, since the checks may demand more of it.
 * 3. The same trace and options give the same states in the same order.
 * 4. A state is never written to: `open` gives a copy that shares chunks.
 * 5. Disks that record into one trace fail at once; what each of them has lost does not depend on the others.
 */
import { assert, rangesOverlap } from "@blocklayer/bytes";
import type { ChunkStore } from "./chunk-store.js";
import { combinations } from "./crash-choices.js";
import { Random } from "./random.js";
import { SimDisk } from "./sim-disk.js";
import type { SimDiskOptions } from "./sim-disk-options.js";
import { type Outcome, outcomesOf, type TearOptions } from "./tear.js";
import { applyOp, type Trace, type TraceEvent, type TraceMark, type TraceOp } from "./trace.js";

/** What to enumerate. */
export interface CrashOptions {
  /** Decides samples and tears. By default 1. */
  readonly seed?: number;
  /** States at one point: all combinations while they are no more, else so many samples. By default 256. */
  readonly maxSubsets?: number;
  /** Tear writes at sectors too; `true` for the defaults. By default changes are lost or kept whole. */
  readonly tear?: boolean | TearOptions;
  /** Only crashes at these positions of the trace. By default all. */
  readonly from?: number;
  readonly to?: number;
}

const DEFAULT_MAX_SUBSETS = 256;

/** A change that a crash may still undo. */
interface Pending {
  readonly op: TraceOp;
  readonly outcomes: readonly Outcome[];
  /** Index of its event; `undefined` while it is in flight. */
  completedAt: number | undefined;
  /** Complete, and promised to be stable (fua). */
  forced: boolean;
}

/** What a state is made of. */
interface StateParts {
  readonly index: number;
  readonly position: number;
  readonly trace: Trace;
  /** One for each disk. */
  readonly stores: readonly ChunkStore[];
  readonly seed: number;
  readonly pending: readonly Pending[];
  readonly digits: readonly number[];
}

/** The disks after one power failure. Where a disk can be named, the first one is meant otherwise. */
export class CrashState {
  /** Counts the states of one enumeration from 0: with the seed it names the state. */
  readonly index: number;
  /** How many events of the trace had happened. */
  readonly position: number;
  readonly #parts: StateParts;

  /** @internal */
  constructor(parts: StateParts) {
    this.index = parts.index;
    this.position = parts.position;
    this.#parts = parts;
  }

  get lengthBytes(): number {
    return this.#store(0).lengthBytes;
  }

  /** The whole content, copied. */
  get bytes(): Uint8Array {
    return this.bytesOf(0);
  }

  /** The whole content of a disk, copied. */
  bytesOf(disk: number): Uint8Array {
    return this.#store(disk).toBytes();
  }

  /** What happened to each change that was not durable, in order. */
  get outcomes(): readonly Outcome[] {
    const { pending, digits } = this.#parts;
    return digits.map((_, place) => outcomeAt(pending, digits, place));
  }

  /** What the guest knew when the power failed. */
  get marks(): readonly TraceMark[] {
    return this.#parts.trace.marksAt(this.position);
  }

  /** Fills `target` from `offset` on. */
  read(offset: number, target: Uint8Array): void {
    this.#store(0).read(offset, target);
  }

  /**
   * The disk as it comes up again, readable and writable; this state stays as it is. Nothing that is written
   * to it is volatile unless the options say so.
   */
  open(options: Omit<SimDiskOptions, "content" | "lengthBytes"> = {}, disk = 0): SimDisk {
    return new SimDisk({ volatileCache: false, ...options, content: this.#store(disk).fork() });
  }

  /** Everything that is needed to understand and repeat it, in a few lines. */
  describe(): string {
    const marks = this.marks.map((mark) => mark.label);
    const known = marks.length === 0 ? "nothing" : marks.slice(-3).join("; ");
    const fates = this.outcomes.map((outcome) => `  ${outcome.text}`);
    return [
      `crash state ${this.index} (seed ${this.#parts.seed}) at position ${this.position} of the trace`,
      `  last marks: ${known}`,
      ...(fates.length === 0 ? ["  nothing was pending"] : fates),
    ].join("\n");
  }

  #store(disk: number): ChunkStore {
    const store = this.#parts.stores[disk];
    assert(store !== undefined, "the disk records into the trace");
    return store;
  }
}

/**
 * Every state in which a crash may leave the disk of a trace.
 *
 * @example for (const state of crashStates(trace, { seed: 7, tear: true })) check(state.open(), state.position)
 */
export function* crashStates(trace: Trace, options: CrashOptions = {}): Generator<CrashState> {
  const run = new Enumeration(trace, options);
  yield* run.statesNow(0);
  for (let index = 0; index < trace.events.length; index++) {
    const news = run.advance(trace.events[index] as TraceEvent, index);
    if (news !== "nothing") yield* run.statesNow(index + 1, news);
  }
}

/** A walk along a trace. */
class Enumeration {
  readonly #trace: Trace;
  readonly #seed: number;
  readonly #maxSubsets: number;
  readonly #tear: TearOptions | undefined;
  readonly #from: number;
  readonly #to: number;
  /** Durable, of each disk. Replaced, never written to: states share them. */
  #base: readonly ChunkStore[];
  #pending: Pending[] = [];
  #count = 0;

  constructor(trace: Trace, options: CrashOptions) {
    this.#trace = trace;
    this.#seed = options.seed ?? 1;
    this.#maxSubsets = options.maxSubsets ?? DEFAULT_MAX_SUBSETS;
    this.#tear = tearOf(options.tear);
    this.#from = options.from ?? 0;
    this.#to = options.to ?? Number.POSITIVE_INFINITY;
    this.#base = trace.disks.map(({ initial }) => initial);
  }

  /**
   * Takes in one event.
   *
   * @returns what new states there are: none, all, or those that hold something of one change
   */
  advance(event: TraceEvent, index: number): "nothing" | "all" | Pending {
    switch (event.type) {
      case "issue":
        return this.#add(event.op, undefined);
      case "complete":
        return this.#complete(event.op, index);
      case "fail":
        this.#pending = this.#pending.filter((entry) => entry.op.id !== event.op.id);
        return "nothing";
      case "flush":
        this.#flush(event.disk, event.startedAt);
        return "all";
      case "lost":
        this.#pending = this.#pending.filter((entry) => !event.ops.includes(entry.op));
        return "nothing";
      case "mark":
        return event.tightens ? "all" : "nothing";
    }
  }

  /** The states at a position. */
  *statesNow(position: number, news: "all" | Pending = "all"): Generator<CrashState> {
    if (position < this.#from || position > this.#to) return;
    const pending = this.#pending;
    const space = {
      radices: pending.map((entry) => (entry.forced ? 2 : entry.outcomes.length)),
      least: pending.map((entry) => (entry.forced || entry === news ? 1 : 0)),
    };
    // The stores after the first 0, 1, 2, … changes of the combination before; what still fits is kept.
    const steps: (readonly ChunkStore[])[] = [this.#base];
    let previous: readonly number[] = [];
    const random = new Random(this.#seed * 1_000_003 + position);
    for (const digits of combinations(space, this.#maxSubsets, random)) {
      let same = 0;
      while (same < steps.length - 1 && previous[same] === digits[same]) same++;
      steps.length = same + 1;
      for (let place = same; place < digits.length; place++) {
        const before = steps[place] as readonly ChunkStore[];
        steps.push(this.#applied(before, outcomeAt(pending, digits, place).pieces));
      }
      previous = digits;
      const stores = steps[steps.length - 1] as readonly ChunkStore[];
      const index = this.#count++;
      const { trace, seed } = { trace: this.#trace, seed: this.#seed };
      yield new CrashState({ index, position, trace, stores, seed, pending, digits });
    }
  }

  /** The stores behind some changes; those that nothing changes stay the same ones. */
  #applied(stores: readonly ChunkStore[], ops: readonly TraceOp[]): readonly ChunkStore[] {
    const { disks } = this.#trace;
    return stores.map((store, disk) => {
      const own = ops.filter((op) => op.disk === disk);
      if (own.length === 0) return store;
      const copy = store.fork();
      for (const op of own) applyOp(copy, op, disks[disk]?.discards ?? "zero");
      return copy;
    });
  }

  #add(op: TraceOp, completedAt: number | undefined): Pending {
    const random = new Random(this.#seed * 1_000_033 + op.id);
    const outcomes = outcomesOf(op, random, this.#tear);
    const entry: Pending = { op, outcomes, completedAt, forced: false };
    this.#pending = [...this.#pending, entry];
    return entry;
  }

  #complete(op: TraceOp, index: number): "nothing" | "all" | Pending {
    const found = this.#pending.find((entry) => entry.op.id === op.id);
    const entry = found ?? this.#add(op, index);
    entry.completedAt = index;
    entry.forced = (op.kind === "write" || op.kind === "zero") && op.fua;
    if (found === undefined) return entry;
    // Changes take effect in order of completion: behind those that are complete, before those in flight.
    const others = this.#pending.filter((other) => other !== entry);
    const complete = others.filter((other) => other.completedAt !== undefined);
    const inFlight = others.filter((other) => other.completedAt === undefined);
    const before = this.#pending;
    this.#pending = [...complete, entry, ...inFlight];
    const isMoved = before.some((other, place) => other !== this.#pending[place]);
    const isOverlapping = others.some((other) => overlap(other.op, op));
    return isMoved && isOverlapping ? entry : "nothing";
  }

  #flush(disk: number, startedAt: number): void {
    const isCovered = ({ op, completedAt }: Pending): boolean =>
      op.disk === disk && completedAt !== undefined && completedAt < startedAt;
    const covered = this.#pending.filter(isCovered).map(({ op }) => op);
    this.#base = this.#applied(this.#base, covered);
    this.#pending = this.#pending.filter((entry) => !isCovered(entry));
  }
}

function outcomeAt(pending: readonly Pending[], digits: readonly number[], place: number): Outcome {
  return pending[place]?.outcomes[digits[place] as number] as Outcome;
}

function tearOf(tear: boolean | TearOptions | undefined): TearOptions | undefined {
  if (tear === undefined || tear === false) return undefined;
  return tear === true ? {} : tear;
}

/** Whether the order of two changes matters. A truncate touches everything on its disk. */
function overlap(left: TraceOp, right: TraceOp): boolean {
  if (left.disk !== right.disk) return false;
  if (left.kind === "truncate" || right.kind === "truncate") return true;
  return rangesOverlap(left.offset, left.lengthBytes, right.offset, right.lengthBytes);
}
