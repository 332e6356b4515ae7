/** What a power failure may leave of two disks that are written side by side, each with a volatile cache of its own. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { type CrashState, crashStates, Random, SimDisk, Trace } from "@blocklayer/sim";

/** How many states of the second disk are put beside one of the first, at most. */
const BESIDE = 4;

/** Two disks that record. */
export class TwoDisks {
  readonly first: BlockChild;
  readonly second: BlockChild;
  readonly #firstTrace = new Trace();
  readonly #secondTrace = new Trace();
  /** Where both traces were, at the end of each request. */
  readonly #moments: { readonly first: number; readonly second: number }[] = [];

  constructor(first: Uint8Array, second: Uint8Array) {
    const record = (content: Uint8Array, trace: Trace): BlockChild => {
      const noted = new SimDisk({ content, trace });
      const child = directChild(noted);
      return new Proxy(child, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name);
          if (typeof value !== "function") return value;
          return (...args: unknown[]) => {
            const result: unknown = Reflect.apply(value, target, args);
            this.#note();
            return result;
          };
        },
      });
    };
    this.first = record(first, this.#firstTrace);
    this.second = record(second, this.#secondTrace);
    this.#note();
  }

  #note(): void {
    const moment = { first: this.#firstTrace.position, second: this.#secondTrace.position };
    const last = this.#moments.at(-1);
    if (last?.first !== moment.first || last.second !== moment.second) this.#moments.push(moment);
  }

  /**
   * Pairs of states that one failure may leave: every state of the first disk, beside some of the second at each moment
   * that it was there; and every state of the second, beside some of the first.
   */
  *states(seed: number): Generator<readonly [CrashState, CrashState]> {
    const random = new Random(seed);
    const options = { seed, maxSubsets: 12, tear: true };
    const firsts = [...crashStates(this.#firstTrace, options)];
    const seconds = [...crashStates(this.#secondTrace, options)];
    let last = { first: -1, second: -1 };
    for (const now of this.#moments) {
      const nowFirst = possible(firsts, this.#firstTrace, now.first);
      const nowSecond = possible(seconds, this.#secondTrace, now.second);
      const freshFirst = nowFirst.filter(({ position }) => position > last.first);
      const freshSecond = nowSecond.filter(({ position }) => position > last.second);
      for (const one of freshFirst) for (const other of some(nowSecond, random)) yield [one, other];
      for (const other of freshSecond) for (const one of some(nowFirst, random)) yield [one, other];
      last = now;
    }
  }
}

/** States that a failure at a position can leave: those since the last flush, with what came behind them lost. */
function possible(states: readonly CrashState[], trace: Trace, position: number): CrashState[] {
  let flushed = 0;
  for (let i = 0; i < position; i++) if (trace.events[i]?.type === "flush") flushed = i + 1;
  return states.filter((state) => state.position >= flushed && state.position <= position);
}

/** The first, the last, and a few between. */
function some(states: readonly CrashState[], random: Random): CrashState[] {
  if (states.length <= BESIDE) return [...states];
  const picked = new Set([0, states.length - 1]);
  while (picked.size < BESIDE) picked.add(random.below(states.length));
  return [...picked].map((index) => states[index] as CrashState);
}
