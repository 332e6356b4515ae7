/** The engine alone: which rule fails what, and who is parked. */
import type { DebugEvent } from "@blocklayer/block-api";
import { describe, expect, test } from "vitest";
import { RuleEngine } from "../src/blkdebug/engine.js";
import { type InjectRule, injectRule, stateRule } from "../src/blkdebug/rules.js";

const inject = (words: Readonly<Record<string, unknown>>): InjectRule =>
  injectRule(new Map(Object.entries(words)), "test");
const state = (event: string, from: number, to: number) =>
  stateRule(
    new Map<string, unknown>([
      ["event", event],
      ["state", from],
      ["new_state", to],
    ]),
    "test",
  );

function engine(
  rules: readonly Readonly<Record<string, unknown>>[],
  states: readonly ReturnType<typeof state>[] = [],
): RuleEngine {
  return new RuleEngine({ inject: rules.map(inject), states, suspend: [] });
}

const readCode = (one: RuleEngine): string | undefined => one.match("read", 0, 512)?.code;

describe("errors", () => {
  test("a rule must be asleep until its event, and then stay awake", () => {
    const one = engine([{ event: "read_aio" }]);
    expect(readCode(one)).toBeUndefined();
    void one.meet("write_aio");
    expect(readCode(one)).toBeUndefined();
    void one.meet("read_aio");
    expect([readCode(one), readCode(one), one.match("flush", 0, 0)?.code]).toEqual([
      "EIO",
      "EIO",
      "EIO",
    ]);
    expect(one.match("block-status", 0, 512)).toBeUndefined();
  });

  test("a rule of no event must be awake from the start, in the first state only", () => {
    expect(readCode(engine([{ event: "none", errno: 28 }]))).toBe("ENOSPC");
    expect(readCode(engine([{ event: "none", state: 1 }]))).toBe("EIO");
    expect(readCode(engine([{ event: "none", state: 2 }]))).toBeUndefined();
  });

  test("rules that an event wakes must replace those that were awake", () => {
    const one = engine([
      { event: "none", errno: 28 },
      { event: "read_aio", errno: 12 },
    ]);
    expect(readCode(one)).toBe("ENOSPC");
    void one.meet("read_aio");
    expect(readCode(one)).toBe("ENOMEM");
    void one.meet("l2_load");
    expect(readCode(one)).toBe("ENOMEM");
  });

  test("the first of several rules must decide, and each with `once` only once", () => {
    const one = engine([
      { event: "read_aio", errno: 28, once: true },
      { event: "read_aio", errno: 12, once: true },
    ]);
    void one.meet("read_aio");
    expect([readCode(one), readCode(one), readCode(one)]).toEqual(["ENOSPC", "ENOMEM", undefined]);
    void one.meet("read_aio");
    expect(readCode(one)).toBeUndefined();
  });

  test("a rule with `once` that does not concern a request must wait for one that it does", () => {
    const one = engine([{ event: "none", once: true, sector: 2 }]);
    expect(one.match("read", 0, 1024)).toBeUndefined();
    expect(one.match("read", 1536, 512)).toBeUndefined();
    expect(one.match("read", 1023, 2)?.code).toBe("EIO");
    expect(one.match("read", 1024, 512)).toBeUndefined();
  });

  test("iotype must choose", () => {
    const one = engine([{ event: "none", iotype: "discard" }]);
    expect([readCode(one), one.match("discard", 0, 512)?.code]).toEqual([undefined, "EIO"]);
    const status = engine([{ event: "none", iotype: "block-status" }]);
    expect(status.match("block-status", 0, 512)?.code).toBe("EIO");
  });

  test("errno 0 must let requests pass, those behind it too", () => {
    expect(readCode(engine([{ event: "none", errno: 0 }, { event: "none" }]))).toBeUndefined();
  });
});

