import { AssertionError, rangesOverlap } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type RangeLease, RangeLock } from "../src/index.js";
import { commandsOf, runModel, turn } from "./lock-model.js";

interface Range {
  readonly offset: number;
  readonly length: number;
}

function overlap(a: Range, b: Range): boolean {
  return rangesOverlap(a.offset, a.length, b.offset, b.length);
}

describe("RangeLock", () => {
  test("acquire() must exclude overlapping ranges, in order of arrival, and no others", {
    timeout: 60_000,
  }, async () => {
    const range = fc.record({
      offset: fc.nat({ max: 30 }),
      length: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 30 })),
    });
    await fc.assert(
      fc.asyncProperty(commandsOf(range), async (commands) => {
        const ranges = new RangeLock();
        const lock = {
          acquire: ({ offset, length }: Range, signal: AbortSignal) =>
            ranges.acquire(offset, length, { signal }),
          tryAcquire: ({ offset, length }: Range) => ranges.tryAcquire(offset, length),
          get waiting() {
            return ranges.waiting;
          },
          isFree: () => ranges.size === 0,
        };
        const admits: Parameters<typeof runModel<Range>>[1] = (args, earlier) =>
          earlier.every((request) => !overlap(request.args, args));
        await runModel(lock, admits, commands);
        expect(ranges.size).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  test("overlaps() must say what acquire() would do, before and after many ranges came and went", () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 400 }), { maxLength: 300 }), (offsets) => {
        const lock = new RangeLock();
        const held = new Map<number, RangeLease>();
        for (const offset of offsets) {
          const lease = held.get(offset);
          if (lease !== undefined) {
            lease.release();
            held.delete(offset);
            continue;
          }
          const free = [...held.keys()].every((other) => Math.abs(other - offset) >= 3);
          expect(lock.overlaps(offset, 3)).toBe(!free);
          const taken = lock.tryAcquire(offset, 3);
          expect(taken !== undefined).toBe(free);
          if (taken !== undefined) held.set(offset, taken);
          expect(lock.size).toBe(held.size);
        }
      }),
    );
  });

  test("an abort must let go on who waited for the aborted request only", async () => {
    const lock = new RangeLock();
    const first = lock.acquire(0, 10) as RangeLease;
    const controller = new AbortController();
    const wide = lock.acquire(0, 30, { signal: controller.signal }) as Promise<RangeLease>;
    const behind = lock.acquire(20, 10);
    expect(behind).toBeInstanceOf(Promise);
    controller.abort();
    const lease = await behind;
    expect([lease.offset, lease.lengthBytes]).toEqual([20, 10]);
    await expect(wide).rejects.toMatchObject({ code: "ECANCELED" });
    first.release();
    lease.release();
    expect(lock.size).toBe(0);
  });

  test("a later request must not overtake an earlier one that overlaps and waits", async () => {
    const lock = new RangeLock();
    const first = lock.acquire(0, 10) as RangeLease;
    const order: string[] = [];
    const second = Promise.resolve(lock.acquire(5, 10)).then((lease) => {
      order.push("second");
      return lease;
    });
    const third = Promise.resolve(lock.acquire(12, 10)).then((lease) => {
      order.push("third");
      return lease;
    });
    expect(lock.tryAcquire(14, 1)).toBeUndefined();
    first.release();
    await turn();
    expect(order).toEqual(["second"]);
    (await second).release();
    (await third).release();
    expect(order).toEqual(["second", "third"]);
  });

  test("ranges must reach up to 2^53 - 1", () => {
    const lock = new RangeLock();
    const whole = lock.acquire(0, Number.MAX_SAFE_INTEGER) as RangeLease;
    expect(lock.overlaps(Number.MAX_SAFE_INTEGER - 1, 1)).toBe(true);
    whole.release();
  });

  test("misuse must fail an assertion", () => {
    const lock = new RangeLock();
    const owner = {};
    const lease = lock.acquire(0, 10, { owner }) as RangeLease;
    expect(() => lock.acquire(9, 2, { owner })).toThrow(AssertionError);
    expect(lock.waiting).toBe(0);
    (lock.acquire(10, 2, { owner }) as RangeLease).release();
    lease.release();
    expect(() => lease.release()).toThrow(AssertionError);
    expect(() => lock.acquire(0, 0)).toThrow(AssertionError);
    expect(() => lock.acquire(-1, 5)).toThrow(AssertionError);
    expect(() => lock.acquire(Number.MAX_SAFE_INTEGER, 1)).toThrow(AssertionError);
    expect(lock.size).toBe(0);
  });

  test("an aborted signal must refuse a free range", () => {
    const lock = new RangeLock();
    expect(() => lock.acquire(0, 1, { signal: AbortSignal.abort() })).toThrow("aborted");
    expect(lock.size).toBe(0);
  });
});
