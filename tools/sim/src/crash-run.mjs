// One seed of `crashes`: a run is recorded, and every state that a power failure may leave of it is looked at.
import { crashStates, Trace } from "@blocklayer/sim";
import { atOnce } from "./at-once.mjs";
import { GuestRun } from "./guest-run.mjs";
import { asViolation, Inspector } from "./inspect.mjs";
import { schedule } from "./schedule-run.mjs";
import { createImage, Stack } from "./stack.mjs";

/** States at one moment, at most. Few: other seeds have other moments. */
const MAX_SUBSETS = 4;
/** Every so manieth state is also written to. */
const GO_ON_EVERY = 64;

/**
 * @typedef {object} CrashHooks
 * @property {number} [maxStates] - stop after so many
 * @property {(state: import("@blocklayer/sim").CrashState, bytes: Uint8Array) => Promise<void>} [onState] - sees each
 *   state, and what the guest reads of it
 */

/**
 * Records a list of operations, and looks at what crashes leave.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @param {readonly import("./operations.mjs").Operation[]} operations
 * @param {CrashHooks} [hooks]
 * @returns {Promise<{ states: number, goneOn: number }>}
 * @throws Violation
 */
export async function runCrashes(config, operations, hooks = {}) {
  const { trace, reference } = await record(config, operations);
  const inspector = new Inspector(config);
  const { maxStates = Number.POSITIVE_INFINITY, onState } = hooks;
  const options = { seed: config.seed, maxSubsets: MAX_SUBSETS, tear: true };
  let states = 0;
  let goneOn = 0;
  for (const state of crashStates(trace, options)) {
    if (states >= maxStates) break;
    states++;
    try {
      const { bytes } = await atOnce(() => inspector.look(state.open()));
      reference.checkCrash(bytes, state.position);
      if ((state.index + config.seed) % GO_ON_EVERY === 0) {
        await atOnce(() => inspector.goOn(state.open(), bytes, state.index));
        goneOn++;
      }
      await onState?.(state, bytes);
    } catch (error) {
      throw asViolation(state.describe(), error);
    }
  }
  return { states, goneOn };
}

/** What the guest did, and what reached the file. */
async function record(config, operations) {
  const trace = new Trace();
  const stack = new Stack(config, await createImage(config), trace);
  const run = new GuestRun(stack, trace);
  await schedule(stack, async () => {
    await run.run(operations);
    if (run.ended) return;
    stack.file.clearFaults();
    await run.guest.flush().catch(() => undefined);
    await stack.close().catch(() => undefined);
  });
  if (run.violation !== undefined) throw run.violation;
  return { trace, reference: run.reference };
}
