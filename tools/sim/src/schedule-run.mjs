// One seed of `schedules`: requests beside each other, in the scheduler's order, with faults; then everything that must
// hold afterwards.
import { BlockError } from "@blocklayer/bytes";
import { atOnce } from "./at-once.mjs";
import { Violation } from "./guest-run.mjs";
import { asViolation, disksOf } from "./inspect.mjs";
import { inspectorOf, runOf } from "./kinds.mjs";
import { createImage, Stack } from "./stack.mjs";

const SECTOR = 512;

/**
 * Runs a list of operations.
 *
 * @param {import("./config.mjs").SimConfig} config
 * @param {readonly import("./operations.mjs").Operation[]} operations
 * @returns {Promise<{ completions: number, failed: boolean, leaks: number }>}
 * @throws Violation
 */
export async function runSchedule(config, operations) {
  const stack = new Stack(config, await createImage(config));
  const run = runOf(stack);
  const end = await schedule(stack, async () => {
    await run.run(operations);
    return run.ended ? { clean: false, failed: true } : finish(run);
  });
  if (run.violation !== undefined) throw run.violation;
  const leaks = await judge(run, end);
  return { completions: stack.scheduler?.completed ?? 0, failed: end.failed, leaks };
}

/** Runs work under the stack's scheduler. What it throws, a deadlock too, is a Violation. */
export async function schedule(stack, work) {
  try {
    return await (stack.scheduler === undefined ? atOnce(work) : stack.scheduler.run(work));
  } catch (error) {
    throw asViolation("the run did not end as it must", error);
  }
}

/** The disk works again from here on: what is not lost must be there, and go to the file. */
async function finish(run) {
  const { stack, reference } = run;
  stack.file.clearFaults();
  stack.spaceIsBack = true;
  if (run.violation !== undefined) return { clean: false, failed: true };
  refuseLeftovers(stack);
  const failed = stack.hasFailed;
  try {
    const start = reference.now;
    reference.checkRead(0, await stack.backend.read(0, stack.backend.lengthBytes), start);
  } catch (error) {
    // A read may need room in a cache, for which a node that failed does not write.
    if (!failed || !(error instanceof BlockError)) throw asViolation("reading at the end", error);
  }
  const wroteCompressed = stack.statistics.compressedWrites > 0;
  const flushed = await succeeds(() => run.guest.flush(), failed);
  const closed = await succeeds(() => run.close(), failed);
  return { clean: !failed && flushed && closed, failed, wroteCompressed };
}

async function succeeds(work, failed) {
  try {
    await work();
    return true;
  } catch (error) {
    if (failed && error instanceof BlockError) return false;
    throw asViolation("the disk works again, and yet", error);
  }
}

/** After the last request nothing of it may be left. */
function refuseLeftovers(stack) {
  const { imageLocked, requestsInFlight, pendingAllocations, coolingClusters } = stack.statistics;
  const left = { imageLocked, requestsInFlight, pendingAllocations, coolingClusters };
  const isLeft = Object.values(left).some((value) => value !== false && value !== 0);
  if (isLeft)
    throw new Violation(`something is left after the last request: ${JSON.stringify(left)}`);
}

/** What lies on the disk now, and what a power failure would leave of it. */
async function judge(run, { clean, wroteCompressed }) {
  const { stack, armed, mayLeak } = run;
  const { file, data, config } = stack;
  // Readers of compressed data take whole sectors.
  if (clean && wroteCompressed && file.lengthBytes % SECTOR !== 0) {
    throw new Violation(`the file ends within a sector, at ${file.lengthBytes}`);
  }
  const inspector = inspectorOf(config);
  let most = 0;
  for (const { what, content } of [
    { what: "the file", content: { file: file.bytes, data: data?.bytes } },
    {
      what: "what is durable of the file",
      content: { file: file.durable, data: data?.durable },
    },
  ]) {
    try {
      const found = await atOnce(() => inspector.look(disksOf(content)));
      const { leaks } = found;
      run.accept(found, { isClean: clean });
      if (!armed && leaks > 0) throw new Violation(`${leaks} clusters leak, and nothing failed`);
      if (clean && !mayLeak && !stack.failedToName && leaks > 0) {
        throw new Violation(
          `${leaks} clusters leak, and only writes of other things than names failed`,
        );
      }
      most = Math.max(most, leaks);
    } catch (error) {
      throw asViolation(`${what}, ${clean ? "after a clean end" : "after a failure"}`, error);
    }
  }
  return most;
}
