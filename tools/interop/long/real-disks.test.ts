/** Disks as they are in the world: a gibibyte of file system, boot media, a tebibyte of almost nothing. */
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { expect, test } from "vitest";
import {
  BOOT_IMAGES,
  checkFileSystem,
  hugeRoundTrip,
  makeFileSystemDisk,
  measureConversions,
  roundTrip,
  table,
  withRoom,
} from "../src/real-disks.mjs";
import { isInstalled } from "../src/programs.mjs";
import { describeWithQemu, withFolder } from "../test/support.js";

const GIB = 2 ** 30;
/** Of a disk with little on it. Node itself takes 45 MiB. */
const SPARSE_LIMIT_MIB = 200;
/** Of a full disk, with two compressing threads and sixteen requests in flight. */
const FULL_LIMIT_MIB = 200;
/** 800 MiB of files make a disk of 1.1 GiB. */
const CONTENT_MIB = 800;
const isRequired = process.env["BLOCKLAYER_REQUIRE_QEMU"] !== undefined;

process.env["PATH"] += ":/usr/sbin:/sbin";

interface Measured {
  readonly what: string;
  readonly peakMiB: number;
}

function tooHungry(measured: readonly Measured[], limitMiB: number): readonly Measured[] {
  return measured.filter(({ peakMiB }) => peakMiB >= limitMiB);
}

describeWithQemu("real disks", () => {
  const hasExt4 = isInstalled("mke2fs") && isInstalled("e2fsck");
  if (!hasExt4 && isRequired) throw new Error("mke2fs and e2fsck are required, and not there");

  test.skipIf(!hasExt4)("a disk full of files must come back whole, in little memory", async () => {
    await withRoom(8 * GIB, async (folder) => {
      const raw = makeFileSystemDisk(folder, CONTENT_MIB);
      expect(statSync(raw).size).toBeGreaterThanOrEqual(GIB);
      const { steps, qcow2, compressed, back } = await roundTrip(raw, folder);
      await checkFileSystem(back);
      rmSync(back);
      const measured = [
        ...steps,
        ...(await measureConversions({ raw, qcow2, compressed }, folder)),
      ];
      console.log(table(measured));
      expect(tooHungry(measured, FULL_LIMIT_MIB)).toEqual([]);
    });
  });

  test("a disk of a tebibyte with little on it must be converted in little memory", async () => {
    await withRoom(GIB, async (folder) => {
      const measured = await hugeRoundTrip(folder);
      console.log(table(measured));
      expect(tooHungry(measured, SPARSE_LIMIT_MIB)).toEqual([]);
    });
  });

  for (const image of BOOT_IMAGES) {
    const isThere = existsSync(image.path);
    if (!isThere && isRequired) throw new Error(`${image.path} of ${image.package} is not there`);
    test.skipIf(!isThere)(`${image.path} must come back as it was`, async () => {
      await withFolder(async (folder) => {
        const { back } = await roundTrip(image.path, folder);
        expect(readFileSync(back).equals(readFileSync(image.path))).toBe(true);
        // Whoever boots it looks for the signature of a boot sector first.
        expect([...readFileSync(back).subarray(510, 512)]).toEqual([0x55, 0xaa]);
      });
    });
  }
});
