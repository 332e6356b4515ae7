/** Truncate: what is new reads as zeroes, what is cut off is gone. */
import { alignUp, hasCode } from "@blocklayer/bytes";
import { errorOf, expectBytes, expectThat, textOf } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { CheckOutcome, ConformanceCheck } from "../source.js";
import type { TestDisk } from "../test-disk.js";
import { withWritableDisk } from "./read-write.js";

/** Every format has sizes in sectors. */
const SIZE_UNIT_BYTES = 512;

/** Checks of `truncate`. */
export const lengthChecks: readonly ConformanceCheck[] = [
  {
    name: "truncate() to more: the new part reads as zeroes and takes writes",
    run: (source) => withWritableDisk(source, grow),
  },
  {
    name: "truncate() to less and back: what was cut off reads as zeroes",
    run: (source) => withWritableDisk(source, shrinkAndGrow),
  },
  {
    name: "truncate() to the same length changes nothing",
    run: (source) =>
      withWritableDisk(source, async (disk) => {
        if (!disk.driver.capabilities.truncate) return { skipped: "no truncate" };
        const { model, lengthBytes } = await filled(disk, 100);
        await disk.driver.truncate(lengthBytes);
        expectLength(disk, lengthBytes);
        await disk.expectContent(model, "after a truncate to the same length");
        return "passed";
      }),
  },
];

/** Fills a disk whose length is a multiple of the unit. */
async function filled(
  disk: TestDisk,
  seed: number,
): Promise<{ model: Uint8Array; lengthBytes: number }> {
  const lengthBytes = alignUp(disk.driver.lengthBytes, Math.max(disk.unit, SIZE_UNIT_BYTES));
  if (lengthBytes !== disk.driver.lengthBytes) await disk.driver.truncate(lengthBytes);
  const model = pattern(seed, lengthBytes);
  await disk.write(0, model);
  return { model, lengthBytes };
}

async function grow(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.truncate) return { skipped: "no truncate" };
  const step = Math.max(disk.unit, SIZE_UNIT_BYTES);
  let { model } = await filled(disk, 101);
  for (const more of [step, alignUp(70_000, step), alignUp(1_200_000, step)]) {
    const grown = new Uint8Array(model.length + more);
    grown.set(model);
    await disk.driver.truncate(grown.length);
    expectLength(disk, grown.length);
    await disk.expectContent(grown, `after growing by ${more} bytes`);
    const bytes = pattern(more, step);
    await disk.write(grown.length - step, bytes);
    grown.set(bytes, grown.length - step);
    await disk.expectContent(grown, "after a write at the new end");
    model = grown;
  }
  return "passed";
}

async function shrinkAndGrow(disk: TestDisk): Promise<CheckOutcome> {
  if (!disk.driver.capabilities.truncate) return { skipped: "no truncate" };
  const step = Math.max(disk.unit, SIZE_UNIT_BYTES);
  for (const less of [step, alignUp(3000, step), alignUp(200_000, step)]) {
    const { model, lengthBytes } = await filled(disk, 102);
    const shorter = lengthBytes - less;
    const error = await errorOf(() => disk.driver.truncate(shorter));
    if (error !== undefined) {
      expectThat(hasCode(error, "ENOTSUP"), `refuses to shrink with ENOTSUP, not ${textOf(error)}`);
      expectLength(disk, lengthBytes);
      await disk.expectContent(model, "after a shrink that was refused");
      return { skipped: "the driver refuses to shrink" };
    }
    expectLength(disk, shorter);
    await disk.expectContent(model.subarray(0, shorter), `after shrinking by ${less} bytes`);
    await disk.driver.truncate(lengthBytes);
    model.fill(0, shorter);
    const actual = await disk.read(0, lengthBytes);
    expectBytes(actual, model, 0, `after shrinking by ${less} bytes and growing back`);
  }
  return "passed";
}

function expectLength(disk: TestDisk, lengthBytes: number): void {
  const actual = disk.driver.lengthBytes;
  expectThat(actual === lengthBytes, `lengthBytes is ${actual}, must be ${lengthBytes}`);
}