describe("states", () => {
  test("an event must change the state only after its rules were looked at", () => {
    const one = engine(
      [
        { event: "read_aio", state: 2 },
        { event: "read_aio", state: 1, errno: 28 },
      ],
      [state("read_aio", 1, 2)],
    );
    void one.meet("read_aio");
    expect([one.state, readCode(one)]).toEqual([2, "ENOSPC"]);
    void one.meet("read_aio");
    expect([one.state, readCode(one)]).toEqual([2, "EIO"]);
  });

  test("of several rules for one event the first must count, and never two in a row", () => {
    const one = engine([], [state("read_aio", 0, 2), state("read_aio", 0, 3)]);
    void one.meet("read_aio");
    expect(one.state).toBe(2);
    const chain = engine([], [state("read_aio", 1, 2), state("read_aio", 2, 3)]);
    void chain.meet("read_aio");
    expect(chain.state).toBe(2);
  });
});

describe("parking", () => {
  const EVENT: DebugEvent = "write_aio";

  /** What becomes of a request: `false` while it is parked. */
  function watched(parked: Promise<void> | undefined): { ended: boolean } {
    const seen = { ended: parked === undefined };
    void parked?.then(() => {
      seen.ended = true;
    });
    return seen;
  }
  const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

  test("a breakpoint must stop one request, and no second one", async () => {
    const one = engine([]);
    one.breakpoint(EVENT, "A");
    expect(one.meet("read_aio")).toBeUndefined();
    const first = watched(one.meet(EVENT));
    expect(one.meet(EVENT)).toBeUndefined();
    expect([one.isSuspended("A"), one.parkedCount]).toEqual([true, 1]);
    await turn();
    expect(first.ended).toBe(false);
    one.resume("A");
    await turn();
    expect([first.ended, one.isSuspended("A")]).toEqual([true, false]);
  });

  test("several breakpoints must hold a request until each is resumed", async () => {
    const one = engine([]);
    const told: string[] = [];
    one.observe({
      suspended: (tag) => told.push(`+${tag}`),
      resumed: (tag) => told.push(`-${tag}`),
    });
    one.breakpoint(EVENT, "A");
    one.breakpoint(EVENT, "B");
    const request = watched(one.meet(EVENT));
    one.resume("A");
    await turn();
    expect(request.ended).toBe(false);
    one.resume("B");
    await turn();
    expect(request.ended).toBe(true);
    expect(told).toEqual(["+B", "+A", "-A", "-B"]);
  });

  test("resume() must let the latest of a tag go, and refuse a tag that nobody waits under", async () => {
    const one = engine([]);
    one.breakpoint(EVENT, "A");
    const first = watched(one.meet(EVENT));
    one.breakpoint(EVENT, "A");
    const second = watched(one.meet(EVENT));
    one.resume("A");
    await turn();
    expect([first.ended, second.ended]).toEqual([false, true]);
    one.resume("A");
    await turn();
    expect(first.ended).toBe(true);
    expect(() => one.resume("A")).toThrow("'A'");
  });

  test("removeBreakpoint() must take both the breakpoint and the parked", async () => {
    const one = engine([]);
    one.breakpoint(EVENT, "A");
    one.removeBreakpoint("A");
    expect(one.meet(EVENT)).toBeUndefined();
    one.breakpoint(EVENT, "A");
    const parked = watched(one.meet(EVENT));
    one.removeBreakpoint("A");
    await turn();
    expect(parked.ended).toBe(true);
    expect(() => one.removeBreakpoint("A")).toThrow("'A'");
  });

  test("whenSuspended() must end at once or as soon as a request is parked", async () => {
    const one = engine([]);
    const waiting = watched(one.whenSuspended("A"));
    one.breakpoint(EVENT, "A");
    await turn();
    expect(waiting.ended).toBe(false);
    void one.meet(EVENT);
    await turn();
    expect(waiting.ended).toBe(true);
    await one.whenSuspended("A");
    one.resumeAll();
  });

  test("resumeAll() must let everybody go and park nobody any more", async () => {
    const one = engine([]);
    one.breakpoint(EVENT, "A");
    one.breakpoint(EVENT, "B");
    one.breakpoint("read_aio", "C");
    const both = watched(one.meet(EVENT));
    one.resumeAll();
    await turn();
    expect([both.ended, one.parkedCount]).toEqual([true, 0]);
    one.breakpoint(EVENT, "A");
    expect([one.meet(EVENT), one.meet("read_aio")]).toEqual([undefined, undefined]);
  });
});
