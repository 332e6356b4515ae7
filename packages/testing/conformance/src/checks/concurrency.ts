/** Requests side by side: any order of ends, and none disturbs another. */
import { alignUp, IoVector } from "@blocklayer/bytes";
import { expectBytes, expectThat } from "../expectation.js";
import { pattern, Prng } from "../pattern.js";
import type { ConformanceCheck } from "../source.js";
import type { TestDisk } from "../test-disk.js";
import { withWritableDisk } from "./read-write.js";

/** Requests in flight together. */
const PARALLEL = 48;
const ROUNDS = 4;

/** Checks of parallel requests. */
export const concurrencyChecks: readonly ConformanceCheck[] = [
  {
    name: "writev() side by side on neighbouring ranges: each is read back whole",
    run: (source) => withWritableDisk(source, writeNeighbours),
  },
  {
    name: "reads, writes, zeroes and flushes side by side do not disturb each other",
    run: (source) => withWritableDisk(source, mixRequests),
  },
  {
    name: "writev() twice at once on one range leaves bytes of either, and no others",
    run: (source) => withWritableDisk(source, writeSameRange),
  },
];

async function writeNeighbours(disk: TestDisk): Promise<void> {
  const model = disk.initialContent();
  const random = new Prng(5);
  for (let round = 0; round < ROUNDS; round++) {
    // Lengths that share sectors, pages and clusters with their neighbours.
    const length = alignUp([700, 5000, 20_000, 4096][round] as number, disk.unit);
    const count = Math.min(PARALLEL, Math.floor(disk.usableBytes / length));
    const order = Array.from({ length: count }, (_, index) => index);
    order.sort(() => random.below(3) - 1);
    await Promise.all(
      order.map((index) => {
        const bytes = pattern(1000 * round + index, length);
        model.set(bytes, index * length);
        return disk.write(index * length, bytes);
      }),
    );
    await disk.expectContent(model, `after ${count} writes of ${length} bytes at once`);
  }
}

async function mixRequests(disk: TestDisk): Promise<void> {
  const { driver, unit, usableBytes } = disk;
  const model = disk.initialContent();
  model.set(pattern(6, usableBytes));
  await disk.write(0, model);
  const length = alignUp(9000, unit);
  const count = Math.min(PARALLEL, Math.floor(usableBytes / length));
  const running: Promise<void>[] = [];
  for (let index = 0; index < count; index++) {
    const offset = index * length;
    if (index % 3 === 0) {
      const bytes = pattern(2000 + index, length);
      model.set(bytes, offset);
      running.push(disk.write(offset, bytes));
    } else if (index % 3 === 1 && driver.capabilities.writeZeroes) {
      model.fill(0, offset, offset + length);
      running.push(disk.writeZeroes(offset, length));
    } else {
      running.push(readAndCompare(disk, model.slice(offset, offset + length), offset));
    }
  }
  running.push(disk.flush());
  await Promise.all(running);
  await disk.expectContent(model, "after the mix");
}

async function readAndCompare(disk: TestDisk, expected: Uint8Array, offset: number): Promise<void> {
  expectBytes(await disk.read(offset, expected.length), expected, offset, "a read in the mix");
}

async function writeSameRange(disk: TestDisk): Promise<void> {
  const length = Math.min(alignUp(80_000, disk.unit), disk.driver.limits.maxTransfer);
  const offset = disk.unit;
  for (let round = 0; round < ROUNDS; round++) {
    const one = pattern(3000 + round, length);
    const two = pattern(4000 + round, length);
    const send = async (bytes: Uint8Array): Promise<void> => {
      await disk.driver.writev(offset, IoVector.of(disk.copyOf(bytes)));
    };
    await Promise.all([send(one), send(two)]);
    const actual = await disk.read(offset, length);
    const foreign = actual.findIndex((byte, i) => byte !== one[i] && byte !== two[i]);
    expectThat(foreign === -1, `byte ${foreign} of the range comes from neither write`);
  }
}
