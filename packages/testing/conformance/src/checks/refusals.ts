/** What a driver cannot do it refuses; what is aborted ends; neither leaves a trace. */
import { alignUp, hasCode, IoVector, type MaybePromise } from "@blocklayer/bytes";
import { errorOf, expectBytes, expectCode, expectThat, isRefusal, textOf } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { CheckOutcome, ConformanceCheck } from "../source.js";
import { type TestDisk, withDisk } from "../test-disk.js";
import { withWritableDisk } from "./read-write.js";
import { expectOldOrZero } from "./zero-discard.js";

/** Checks of refusals and aborts. */
export const refusalChecks: readonly ConformanceCheck[] = [
  {
    name: "a request whose signal is aborted rejects with ECANCELED and changes nothing",
    run: (source) => withDisk(source, abortBefore),
  },
  {
    name: "an abort in flight ends in success or ECANCELED, and the disk goes on working",
    run: (source) => withWritableDisk(source, abortDuring),
  },
  {
    name: "a read-only disk refuses every change and stays as it is",
    run: (source) => withDisk(source, refuseChanges),
  },
  {
    name: "what a driver's capabilities deny it refuses or does, and never pretends",
    run: (source) => withWritableDisk(source, refuseDenied),
  },
];

async function abortBefore(disk: TestDisk): Promise<void> {
  const { driver, unit } = disk;
  const options = { signal: AbortSignal.abort() };
  const expectCanceled = (what: string, action: () => unknown): Promise<void> =>
    expectCode(["ECANCELED"], `${what} with an aborted signal`, action);
  const vector = IoVector.of(disk.copyOf(pattern(120, unit)));
  await expectCanceled("readv()", () => driver.readv(0, IoVector.of(disk.allocate(unit)), options));
  await expectCanceled("blockStatus()", () => driver.blockStatus(0, unit, options));
  const { write, writeZeroes, discard, truncate } = driver.capabilities;
  if (write) await expectCanceled("writev()", () => driver.writev(0, vector, options));
  if (writeZeroes)
    await expectCanceled("writeZeroes()", () => driver.writeZeroes(0, unit, options));
  if (discard) await expectCanceled("discard()", () => driver.discard(0, unit, options));
  const before = driver.lengthBytes;
  if (truncate) {
    const longer = alignUp(before + 1, Math.max(unit, 512));
    await expectCanceled("truncate()", () => driver.truncate(longer, options));
  }
  expectThat(driver.lengthBytes === before, "the length stays");
  await disk.expectContent(disk.initialContent(), "after requests that were aborted before");
}

async function abortDuring(disk: TestDisk): Promise<void> {
  const { driver, unit } = disk;
  const length = Math.min(alignUp(100_000, unit), driver.limits.maxTransfer);
  const old = pattern(121, length);
  await disk.write(0, old);
  const bytes = pattern(122, length);
  const controller = new AbortController();
  const running = [
    errorOf(() => driver.writev(0, IoVector.of(disk.copyOf(bytes)), controller)),
    errorOf(() => driver.readv(0, IoVector.of(disk.allocate(length)), controller)),
  ];
  controller.abort();
  for (const error of await Promise.all(running)) {
    const isExpected = error === undefined || hasCode(error, "ECANCELED");
    expectThat(isExpected, `ends in success or ECANCELED, not ${textOf(error)}`);
  }
  const actual = await disk.read(0, length);
  const foreign = actual.findIndex((byte, i) => byte !== old[i] && byte !== bytes[i]);
  expectThat(foreign === -1, `byte ${foreign} is neither the old nor the new one`);
  await disk.write(0, bytes);
  expectBytes(await disk.read(0, length), bytes, 0, "a write after the abort");
}

async function refuseChanges(disk: TestDisk): Promise<CheckOutcome> {
  const { driver, unit } = disk;
  if (driver.capabilities.write) return { skipped: "the disk is writable" };
  for (const name of ["compressedWrite", "writeZeroes", "discard", "truncate"] as const) {
    expectThat(!driver.capabilities[name], `a read-only disk has no capability '${name}'`);
  }
  const bytes = disk.copyOf(pattern(123, unit));
  await expectRefused("writev()", () => driver.writev(0, IoVector.of(bytes)));
  await expectRefused("writeZeroes()", () => driver.writeZeroes(0, unit));
  await expectRefused("truncate()", () => driver.truncate(driver.lengthBytes + 4096));
  await disk.expectContent(disk.initialContent(), "a read-only disk after refusals");
  return "passed";
}

async function expectRefused(what: string, action: () => MaybePromise<void>): Promise<void> {
  const error = await errorOf(action);
  expectThat(error !== undefined, `${what} of a read-only disk must fail, and succeeded`);
  expectThat(isRefusal(error), `${what} refuses with a BlockError, not ${textOf(error)}`);
}

async function refuseDenied(disk: TestDisk): Promise<CheckOutcome> {
  const { driver, unit } = disk;
  const denied = Object.entries(driver.capabilities).filter(([, value]) => !value);
  const model = pattern(124, disk.usableBytes);
  await disk.write(0, model);
  const length = Math.min(alignUp(65_536, unit), driver.limits.maxTransfer);
  if (!driver.capabilities.writeZeroes) {
    const error = await errorOf(() => driver.writeZeroes(0, length));
    expectRefusalIfAny("writeZeroes()", error);
    if (error === undefined) model.fill(0, 0, length);
  }
  if (!driver.capabilities.compressedWrite) {
    const bytes = pattern(125, length);
    const vector = IoVector.of(disk.copyOf(bytes));
    const error = await errorOf(() => driver.writev(0, vector, { compressed: true }));
    expectRefusalIfAny("writev({ compressed })", error);
    if (error === undefined) model.set(bytes);
  }
  if (!driver.capabilities.truncate) await refuseTruncate(disk);
  if (!driver.capabilities.discard) {
    expectRefusalIfAny("discard()", await errorOf(() => driver.discard(0, length)));
    const actual = await disk.read(0, length);
    expectOldOrZero(actual, model.subarray(0, length), 0, "a denied discard()");
    model.set(actual);
  }
  await disk.expectContent(model, "after what the capabilities deny");
  return denied.length > 0 ? "passed" : { skipped: "the driver can do everything" };
}

async function refuseTruncate(disk: TestDisk): Promise<void> {
  const before = disk.driver.lengthBytes;
  const after = before + Math.max(disk.unit, 512);
  const error = await errorOf(() => disk.driver.truncate(after));
  expectRefusalIfAny("truncate()", error);
  const expected = error === undefined ? after : before;
  const actual = disk.driver.lengthBytes;
  expectThat(actual === expected, `after a denied truncate() lengthBytes is ${actual}`);
}

function expectRefusalIfAny(what: string, error: unknown): void {
  const isExpected = error === undefined || isRefusal(error);
  expectThat(isExpected, `${what} refuses with a BlockError, not ${textOf(error)}`);
}
