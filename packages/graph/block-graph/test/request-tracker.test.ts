import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { RequestTracker } from "../src/request-tracker.js";
import { gate, settle } from "./test-store.js";

type Work = () => Promise<void>;

function run(
  tracker: RequestTracker,
  offset: number,
  length: number,
  serialising: boolean,
  work: Work,
): Promise<void> {
  return tracker.runSlowly("write", offset, length, serialising, undefined, work);
}

describe("RequestTracker", () => {
  it("settle() must return the very promise of the driver and count down before its reader goes on", async () => {
    const tracker = new RequestTracker("disk");
    const work = gate();
    const result = tracker.settle(tracker.begin("read", 0, 512, false), work.opened);
    expect(result).toBe(work.opened);
    expect(tracker.inFlight).toBe(1);
    work.open();
    await result;
    expect(tracker.inFlight).toBe(0);
    expect(tracker.counters).toMatchObject({ reads: 1, readBytes: 512, failed: 0 });
  });

  it("a serialising request must wait for an older one that overlaps, and not for others", async () => {
    const tracker = new RequestTracker("disk");
    const older = gate();
    const elsewhere = gate();
    const order: string[] = [];
    const first = run(tracker, 0, 512, false, () => older.opened);
    const far = run(tracker, 4096, 512, false, () => elsewhere.opened);
    const serialising = run(tracker, 256, 512, true, async () => {
      order.push("serialising");
    });
    await settle();
    expect(order).toEqual([]);
    older.open();
    await Promise.all([first, serialising]);
    expect(order).toEqual(["serialising"]);
    elsewhere.open();
    await far;
  });

  it("younger requests that overlap must wait for a serialising one, and only these", async () => {
    const tracker = new RequestTracker("disk");
    const hold = gate();
    const order: string[] = [];
    const note = (name: string) => async () => {
      order.push(name);
    };
    const serialising = run(tracker, 0, 1024, true, () => hold.opened);
    const inside = run(tracker, 512, 100, false, note("inside"));
    const outside = run(tracker, 1024, 100, false, note("outside"));
    await outside;
    await settle();
    expect(order).toEqual(["outside"]);
    hold.open();
    await Promise.all([serialising, inside]);
    expect(order).toEqual(["outside", "inside"]);
  });

  it("a chain of serialising requests must run in order of age without a deadlock", async () => {
    const tracker = new RequestTracker("disk");
    const order: number[] = [];
    const all: Promise<void>[] = [];
    for (let n = 0; n < 20; n++) {
      all.push(
        run(tracker, n * 100, 250, true, async () => {
          await settle();
          order.push(n);
        }),
      );
    }
    await Promise.all(all);
    for (let n = 1; n < 20; n++) {
      expect(order.indexOf(n - 1)).toBeLessThan(order.indexOf(n));
    }
    expect(tracker.inFlight).toBe(0);
    expect(tracker.clear).toBe(true);
  });

  it("an aborted wait must reject with ECANCELED and let those behind go on", async () => {
    const tracker = new RequestTracker("disk");
    const hold = gate();
    const abort = new AbortController();
    const first = run(tracker, 0, 512, true, () => hold.opened);
    const aborted = tracker.runSlowly("write", 0, 512, true, abort.signal, () => undefined);
    const last = run(tracker, 0, 512, true, async () => undefined);
    abort.abort(new Error("enough"));
    await expect(aborted).rejects.toMatchObject({ code: "ECANCELED" });
    hold.open();
    await Promise.all([first, last]);
    expect(tracker.inFlight).toBe(0);
  });

  it("requests that wait must share one listener on the signal of their job", async () => {
    const tracker = new RequestTracker("disk");
    const controller = new AbortController();
    const { signal } = controller;
    const listeners = (): number => getEventListeners(signal, "abort").length;
    const wait = (): Promise<void> =>
      tracker.runSlowly("write", 0, 512, false, signal, () => undefined) as Promise<void>;
    await tracker.drain();
    const waiting = Array.from({ length: 32 }, wait);
    expect(listeners()).toBe(1);
    tracker.resume();
    await Promise.all(waiting);
    expect(listeners()).toBe(0);
    await tracker.drain();
    const given = Array.from({ length: 32 }, wait).map((one) =>
      one.catch((error: unknown) => error),
    );
    controller.abort();
    for (const error of await Promise.all(given))
      expect(error).toMatchObject({ code: "ECANCELED" });
    expect(listeners()).toBe(0);
    tracker.resume();
  });

  it("drain() must wait for what is in flight and hold back what comes, until every drain is undone", async () => {
    const tracker = new RequestTracker("disk");
    const hold = gate();
    const order: string[] = [];
    const first = run(tracker, 0, 512, false, async () => {
      await hold.opened;
      order.push("first");
    });
    const drained = Promise.all([tracker.drain(), tracker.drain()]).then(() => {
      order.push("drained");
    });
    const late = run(tracker, 0, 512, false, async () => {
      order.push("late");
    });
    await settle();
    expect(order).toEqual([]);
    hold.open();
    await Promise.all([first, drained]);
    tracker.resume();
    await settle();
    expect(order).toEqual(["first", "drained"]);
    tracker.resume();
    await late;
    expect(order).toEqual(["first", "drained", "late"]);
  });

  it("an abort must end the wait of a request that a drain holds back", async () => {
    const tracker = new RequestTracker("disk");
    await tracker.drain();
    const abort = new AbortController();
    const waiting = tracker.runSlowly("read", 0, 1, false, abort.signal, () => undefined);
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ code: "ECANCELED" });
    tracker.resume();
    expect(tracker.inFlight).toBe(0);
  });

  it("a write that fails must raise the generation and the count of failures", async () => {
    const tracker = new RequestTracker("disk");
    const failing = run(tracker, 0, 512, false, () => Promise.reject(new Error("no")));
    await expect(failing).rejects.toThrow("no");
    expect(tracker.writeGeneration).toBe(1);
    expect(tracker.counters).toMatchObject({ writes: 1, failed: 1 });
  });
});
