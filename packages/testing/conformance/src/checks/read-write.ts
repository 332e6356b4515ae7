/** Reading and writing: what was written is read, and nothing else changes. */
import { alignDown, alignUp, IoVector } from "@blocklayer/bytes";
import { expectBytes, expectThat } from "../expectation.js";
import { pattern, split } from "../pattern.js";
import type { ConformanceCheck, DriverSource } from "../source.js";
import { type TestDisk, withDisk } from "../test-disk.js";

/** Sizes at whose multiples drivers change their ways: sectors, pages, chunks, clusters. */
const BOUNDARIES = [512, 4096, 65536, 131072, 1048576];
/** How far around a write its neighbours are compared. */
const NEIGHBOURHOOD_BYTES = 8192;
/** More parts than one system call takes (IOV_MAX is 1024). */
const MANY_PARTS = 1500;
/** The longest request that is tried where a driver takes any length. */
const LONG_REQUEST_BYTES: number = 8 * 1024 * 1024;

/** A part of the disk. */
export interface Range {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Ranges at, before and across the boundaries, of short and long lengths, and those at the end. */
export function telltaleRanges(disk: TestDisk): Range[] {
  const { unit, usableBytes } = disk;
  const ranges: Range[] = [];
  const add = (offset: number, lengthBytes: number): void => {
    const fits = offset >= 0 && lengthBytes > 0 && offset + lengthBytes <= usableBytes;
    if (fits && offset % unit === 0 && lengthBytes % unit === 0)
      ranges.push({ offset, lengthBytes });
  };
  const lengths = [unit, alignUp(700, unit), 4096, alignUp(5000, unit), 65536, 65536 + unit];
  for (const [index, boundary] of BOUNDARIES.entries()) {
    for (const start of [boundary - unit, boundary, boundary + unit]) {
      const length = lengths[(index + start / unit) % lengths.length] as number;
      add(start, unit);
      add(start, alignUp(length, unit));
    }
    add(boundary - alignUp(boundary / 4, unit), alignUp(boundary / 2, unit));
  }
  add(0, unit);
  add(0, alignUp(200_000, unit));
  for (const length of lengths) add(usableBytes - alignUp(length, unit), alignUp(length, unit));
  return ranges;
}

/** Checks of reads and writes. */
export const readWriteChecks: readonly ConformanceCheck[] = [
  {
    name: "readv() of a fresh disk returns its initial content",
    run: (source) =>
      withDisk(source, async (disk) => {
        await disk.expectContent(disk.initialContent(), "a fresh disk");
      }),
  },
  {
    name: "readv() at every kind of range returns what lies there",
    run: (source) =>
      withDisk(source, async (disk) => {
        const model = disk.initialContent();
        if (disk.driver.capabilities.write) {
          model.set(pattern(3, model.length));
          await disk.write(0, model);
        }
        for (const { offset, lengthBytes } of telltaleRanges(disk)) {
          const expected = model.subarray(offset, offset + lengthBytes);
          expectBytes(await disk.read(offset, lengthBytes), expected, offset, "readv()");
        }
      }),
  },
  {
    name: "readv() of the last, partial unit returns the disk's last bytes",
    run: (source) =>
      withDisk(source, async (disk) => {
        const tailBytes = disk.driver.lengthBytes - disk.usableBytes;
        if (tailBytes === 0) return { skipped: "the disk ends with a whole unit" };
        const target = disk.allocate(disk.unit);
        await disk.driver.readv(disk.usableBytes, IoVector.of(target));
        const expected = disk.initialTail();
        expectBytes(target.subarray(0, tailBytes), expected, disk.usableBytes, "the last bytes");
        return "passed";
      }),
  },
  {
    name: "writev() at every kind of range is read back, and its neighbours stay",
    run: (source) => withWritableDisk(source, writeEverywhere),
  },
  {
    name: "writev() over earlier writes replaces exactly its own range",
    run: (source) => withWritableDisk(source, overwrite),
  },
  {
    name: "writev() takes a vector of many uneven parts, in order",
    run: (source) => withWritableDisk(source, writeManyParts),
  },
  {
    name: "readv() fills a vector of many uneven parts, and nothing around them",
    run: (source) => withWritableDisk(source, readManyParts),
  },
  {
    name: "writev() has taken the bytes when it resolves: the buffer is the caller's again",
    run: (source) => withWritableDisk(source, reuseBuffer),
  },
  {
    name: "readv() and writev() of maxTransfer bytes work in one request",
    run: (source) => withWritableDisk(source, transferLong),
  },
  {
    name: "writev() with fua is read back",
    run: (source) =>
      withWritableDisk(source, async (disk) => {
        if (!disk.driver.capabilities.fua) return { skipped: "no fua" };
        const bytes = pattern(8, alignUp(9000, disk.unit));
        await disk.write(disk.unit, bytes, { fua: true });
        expectBytes(await disk.read(disk.unit, bytes.length), bytes, disk.unit, "fua write");
        return "passed";
      }),
  },
  {
    name: "writev() past the end grows a byte store, and the gap reads as zeroes",
    run: (source) => withWritableDisk(source, growByWriting),
  },
  {
    name: "readv() and writev() return plainly when there is nothing to wait for",
    run: (source) =>
      withDisk(source, async (disk) => {
        const { driver } = disk;
        if (source.synchronous !== true) return { skipped: "the source does not promise it" };
        const vector = IoVector.of(disk.allocate(disk.unit));
        expectThat(!(driver.readv(0, vector) instanceof Promise), "readv() returns no promise");
        if (!driver.capabilities.write) return "passed";
        expectThat(!(driver.writev(0, vector) instanceof Promise), "writev() returns no promise");
        return "passed";
      }),
  },
];

/** As `withDisk`, for checks that write. */
export async function withWritableDisk(
  source: DriverSource,
  body: Parameters<typeof withDisk>[1],
): ReturnType<typeof withDisk> {
  return withDisk(source, async (disk) =>
    disk.driver.capabilities.write ? body(disk) : { skipped: "the disk is read-only" },
  );
}

async function writeEverywhere(disk: TestDisk): Promise<void> {
  const model = disk.initialContent();
  for (const [index, { offset, lengthBytes }] of telltaleRanges(disk).entries()) {
    const bytes = pattern(100 + index, lengthBytes);
    await disk.write(offset, bytes);
    model.set(bytes, offset);
    const from = alignDown(Math.max(0, offset - NEIGHBOURHOOD_BYTES), disk.unit);
    const end = offset + lengthBytes + NEIGHBOURHOOD_BYTES;
    const to = Math.min(model.length, alignUp(end, disk.unit));
    const expected = model.subarray(from, to);
    expectBytes(await disk.read(from, to - from), expected, from, `after write ${index}`);
  }
  await disk.expectContent(model, "after all writes");
}

async function overwrite(disk: TestDisk): Promise<void> {
  const model = disk.initialContent();
  model.set(pattern(4, model.length));
  await disk.write(0, model);
  const start = alignUp(65536 - 1500, disk.unit);
  for (const lengthBytes of [disk.unit, alignUp(3000, disk.unit), alignUp(70_000, disk.unit)]) {
    if (start + lengthBytes > model.length) continue;
    const bytes = pattern(lengthBytes, lengthBytes);
    await disk.write(start, bytes);
    model.set(bytes, start);
    await disk.expectContent(model, `after a write of ${lengthBytes} bytes over old data`);
  }
}

/** A length that all limits allow, for a request that is cut into many parts. */
function manyPartsBytes(disk: TestDisk): number {
  const wanted = Math.max(disk.partUnit * MANY_PARTS, 3 * 65536);
  const fits = Math.min(wanted, disk.driver.limits.maxTransfer, disk.usableBytes - disk.unit);
  return alignDown(fits, Math.max(disk.unit, disk.partUnit));
}

async function writeManyParts(disk: TestDisk): Promise<void> {
  const model = disk.initialContent();
  const lengthBytes = manyPartsBytes(disk);
  for (const [index, count] of [2, 3, 17, MANY_PARTS].entries()) {
    const bytes = disk.copyOf(pattern(20 + index, lengthBytes));
    const vector = IoVector.from(split(bytes, count, disk.partUnit));
    await disk.driver.writev(disk.unit, vector);
    model.set(bytes, disk.unit);
    await disk.expectContent(model, `after a write of ${vector.parts.length} parts`);
  }
}

async function readManyParts(disk: TestDisk): Promise<void> {
  const lengthBytes = manyPartsBytes(disk);
  const expected = pattern(30, lengthBytes);
  await disk.write(disk.unit, expected);
  for (const count of [2, 3, 17, MANY_PARTS]) {
    // Room before and after each part, which a driver that takes the parts for one buffer overwrites.
    const gap = disk.partUnit;
    const sizes = split(new Uint8Array(lengthBytes), count, disk.partUnit).map(
      (part) => part.length,
    );
    const room = disk.allocate(lengthBytes + gap * (sizes.length + 1));
    room.fill(0xcd);
    let at = gap;
    const parts = sizes.map((size) => {
      const part = room.subarray(at, at + size);
      at += size + gap;
      return part;
    });
    await disk.driver.readv(disk.unit, IoVector.from(parts));
    const joined = new Uint8Array(lengthBytes);
    IoVector.from(parts).copyTo(joined);
    expectBytes(joined, expected, disk.unit, `read into ${parts.length} parts`);
    for (const part of parts) part.fill(0xcd);
    const isTouched = room.some((byte) => byte !== 0xcd);
    expectThat(!isTouched, `read into ${parts.length} parts: bytes between the parts stay`);
  }
}

async function reuseBuffer(disk: TestDisk): Promise<void> {
  const lengthBytes = alignUp(6000, disk.unit);
  const bytes = pattern(40, lengthBytes);
  const buffer = disk.copyOf(bytes);
  await disk.driver.writev(disk.unit, IoVector.of(buffer));
  expectBytes(buffer, bytes, 0, "the caller's buffer after writev()");
  buffer.fill(0x5a);
  expectBytes(await disk.read(disk.unit, lengthBytes), bytes, disk.unit, "after buffer reuse");
  const first = await disk.read(disk.unit, lengthBytes);
  first.fill(0x5a);
  expectBytes(await disk.read(disk.unit, lengthBytes), bytes, disk.unit, "after target reuse");
}

async function transferLong(disk: TestDisk): Promise<void> {
  const { maxTransfer } = disk.driver.limits;
  const lengthBytes = Math.min(maxTransfer, disk.usableBytes, LONG_REQUEST_BYTES);
  const bytes = disk.copyOf(pattern(50, lengthBytes));
  await disk.driver.writev(0, IoVector.of(bytes));
  const target = disk.allocate(lengthBytes);
  await disk.driver.readv(0, IoVector.of(target));
  expectBytes(target, bytes, 0, "one long request");
}

async function growByWriting(disk: TestDisk): ReturnType<ConformanceCheck["run"]> {
  if (disk.source.growsPastEnd !== true) return { skipped: "not a byte store that grows" };
  const before = disk.usableBytes;
  await disk.write(0, pattern(60, before));
  const gap = alignUp(100_000, disk.unit);
  const bytes = pattern(61, alignUp(5000, disk.unit));
  await disk.write(before + gap, bytes);
  const end = before + gap + bytes.length;
  expectThat(
    disk.driver.lengthBytes === end,
    `lengthBytes is ${disk.driver.lengthBytes}, must be ${end}`,
  );
  const model = new Uint8Array(end);
  model.set(pattern(60, before));
  model.set(bytes, before + gap);
  await disk.expectContent(model, "after a write past the end");
  return "passed";
}
