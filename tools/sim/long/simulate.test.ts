/** A share of fresh seeds for CI: the base is printed, so that what fails can be run again. */
import { expect, test } from "vitest";
import { hasQemuImg } from "../src/qemu.mjs";
import { mustHold } from "../test/support.js";

/** Another base every day, the same one for everybody on that day. */
const BASE = Number(
  process.env["BLOCKLAYER_SIM_BASE"] ?? 1_000_000 + Math.floor(Date.now() / 86_400_000) * 10_000,
);
const SCHEDULES = Number(process.env["BLOCKLAYER_SIM_SCHEDULES"] ?? 1500);
/** On a busy machine less is run, and the summary says so. */
const BUDGET_MS = { schedules: 120_000, crashes: 210_000, services: 60_000 };
const STATES = Number(process.env["BLOCKLAYER_SIM_STATES"] ?? 100_000);
/** A state of an image with snapshots is several disks to read. */
const UPKEEP_STATES = Math.ceil(STATES / 4);
const SERVICE_STATES = Math.ceil(STATES / 10);
/** How many of the states qemu-img looks at, roughly. */
const JUDGED = 60;

const SCHEDULE_MODES = ["schedules", "upkeep-schedules"] as const;

test.each(SCHEDULE_MODES)("fresh %s must hold", async (mode) => {
  console.log(`${mode}: seeds from ${BASE}`);
  const { seeds, cutShort } = await mustHold({
    mode,
    first: BASE,
    seeds: SCHEDULES,
    budgetMs: BUDGET_MS.schedules,
  });
  expect(cutShort || seeds === SCHEDULES).toBe(true);
});

test.each([
  { mode: "crashes", states: STATES },
  { mode: "upkeep-crashes", states: UPKEEP_STATES },
] as const)("fresh $mode must hold, for qemu-img too", async ({ mode, states }) => {
  console.log(`${mode}: seeds from ${BASE}`);
  const qemuEvery = hasQemuImg() ? Math.ceil(states / JUDGED) : undefined;
  const { totals, cutShort } = await mustHold({
    mode,
    first: BASE,
    states,
    budgetMs: BUDGET_MS.crashes,
    ...(qemuEvery === undefined ? {} : { qemuEvery }),
  });
  expect(cutShort || (totals.states ?? 0) >= states).toBe(true);
});

test("fresh service-crashes must hold", async () => {
  console.log(`service-crashes: seeds from ${BASE}`);
  const { totals, cutShort } = await mustHold({
    mode: "service-crashes",
    first: BASE,
    states: SERVICE_STATES,
    budgetMs: BUDGET_MS.services,
  });
  expect(cutShort || (totals.states ?? 0) >= SERVICE_STATES).toBe(true);
});
