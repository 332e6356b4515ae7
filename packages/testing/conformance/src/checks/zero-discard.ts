/** Zeroing and discarding: what reads as zeroes, what may, and what must stay. */
import { alignDown, alignUp } from "@blocklayer/bytes";
import type { WriteZeroesOptions } from "@blocklayer/block-api";
import { errorOf, expectBytes, expectThat, isRefusal, textOf } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { CheckOutcome, ConformanceCheck } from "../source.js";
import type { TestDisk } from "../test-disk.js";
import { telltaleRanges, withWritableDisk } from "./read-write.js";

/** Checks of zeroing and discarding. */
export const zeroDiscardChecks: readonly ConformanceCheck[] = [
  {
    name: "writeZeroes() at every kind of range reads as zeroes, and its neighbours stay",
    run: (source) => withWritableDisk(source, (disk) => zeroEverywhere(disk, {})),
  },
  {
    name: "writeZeroes({ mayUnmap }) reads as zeroes just the same",
    run: (source) => withWritableDisk(source, (disk) => zeroEverywhere(disk, { mayUnmap: true })),
  },
  {
    name: "writeZeroes() takes effect on a fresh disk, and may be written over",
    run: (source) => withWritableDisk(source, zeroThenWrite),
  },
  {
    name: "writeZeroes({ noFallback }) zeroes, or refuses and changes nothing",
    run: (source) => withWritableDisk(source, zeroWithoutFallback),
  },
  {
    name: "discard() leaves each byte as before or zero, and its neighbours as they are",
    run: (source) => withWritableDisk(source, discardEverywhere),
  },
  {
    name: "writev() after discard() is read back",
    run: (source) => withWritableDisk(source, discardThenWrite),
  },
];

/** @throws ConformanceError unless each byte is either the old one or zero */
export function expectOldOrZero(
  actual: Uint8Array,
  old: Uint8Array,
  offset: number,
  what: string,
): void {
  const allowed = old.map((byte, index) => (actual[index] === 0 ? 0 : byte));
  expectBytes(actual, allowed, offset, `${what}: neither as before nor zero`);
}

async function fill(disk: TestDisk, seed: number): Promise<Uint8Array> {
  const model = disk.copyOf(pattern(seed, disk.usableBytes));
  await disk.write(0, model);
  return model;
}

async function zeroEverywhere(disk: TestDisk, options: WriteZeroesOptions): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.writeZeroes) return { skipped: "no writeZeroes" };
  const model = await fill(disk, 70);
  for (const [index, { offset, lengthBytes }] of telltaleRanges(disk).entries()) {
    await disk.writeZeroes(offset, lengthBytes, options);
    model.fill(0, offset, offset + lengthBytes);
    await disk.expectContent(model, `after writeZeroes ${index} (${offset}, ${lengthBytes})`);
    if (index % 3 !== 0) continue;
    // Filled again: later ranges must meet data, not zeroes.
    const bytes = pattern(700 + index, lengthBytes);
    await disk.write(offset, bytes);
    model.set(bytes, offset);
  }
  await disk.expectContent(model, "after all of them");
  return "passed";
}

async function zeroThenWrite(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.writeZeroes) return { skipped: "no writeZeroes" };
  const model = disk.initialContent();
  const span = alignUp(150_000, disk.unit);
  await disk.writeZeroes(disk.unit, span);
  model.fill(0, disk.unit, disk.unit + span);
  await disk.expectContent(model, "zeroes on a fresh disk");
  const bytes = pattern(71, alignUp(5000, disk.unit));
  await disk.write(disk.unit * 2, bytes);
  model.set(bytes, disk.unit * 2);
  await disk.expectContent(model, "data over zeroes");
  return "passed";
}

async function zeroWithoutFallback(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.writeZeroes) return { skipped: "no writeZeroes" };
  const model = await fill(disk, 72);
  const { driver, unit } = disk;
  const longest = alignDown(driver.limits.maxWriteZeroes, unit);
  const length = Math.min(alignUp(70_000, unit), longest);
  const error = await errorOf(() => driver.writeZeroes(unit, length, { noFallback: true }));
  if (error === undefined) model.fill(0, unit, unit + length);
  else expectThat(isRefusal(error), `refuses with a BlockError, not ${textOf(error)}`);
  await disk.expectContent(model, "after writeZeroes({ noFallback })");
  return "passed";
}

async function discardEverywhere(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.discard) return { skipped: "no discard" };
  for (const [index, { offset, lengthBytes }] of telltaleRanges(disk).entries()) {
    const model = await fill(disk, 80 + index);
    await disk.discard(offset, lengthBytes);
    const actual = await disk.read(0, model.length);
    const end = offset + lengthBytes;
    const what = `after discard ${index} (${offset}, ${lengthBytes})`;
    expectOldOrZero(actual.subarray(offset, end), model.subarray(offset, end), offset, what);
    expectBytes(actual.subarray(0, offset), model.subarray(0, offset), 0, `${what}, before it`);
    expectBytes(actual.subarray(end), model.subarray(end), end, `${what}, behind it`);
  }
  return "passed";
}

async function discardThenWrite(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.discard) return { skipped: "no discard" };
  const model = await fill(disk, 75);
  const span = Math.min(alignUp(300_000, disk.unit), disk.usableBytes);
  await disk.discard(0, span);
  const bytes = pattern(76, alignUp(100_000, disk.unit));
  await disk.write(disk.unit, bytes);
  const end = disk.unit + bytes.length;
  const actual = await disk.read(0, model.length);
  expectBytes(actual.subarray(disk.unit, end), bytes, disk.unit, "a write after a discard");
  const rest = actual.subarray(end, span);
  expectOldOrZero(rest, model.subarray(end, span), end, "what was discarded and not written");
  expectBytes(actual.subarray(span), model.subarray(span), span, "what was not discarded");
  return "passed";
}
