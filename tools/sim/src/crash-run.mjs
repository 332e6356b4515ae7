// One seed of `crashes`: a run is recorded, and every state that a power failure may leave of it is looked at.
import { crashStates, Trace } from "@blocklayer/sim";
import { atOnce } from "./at-once.mjs";
import { asViolation } from "./inspect.mjs";
import { inspectorOf, runOf } from "./kinds.mjs";
import { schedule } from "./schedule-run.mjs";
import { createImage, Stack } from "./stack.mjs";

/** States at one moment, at most. Few: other seeds have other moments. */
const MAX_SUBSETS = 4;
/** Every so manieth state is also written to. */
const GO_ON_EVERY = 64;

/**
 * @typedef {object} CrashHooks
 * @property {number} [maxStates] - stop after so many
 * @property {(state: import("@blocklayer/sim").CrashState, found: { bytes: Uint8Array }) => Promise<void>} [onState] -
 *   sees each state, and what was found in it
 */

/**
 * Records a list of operations, and looks at what crashes leave.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @param {readonly import("./operations.mjs").Operation[]} operations
 * @param {CrashHooks} [hooks]
 * @returns {Promise<import("./job.mjs").Totals>}
 * @throws Violation
 */
export async function runCrashes(config, operations, hooks = {}) {
  const { trace, run } = await record(config, operations);
  const inspector = inspectorOf(config);
  const disksOf = (state) => ({
    file: state.open(),
    ...(config.dataFile === undefined ? {} : { data: state.open({}, 1) }),
  });
  const { maxStates = Number.POSITIVE_INFINITY, onState } = hooks;
  const options = { seed: config.seed, maxSubsets: MAX_SUBSETS, tear: true };
  let states = 0;
  let goneOn = 0;
  for (const state of crashStates(trace, options)) {
    if (states >= maxStates) break;
    states++;
    try {
      const found = await atOnce(() => inspector.look(disksOf(state)));
      run.accept(found, { isClean: false, position: state.position });
      if ((state.index + config.seed) % GO_ON_EVERY === 0) {
        await atOnce(() => inspector.goOn(disksOf(state), found, state.index));
        goneOn++;
      }
      await onState?.(state, found);
    } catch (error) {
      throw asViolation(state.describe(), error);
    }
  }
  return { states, goneOn, ...inspector.counts };
}

/** What the guest did, and what reached the file. */
async function record(config, operations) {
  const trace = new Trace();
  const stack = new Stack(config, await createImage(config), trace);
  const run = runOf(stack, trace);
  await schedule(stack, async () => {
    await run.run(operations);
    if (run.ended) return;
    stack.file.clearFaults();
    await run.guest.flush().catch(() => undefined);
    await run.close().catch(() => undefined);
  });
  if (run.violation !== undefined) throw run.violation;
  return { trace, run };
}
