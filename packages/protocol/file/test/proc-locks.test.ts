import { describe, expect, test } from "vitest";
import { mountDevice, parseProcLocks } from "../src/proc-locks.js";

const LISTING = [
  "1: OFDLCK ADVISORY  READ -1 fe:00:77 203 203",
  "2: OFDLCK ADVISORY  READ -1 fe:00:77 100 101",
  "2: -> OFDLCK ADVISORY  WRITE -1 fe:00:77 0 EOF",
  "3: POSIX  ADVISORY  WRITE 812 fe:00:77 201 EOF",
  "4: FLOCK  ADVISORY  WRITE 812 fe:00:77 0 EOF",
  "5: OFDLCK ADVISORY  READ -1 fe:01:77 102 102",
  "6: OFDLCK ADVISORY  READ -1 fe:00:770 102 102",
  "7: OFDLCK ADVISORY",
  "",
].join("\n");

describe("parseProcLocks()", () => {
  test("must give the ranges of this file's byte locks, not of waiters, flocks and other files", () => {
    expect(parseProcLocks(LISTING, { device: "254:0", inode: "77" })).toEqual([
      { first: 203, last: 203 },
      { first: 100, last: 101 },
      { first: 201, last: Number.POSITIVE_INFINITY },
    ]);
  });
});

describe("mountDevice()", () => {
  test("must find the device of the mount that a descriptor came through", () => {
    const fdinfo = "pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t5\n";
    const mounts = "28 1 0:25 / /sys rw - sysfs sysfs rw\n29 1 0:41 / / rw - btrfs /dev/vda rw\n";
    expect(mountDevice(fdinfo, mounts)).toBe("0:41");
    expect(mountDevice("pos:\t0\n", mounts)).toBeUndefined();
    expect(mountDevice("mnt_id:\t7\n", mounts)).toBeUndefined();
  });
});
