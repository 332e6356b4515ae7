/** Flush, close, reopen: what was written is there afterwards. */
import { alignUp } from "@blocklayer/bytes";
import { errorOf, expectThat, isRefusal, textOf } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { CheckOutcome, ConformanceCheck } from "../source.js";
import { type TestDisk, withDisk } from "../test-disk.js";
import { withWritableDisk } from "./read-write.js";

/** Checks of a driver's life. */
export const lifecycleChecks: readonly ConformanceCheck[] = [
  {
    name: "a flush of a fresh disk, and a second one, change nothing",
    run: (source) =>
      withDisk(source, async (disk) => {
        await disk.flush();
        await disk.flush();
        await disk.expectContent(disk.initialContent(), "a fresh disk after two flushes");
      }),
  },
  {
    name: "a flush leaves every byte as it was",
    run: (source) =>
      withWritableDisk(source, async (disk) => {
        const model = await change(disk, disk.initialContent(), 110);
        await disk.flush();
        await disk.expectContent(model, "after a flush");
      }),
  },
  {
    name: "what was flushed is there after close and open",
    run: (source) => withWritableDisk(source, (disk) => reopen(disk, true)),
  },
  {
    name: "close() flushes: what was written is there after close and open",
    run: (source) => withWritableDisk(source, (disk) => reopen(disk, false)),
  },
  {
    name: "truncate() lasts: the length is there after close and open",
    run: (source) => withWritableDisk(source, reopenTruncated),
  },
  {
    name: "reopen() to read-only and back keeps every byte, or is refused and changes nothing",
    run: (source) => withWritableDisk(source, changeMode),
  },
  {
    name: "inactivate() and activate() keep every byte, and no write is taken between them",
    run: (source) => withWritableDisk(source, handOver),
  },
];

/** Data, zeroes and an overwrite, others for every seed; returns what the disk must hold. */
async function change(disk: TestDisk, before: Uint8Array, seed: number): Promise<Uint8Array> {
  const model = before.slice();
  const at = alignUp(60_000, disk.unit);
  const bytes = pattern(seed, alignUp(150_000, disk.unit));
  await disk.write(at, bytes);
  model.set(bytes, at);
  if (disk.driver.capabilities.writeZeroes) {
    const zeroes = alignUp(70_000, disk.unit);
    await disk.writeZeroes(at + disk.unit, zeroes);
    model.fill(0, at + disk.unit, at + disk.unit + zeroes);
  }
  const small = pattern(seed + 1, disk.unit);
  await disk.write(at, small);
  model.set(small, at);
  await disk.write(model.length - disk.unit, small);
  model.set(small, model.length - disk.unit);
  return model;
}

async function reopen(disk: TestDisk, isFlushed: boolean): Promise<CheckOutcome> {
  if (!disk.canReopen) return { skipped: "the source cannot open its disk again" };
  let model = await change(disk, disk.initialContent(), 110);
  if (isFlushed) await disk.flush();
  await disk.reopen();
  await disk.expectContent(model, "after close and open");
  model = await change(disk, model, 112);
  await disk.reopen();
  await disk.expectContent(model, "after a second round");
  return "passed";
}

async function reopenTruncated(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.canReopen) return { skipped: "the source cannot open its disk again" };
  if (!disk.driver.capabilities.truncate) return { skipped: "no truncate" };
  const step = Math.max(512, disk.unit);
  const lengthBytes = alignUp(disk.driver.lengthBytes + 100_000, step);
  await disk.driver.truncate(lengthBytes);
  await disk.reopen();
  const actual = disk.driver.lengthBytes;
  expectThat(actual === lengthBytes, `lengthBytes is ${actual}, must be ${lengthBytes}`);
  return "passed";
}

async function changeMode(disk: TestDisk): Promise<CheckOutcome> {
  const { driver } = disk;
  const model = await change(disk, disk.initialContent(), 110);
  await disk.flush();
  const error = await errorOf(() => driver.reopen({ readOnly: true, options: {} }));
  if (error !== undefined) {
    expectThat(isRefusal(error), `refuses with a BlockError, not ${textOf(error)}`);
    expectThat(driver.capabilities.write, "a refused reopen() leaves the disk writable");
  } else {
    expectThat(!driver.capabilities.write, "after reopen({ readOnly }) 'write' is false");
    await disk.expectContent(model, "after reopen({ readOnly: true })");
    await driver.reopen({ readOnly: false, options: {} });
    expectThat(driver.capabilities.write, "after reopen back 'write' is true");
  }
  await disk.expectContent(await change(disk, model, 112), "written after reopen()");
  return error === undefined ? "passed" : { skipped: "the driver refuses reopen()" };
}

async function handOver(disk: TestDisk): Promise<CheckOutcome> {
  const { driver } = disk;
  if (driver.activate === undefined) return { skipped: "the driver has nothing to hand over" };
  const model = await change(disk, disk.initialContent(), 110);
  await driver.inactivate?.();
  if (driver.inactivate !== undefined) {
    const error = await errorOf(() => disk.write(0, pattern(1, disk.unit)));
    expectThat(isRefusal(error), `an inactive disk refuses to be written, not ${textOf(error)}`);
  }
  await driver.activate();
  await disk.expectContent(model, "after activate()");
  await disk.expectContent(await change(disk, model, 112), "written after activate()");
  return "passed";
}
