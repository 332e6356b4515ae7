import { expect, test } from "vitest";
import { hasQemuImg } from "../src/qemu.mjs";
import { runPlan } from "../src/job.mjs";
import { mustHold, savedPlans, savedSeeds } from "./support.js";

test.each(savedPlans)("what failed once must hold: $why", async ({ mode, config, operations }) => {
  await expect(runPlan(mode, config, operations)).resolves.toBeDefined();
});

test("saved seeds of schedules must hold", async () => {
  const list = savedSeeds("schedules");
  const { seeds } = await mustHold({ mode: "schedules", first: 1, list });
  expect(seeds).toBe(list.length);
});

test("saved seeds of crashes must hold", async () => {
  const list = savedSeeds("crashes");
  const { seeds, totals } = await mustHold({ mode: "crashes", first: 1, list });
  expect(seeds).toBe(list.length);
  expect(totals.states).toBeGreaterThan(50 * list.length);
});

test.each(["upkeep-schedules", "upkeep-crashes", "service-crashes"] as const)(
  "saved seeds of %s must hold",
  async (mode) => {
    const list = savedSeeds(mode);
    const { seeds } = await mustHold({ mode, first: 1, list });
    expect(seeds).toBe(list.length);
  },
);

test("a batch of schedules with changes of the whole image must hold", async () => {
  const { totals } = await mustHold({ mode: "upkeep-schedules", first: 200, seeds: 30 });
  expect(totals.completions).toBeGreaterThan(1500);
});

test("a batch of crash states with changes of the whole image must hold", async () => {
  const { totals } = await mustHold({ mode: "upkeep-crashes", first: 300, states: 1200 });
  expect(totals.goneOn).toBeGreaterThan(8);
  expect(totals.repaired).toBeGreaterThan(20);
  expect(totals.cutOff).toBeGreaterThan(10);
});

test("a batch of crash states of jobs over whole images must hold", async () => {
  const { totals } = await mustHold({ mode: "service-crashes", first: 1, seeds: 24 });
  expect(totals.states).toBeGreaterThan(400);
});

test("a batch of schedules with faults must end, hold what it was told to, and leave no lock", async () => {
  const { totals } = await mustHold({ mode: "schedules", first: 1, seeds: 40 });
  expect(totals.completions).toBeGreaterThan(2000);
  expect(totals.failedNodes).toBeGreaterThan(3);
  expect(totals.failedNodes).toBeLessThan(40);
});

test("a batch of crash states must show old or new bytes and leak at most", async () => {
  const { totals } = await mustHold({ mode: "crashes", first: 100, states: 3000 });
  expect(totals.goneOn).toBeGreaterThan(30);
});

test.skipIf(!hasQemuImg())(
  "qemu-img must find leaks at most, and read the same bytes",
  async () => {
    const { totals } = await mustHold({ mode: "crashes", first: 200, states: 1000, qemuEvery: 40 });
    expect(totals.judged).toBeGreaterThan(12);
    expect(totals.converted).toBeGreaterThan(0);
  },
);
