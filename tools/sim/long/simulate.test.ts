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
const BUDGET_MS = { schedules: 120_000, crashes: 210_000 };
const STATES = Number(process.env["BLOCKLAYER_SIM_STATES"] ?? 100_000);
/** How many of the states qemu-img looks at, roughly. */
const JUDGED = 60;

test("fresh schedules must hold", async () => {
  console.log(`schedules: seeds from ${BASE}`);
  const { seeds, cutShort } = await mustHold({
    mode: "schedules",
    first: BASE,
    seeds: SCHEDULES,
    budgetMs: BUDGET_MS.schedules,
  });
  expect(cutShort || seeds === SCHEDULES).toBe(true);
});

test("fresh crash states must hold, for qemu-img too", async () => {
  console.log(`crashes: seeds from ${BASE}`);
  const qemuEvery = hasQemuImg() ? Math.ceil(STATES / JUDGED) : undefined;
  const { totals, cutShort } = await mustHold({
    mode: "crashes",
    first: BASE,
    states: STATES,
    budgetMs: BUDGET_MS.crashes,
    ...(qemuEvery === undefined ? {} : { qemuEvery }),
  });
  expect(cutShort || (totals.states ?? 0) >= STATES).toBe(true);
});
