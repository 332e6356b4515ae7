import { expect, test } from "vitest";
import { SimScheduler } from "../src/index.js";

test("run() must return what the work returns, and throw what it throws", async () => {
  const scheduler = new SimScheduler({ seed: 1 });
  const value = await scheduler.run(async () => (await scheduler.schedule("a", () => 20)) + 1);
  expect(value).toBe(21);
  const failing = scheduler.run(async () => {
    await scheduler.schedule("b", () => {
      throw new Error("on purpose");
    });
  });
  await expect(failing).rejects.toThrow("on purpose");
  expect(scheduler.completed).toBe(2);
});

test("run() must report a deadlock instead of hanging", async () => {
  const scheduler = new SimScheduler({ seed: 77 });
  const never = new Promise<void>(() => undefined);
  await expect(scheduler.run(never)).rejects.toThrow("seed 77");
});

test("run() must let code come to rest before the next completion", async () => {
  // The second request follows the first after several turns: both must be pending before either of the
  // two that come next is chosen, or parallel requests would never be seen out of order.
  const orders = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    const scheduler = new SimScheduler({ seed });
    const order: string[] = [];
    const note = (name: string) => scheduler.schedule(name, () => order.push(name));
    await scheduler.run(async () => {
      const slow = (async () => {
        for (let i = 0; i < 10; i++) await undefined;
        await note("slow");
      })();
      await Promise.all([note("quick"), slow]);
    });
    orders.add(order.join(","));
  }
  expect([...orders].toSorted()).toEqual(["quick,slow", "slow,quick"]);
});

test("run() must wait for work outside through idle()", async () => {
  let calls = 0;
  let finish: (() => void) | undefined;
  const outside = new Promise<void>((resolve) => (finish = resolve));
  const idle = async (): Promise<void> => {
    if (++calls === 3) finish?.();
  };
  const scheduler = new SimScheduler({ seed: 1, idle });
  await scheduler.run(async () => {
    await outside;
    await scheduler.schedule("after", () => undefined);
  });
  expect(calls).toBe(3);
});

test("schedule({ afterCompletions }) must hold one back behind others, and not for ever", async () => {
  for (let seed = 0; seed < 20; seed++) {
    const scheduler = new SimScheduler({ seed });
    const order: string[] = [];
    const note = (name: string, afterCompletions: number): Promise<number> =>
      scheduler.schedule(name, () => order.push(name), { afterCompletions });
    await scheduler.run(() =>
      Promise.all([note("slow", 3), note("a", 0), note("b", 0), note("c", 0), note("last", 100)]),
    );
    expect(order.indexOf("slow")).toBe(3);
    expect(order.at(-1)).toBe("last");
  }
});

test("settle must let chains of any length come to rest", async () => {
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const chosen = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    const scheduler = new SimScheduler({ seed, settle });
    const order: string[] = [];
    const far = async (): Promise<void> => {
      for (let i = 0; i < 1000; i++) await undefined;
      await scheduler.schedule("far", () => order.push("far"));
    };
    await scheduler.run(() =>
      Promise.all([scheduler.schedule("near", () => order.push("near")), far()]),
    );
    chosen.add(order.join(","));
  }
  expect([...chosen].toSorted()).toEqual(["far,near", "near,far"]);
});

test("run() must give up on work that never ends", async () => {
  const scheduler = new SimScheduler({ seed: 5, maxCompletions: 50 });
  const endless = async (): Promise<void> => {
    for (;;) await scheduler.schedule("round", () => undefined);
  };
  await expect(scheduler.run(endless)).rejects.toThrow("has not ended after 50 completions");
});
