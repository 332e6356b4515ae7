/**
 * What the rules do: states, active rules, parked requests.
 *
 * Above: BlkdebugDriver. Below: rules.ts. No I/O.
 *
 * 1. An event changes the state after all of its rules were looked at, each against the state before. Of several
 *    rules that would change it the first one does.
 * 2. Rules that an event makes active replace those that were active before.
 * 3. The first active rule that a request meets decides; one with `once` is gone for good afterwards.
 * 4. A request is parked under the tag of every breakpoint and `suspend` rule of its event, the newest first, all
 *    at once; each of these is used up. It goes on when each tag was resumed. `resumeAll` lets go of all: none is
 *    ever lost.
 * 5. Of two requests under one tag `resume` lets the later one go.
 */
import type { DebugControl, DebugEvent, DebugObserver } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import type { BlkdebugRules, InjectRule, IoType, SuspendRule } from "./rules.js";

/** The state that a node begins in. */
const FIRST_STATE = 1;

/** A request under one of its tags. */
interface Parked {
  readonly tag: string;
  readonly go: () => void;
}

export class RuleEngine implements DebugControl {
  readonly #inject: Set<InjectRule>;
  readonly #states: BlkdebugRules["states"];
  #breakpoints: SuspendRule[];
  #active: InjectRule[];
  #parked: Parked[] = [];
  /** Who waits for a request to be parked under a tag. */
  #watchers: { readonly tag: string; readonly wake: () => void }[] = [];
  #state = FIRST_STATE;
  #observer: DebugObserver | undefined = undefined;
  /** After `resumeAll`: nobody is parked any more. */
  #isReleased = false;

  constructor(rules: BlkdebugRules) {
    this.#inject = new Set(rules.inject);
    this.#states = rules.states;
    this.#breakpoints = [...rules.suspend];
    this.#active = rules.inject.filter(
      ({ event, state }) => event === undefined && (state === 0 || state === FIRST_STATE),
    );
  }

  get state(): number {
    return this.#state;
  }

  /** How many requests are parked. */
  get parkedCount(): number {
    return this.#parked.length;
  }

  /** Takes in an event. Waits while a rule parks whoever met it. */
  meet(event: DebugEvent): Promise<void> | undefined {
    const state = this.#state;
    const concerns = (rule: { event: DebugEvent | undefined; state: number }): boolean =>
      rule.event === event && (rule.state === 0 || rule.state === state);
    const now = [...this.#inject].filter(concerns);
    if (now.length > 0) this.#active = now;
    const change = this.#states.find(concerns);
    if (change !== undefined) this.#state = change.newState;
    const stops = this.#breakpoints.filter(concerns);
    if (stops.length === 0 || this.#isReleased) return undefined;
    this.#breakpoints = this.#breakpoints.filter((one) => !stops.includes(one));
    return this.#park(stops);
  }

  /** The rule that fails a request, if any does. `once` rules are used up by this. */
  match(ioType: IoType, offset: number, lengthBytes: number): InjectRule | undefined {
    const hit = this.#active.find(
      (rule) =>
        rule.ioTypes.has(ioType) &&
        (rule.offset === undefined ||
          (rule.offset >= offset && rule.offset < offset + lengthBytes)),
    );
    if (hit?.code === undefined) return undefined;
    if (hit.once) {
      this.#active = this.#active.filter((one) => one !== hit);
      this.#inject.delete(hit);
    }
    return hit;
  }

  breakpoint(event: DebugEvent, tag: string): void {
    this.#breakpoints.push({ event, state: 0, tag });
  }

  removeBreakpoint(tag: string): void {
    const breakpoints = this.#breakpoints.filter((one) => one.tag !== tag);
    const parked = this.#parked.filter((one) => one.tag === tag);
    if (breakpoints.length === this.#breakpoints.length && parked.length === 0) throw noSuch(tag);
    this.#breakpoints = breakpoints;
    for (const one of parked) this.#letGo(one);
  }

  resume(tag: string): void {
    const latest = this.#parked.findLast((one) => one.tag === tag);
    if (latest === undefined) throw noSuch(tag);
    this.#letGo(latest);
  }

  isSuspended(tag: string): boolean {
    return this.#parked.some((one) => one.tag === tag);
  }

  whenSuspended(tag: string): Promise<void> {
    if (this.isSuspended(tag)) return Promise.resolve();
    return new Promise((wake) => this.#watchers.push({ tag, wake }));
  }

  /** Lets every parked request go, and parks none any more. */
  resumeAll(): void {
    this.#isReleased = true;
    this.#breakpoints = [];
    const parked = this.#parked;
    this.#parked = [];
    for (const one of parked) this.#letGo(one);
  }

  observe(observer: DebugObserver | undefined): void {
    this.#observer = observer;
  }

  /** Parks whoever met an event under every tag. Ends when each was resumed. */
  #park(stops: readonly SuspendRule[]): Promise<void> {
    return new Promise((resolve) => {
      let held = stops.length;
      const go = (): void => {
        held--;
        if (held === 0) resolve();
      };
      for (const { tag } of stops.toReversed()) this.#parkUnder(tag, go);
    });
  }

  #parkUnder(tag: string, go: () => void): void {
    this.#parked.push({ tag, go });
    this.#observer?.suspended(tag);
    const woken = this.#watchers.filter((one) => one.tag === tag);
    this.#watchers = this.#watchers.filter((one) => one.tag !== tag);
    for (const { wake } of woken) wake();
  }

  #letGo(one: Parked): void {
    this.#parked = this.#parked.filter((other) => other !== one);
    this.#observer?.resumed(one.tag);
    one.go();
  }
}

function noSuch(tag: string): BlockError {
  return new BlockError(
    "ENOENT",
    `blkdebug: no request is parked, and no breakpoint set, as '${tag}'`,
  );
}
