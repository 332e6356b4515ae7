/** Block status: extents tile the disk and tell the truth. */
import { alignUp, hex, isZero } from "@blocklayer/bytes";
import type { BlockStatus } from "@blocklayer/block-api";
import { expectThat } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { ConformanceCheck } from "../source.js";
import { type TestDisk, withDisk } from "../test-disk.js";
import { telltaleRanges, withWritableDisk } from "./read-write.js";

/** More extents than any of the suite's disks can have. */
const MAX_EXTENTS = 1_000_000;

/** Checks of block status. */
export const statusChecks: readonly ConformanceCheck[] = [
  {
    name: "blockStatus() tiles a fresh disk and tells the truth",
    run: (source) => withDisk(source, (disk) => checkStatus(disk, disk.initialContent())),
  },
  {
    name: "blockStatus() tiles a disk with data, holes and zeroes, and tells the truth",
    run: (source) =>
      withWritableDisk(source, async (disk) => {
        await checkStatus(disk, await makePatchwork(disk));
      }),
  },
  {
    name: "blockStatus() of any range is at least 1 byte and no longer than asked",
    run: (source) =>
      withDisk(source, async (disk) => {
        const model = disk.driver.capabilities.write
          ? await makePatchwork(disk)
          : disk.initialContent();
        for (const { offset, lengthBytes } of telltaleRanges(disk)) {
          await checkedExtent(disk, model, offset, lengthBytes, true);
          await checkedExtent(disk, model, offset, lengthBytes, false);
        }
      }),
  },
];

/** Data, then zeroes and a discarded part inside it, then what was never written. */
async function makePatchwork(disk: TestDisk): Promise<Uint8Array> {
  const { unit, usableBytes, driver } = disk;
  const model = disk.initialContent();
  const at = (share: number): number => alignUp(Math.floor(usableBytes * share), unit);
  const data = pattern(90, at(0.6) - at(0.1));
  await disk.write(at(0.1), data);
  model.set(data, at(0.1));
  if (driver.capabilities.writeZeroes) {
    await disk.writeZeroes(at(0.2), at(0.3) - at(0.2));
    model.fill(0, at(0.2), at(0.3));
  }
  if (driver.capabilities.discard) {
    await disk.discard(at(0.4), at(0.5) - at(0.4));
    model.set(await disk.read(at(0.4), at(0.5) - at(0.4)), at(0.4));
  }
  return model;
}

/** Walks the disk both ways of asking. */
async function checkStatus(disk: TestDisk, model: Uint8Array): Promise<void> {
  for (const wantZero of [true, false]) {
    let offset = 0;
    for (let count = 0; offset < model.length; count++) {
      expectThat(count < MAX_EXTENTS, "the disk has no end of extents");
      const extent = await checkedExtent(disk, model, offset, model.length - offset, wantZero);
      offset += extent.lengthBytes;
    }
    expectThat(offset === model.length, "the extents end where the disk ends");
  }
}

async function checkedExtent(
  disk: TestDisk,
  model: Uint8Array,
  offset: number,
  lengthBytes: number,
  wantZero: boolean,
): Promise<BlockStatus> {
  const status = await disk.driver.blockStatus(offset, lengthBytes, { wantZero });
  const what = `blockStatus(${hex(offset)}, ${lengthBytes}, { wantZero: ${wantZero} })`;
  const length = status.lengthBytes;
  expectThat(Number.isSafeInteger(length) && length >= 1, `${what}: length ${length} is below 1`);
  expectThat(length <= lengthBytes, `${what}: length ${length} is more than was asked`);
  expectThat(length % disk.unit === 0, `${what}: length ${length} is not a multiple of the unit`);
  const isAllZero = isZero(model, offset, offset + length);
  expectThat(!status.zero || isAllZero, `${what}: says zero, and there is data in ${length} bytes`);
  const { backing } = disk.driver.capabilities;
  expectThat(
    status.allocated || backing || isAllZero,
    `${what}: says unallocated, and there is data in ${length} bytes`,
  );
  if (status.compressed) {
    expectThat(status.hostOffset === undefined, `${what}: compressed bytes have no hostOffset`);
  }
  const { hostOffset } = status;
  expectThat(
    hostOffset === undefined || (Number.isSafeInteger(hostOffset) && hostOffset >= 0),
    `${what}: hostOffset ${hostOffset} is an offset`,
  );
  return status;
}
