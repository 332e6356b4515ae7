import { describe, expect, test } from "vitest";
import { HostInFlight } from "../src/refcount/inflight.js";

/** A promise that a test settles. */
function deferred(): { promise: Promise<void>; resolve: () => void; reject: (e: Error) => void } {
  let resolve = (): void => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

async function settle(): Promise<void> {
  for (let i = 0; i < 8; i++) await undefined;
}

describe("HostInFlight", () => {
  test("freed() must let a cluster go at once when nothing is in flight", () => {
    const cooled: number[] = [];
    const inFlight = new HostInFlight((cluster) => cooled.push(cluster));
    inFlight.freed(7);
    expect(cooled).toEqual([7]);
    expect(inFlight.isCooling(7)).toBe(false);
  });

  test("freed() must keep a cluster until all that began before has ended", async () => {
    const cooled: number[] = [];
    const inFlight = new HostInFlight((cluster) => cooled.push(cluster));
    const first = deferred();
    const second = deferred();
    inFlight.track(first.promise);
    inFlight.track(second.promise);
    inFlight.freed(7);
    first.resolve();
    await settle();
    expect(inFlight.isCooling(7)).toBe(true);
    second.resolve();
    await settle();
    expect(cooled).toEqual([7]);
    expect(inFlight.coolingCount).toBe(0);
  });

  test("freed() must not wait for requests that begin later", async () => {
    const cooled: number[] = [];
    const inFlight = new HostInFlight((cluster) => cooled.push(cluster));
    const before = deferred();
    const after = deferred();
    inFlight.track(before.promise);
    inFlight.freed(1);
    inFlight.track(after.promise);
    inFlight.freed(2);
    before.resolve();
    await settle();
    expect(cooled).toEqual([1]);
    expect(inFlight.isCooling(2)).toBe(true);
    after.resolve();
    await settle();
    expect(cooled).toEqual([1, 2]);
  });

  test("freed() must wait for an old request although newer ones have ended", async () => {
    const cooled: number[] = [];
    const inFlight = new HostInFlight((cluster) => cooled.push(cluster));
    const old = deferred();
    const young = deferred();
    inFlight.track(old.promise);
    inFlight.freed(1);
    inFlight.track(young.promise);
    inFlight.freed(2);
    young.resolve();
    await settle();
    expect(cooled).toEqual([]);
    old.reject(new Error("requests may fail"));
    await settle();
    expect(cooled).toEqual([1, 2]);
  });

  test("enter() must count until its epoch is settled", () => {
    const cooled: number[] = [];
    const inFlight = new HostInFlight((cluster) => cooled.push(cluster));
    const epoch = inFlight.enter();
    inFlight.freed(3);
    expect(cooled).toEqual([]);
    epoch.settle();
    expect(cooled).toEqual([3]);
    expect(() => epoch.settle()).toThrow("ends once");
  });
});
