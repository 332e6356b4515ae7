/** Locks between our own opens, and with the real qemu-io and qemu-img in both directions. */
import {
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ALL_PERMISSIONS, PERMISSION } from "@blocklayer/block-api";
import { IoVector, MiB } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { createFile, loadNative, lockSupport, openFile } from "../src/index.js";
import { failureOf, noNative, QemuIo, run, scratchDirectory, useQemu } from "./support.js";

const directory = scratchDirectory();
const hasLocks = (await lockSupport()).locks === "ofd";
const seesLocks = (await lockSupport(noNative)).locks === "seen-only";
let files = 0;

function fresh(): string {
  const filename = join(directory, `lock-${files++}.img`);
  writeFileSync(filename, new Uint8Array(65536));
  return filename;
}

function freshQcow2(): string {
  const filename = join(directory, `lock-${files++}.qcow2`);
  expect(run("qemu-img", "create", "-q", "-f", "qcow2", filename, "1M").status).toBe(0);
  return filename;
}

/** The locked bytes of a file, as Linux lists them. */
function lockedBytes(filename: string): readonly number[] {
  const inode = String(statSync(filename).ino);
  const bytes: number[] = [];
  for (const line of readFileSync("/proc/locks", "latin1").split("\n")) {
    const fields = line.trim().split(/\s+/);
    if (fields[5]?.split(":")[2] !== inode) continue;
    for (let byte = Number(fields[6]); byte <= Number(fields[7]); byte++) bytes.push(byte);
  }
  return bytes.sort((a, b) => a - b);
}

/** How many descriptors of this process are of this file. */
function descriptorCount(filename: string): number {
  const open = (fd: string): boolean => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === filename;
    } catch {
      return false;
    }
  };
  return readdirSync("/proc/self/fd").filter(open).length;
}

const writeLock = /^Failed to get "write" lock\nIs another process using the image \[.*\]\?$/;
const sharedWriteLock =
  /^Failed to get shared "write" lock\nIs another process using the image \[.*\]\?$/;

describe.runIf(hasLocks)("ImageLock between opens of one process", () => {
  test("a writer must keep a second writer out, until it closes", async () => {
    const filename = fresh();
    const first = await openFile(filename);
    expect(first.lockState).toBe("locked");
    expect(await failureOf(() => openFile(filename))).toMatchObject({
      code: "EAGAIN",
      message: writeLock,
    });
    await first.close();
    await (await openFile(filename)).close();
    expect(lockedBytes(filename)).toEqual([]);
  });

  test("a writer must keep a reader out, but not one with forceShare", async () => {
    const filename = fresh();
    await using writer = await openFile(filename);
    expect(writer.lockState).toBe("locked");
    expect(await failureOf(() => openFile(filename, { readOnly: true }))).toMatchObject({
      code: "EAGAIN",
      message: sharedWriteLock,
    });
    await using reader = await openFile(filename, { readOnly: true, forceShare: true });
    expect(reader.lengthBytes).toBe(65536);
  });

  test("readers must not keep each other out, and must keep a writer out", async () => {
    const filename = fresh();
    await using first = await openFile(filename, { readOnly: true });
    await using second = await openFile(filename, { readOnly: true });
    expect([first.lockState, second.lockState]).toEqual(["locked", "locked"]);
    expect((await failureOf(() => openFile(filename))).message).toMatch(writeLock);
  });

  test("a refused open must leave no lock and no descriptor behind", async () => {
    const filename = fresh();
    const first = await openFile(filename);
    const before = lockedBytes(filename);
    const descriptors = descriptorCount(filename);
    await failureOf(() => openFile(filename));
    expect(lockedBytes(filename)).toEqual(before);
    expect([descriptors, descriptorCount(filename)]).toEqual([1, 1]);
    await first.close();
    expect(lockedBytes(filename)).toEqual([]);
  });

  test("locking off must neither take nor look", async () => {
    const filename = fresh();
    await using first = await openFile(filename);
    await using second = await openFile(filename, { locking: "off" });
    expect([first.lockState, second.lockState]).toEqual(["locked", "unlocked"]);
  });

  test("reopen() must move the locks, and stay as it was when refused", async () => {
    const filename = fresh();
    await using first = await openFile(filename, { readOnly: true });
    expect(lockedBytes(filename)).toEqual([100, 201, 203]);
    await first.reopen({ readOnly: false, options: {} });
    expect(lockedBytes(filename)).toEqual([100, 101, 103, 201, 203]);
    await first.reopen({ readOnly: true, options: {} });
    expect(lockedBytes(filename)).toEqual([100, 201, 203]);
    const second = await openFile(filename, { readOnly: true });
    const failure = await failureOf(() => first.reopen({ readOnly: false, options: {} }));
    expect(failure.message).toMatch(writeLock);
    expect(first.capabilities.write).toBe(false);
    await second.close();
    expect(lockedBytes(filename)).toEqual([100, 201, 203]);
  });

  test("reopen() must keep forceShare, beside a writer too", async () => {
    const filename = fresh();
    await using writer = await openFile(filename);
    const before = lockedBytes(filename);
    await using reader = await openFile(filename, { readOnly: true, forceShare: true });
    const permissions = { held: PERMISSION.consistentRead, shared: PERMISSION.consistentRead };
    await reader.reopen({ readOnly: true, options: {}, permissions });
    expect(lockedBytes(filename).filter((byte) => byte >= 200)).toEqual(
      before.filter((byte) => byte >= 200),
    );
    expect(await failureOf(() => reader.reopen({ readOnly: false, options: {} }))).toMatchObject({
      code: "EINVAL",
      op: "reopen",
    });
    expect(writer.lockState).toBe("locked");
  });

  test("reopen() that lets others write must forget which holes there are", async () => {
    const filename = fresh();
    truncateSync(filename, MiB);
    await using reader = await openFile(filename, { readOnly: true });
    expect((await reader.blockStatus(524288, 4096)).zero).toBe(true);
    const shared = { held: PERMISSION.consistentRead, shared: ALL_PERMISSIONS };
    await reader.reopen({ readOnly: true, options: {}, permissions: shared });
    const alone = { held: PERMISSION.write, shared: PERMISSION.consistentRead };
    await using writer = await openFile(filename, { permissions: alone });
    await writer.writev(524288, IoVector.of(new Uint8Array(4096).fill(7)));
    expect((await reader.blockStatus(524288, 4096)).zero).toBe(false);
  });

  test("createFile() must not touch a file that somebody uses", async () => {
    const filename = fresh();
    await using first = await openFile(filename);
    const failure = await failureOf(() => createFile(filename, { size: 10 }));
    expect(failure.message).toMatch(writeLock);
    expect(first.lengthBytes).toBe(65536);
    expect(statSync(filename).size).toBe(65536);
  });
});

describe.runIf(hasLocks)("ImageLock beside qemu-io", () => {
  const { consistentRead, write, writeUnchanged, resize } = PERMISSION;
  // What QEMU holds and shares for a qcow2 image that it reads, or writes.
  const cases = [
    { name: "a reader", qemu: ["-r"], readOnly: true, held: consistentRead },
    { name: "a writer", qemu: [], readOnly: false, held: consistentRead | write | resize },
  ];

  for (const { name, qemu, readOnly, held } of cases) {
    test.runIf(useQemu)(`set() for ${name} must lock the bytes that QEMU locks`, async () => {
      const filename = freshQcow2();
      const other = await QemuIo.start("-f", "qcow2", ...qemu, filename);
      const theirs = lockedBytes(filename);
      await other.stop();
      const permissions = { held, shared: consistentRead | writeUnchanged };
      await using ours = await openFile(filename, { readOnly, permissions });
      expect(theirs.length).toBeGreaterThan(0);
      expect(lockedBytes(filename)).toEqual(theirs);
      expect(ours.lockState).toBe("locked");
    });
  }

  test.runIf(useQemu)(
    "openFile() must refuse what a running qemu-io writes, and read it when forced",
    async () => {
      const filename = freshQcow2();
      const other = await QemuIo.start("-f", "qcow2", filename);
      try {
        expect((await failureOf(() => openFile(filename))).message).toMatch(writeLock);
        const reading = await failureOf(() => openFile(filename, { readOnly: true }));
        expect(reading.message).toMatch(sharedWriteLock);
        await (await openFile(filename, { readOnly: true, forceShare: true })).close();
        const making = await failureOf(() => createFile(filename, { size: 1 }));
        expect(making.message).toMatch(writeLock);
      } finally {
        await other.stop();
      }
      await (await openFile(filename)).close();
    },
  );

  test.runIf(useQemu)("openFile() must let readers read beside a qemu-io that reads", async () => {
    const filename = freshQcow2();
    const other = await QemuIo.start("-f", "qcow2", "-r", filename);
    try {
      await (await openFile(filename, { readOnly: true })).close();
      expect((await failureOf(() => openFile(filename))).message).toMatch(writeLock);
    } finally {
      await other.stop();
    }
  });

  test.runIf(useQemu)(
    "a file that we write must keep qemu-io and qemu-img out, save with -U",
    async () => {
      const filename = freshQcow2();
      await using ours = await openFile(filename);
      expect(ours.lockState).toBe("locked");
      const writing = run("qemu-io", "-f", "qcow2", "-c", "quit", filename);
      expect(writing.status).not.toBe(0);
      expect(writing.output).toContain('Failed to get "write" lock');
      const reading = run("qemu-img", "info", filename);
      expect(reading.status).not.toBe(0);
      expect(reading.output).toContain('Failed to get shared "write" lock');
      expect(run("qemu-img", "create", "-q", "-f", "raw", filename, "1k").status).not.toBe(0);
      expect(run("qemu-img", "info", "-U", filename).status).toBe(0);
    },
  );

  test.runIf(useQemu)(
    "a file that we read must keep qemu-io from writing, not from reading",
    async () => {
      const filename = freshQcow2();
      await using ours = await openFile(filename, { readOnly: true });
      expect(ours.lockState).toBe("locked");
      expect(run("qemu-img", "info", filename).status).toBe(0);
      const writing = run("qemu-io", "-f", "qcow2", "-c", "quit", filename);
      expect(writing.output).toContain('Failed to get "write" lock');
    },
  );
});

describe.runIf(seesLocks)("ImageLock without native calls", () => {
  test.runIf(hasLocks)("must see another user's locks, and refuse in the same words", async () => {
    const filename = fresh();
    const writer = await openFile(filename, { loadNative });
    const blind = { loadNative: noNative };
    expect((await failureOf(() => openFile(filename, blind))).message).toMatch(writeLock);
    expect(
      (await failureOf(() => openFile(filename, { ...blind, readOnly: true }))).message,
    ).toMatch(sharedWriteLock);
    const forced = await openFile(filename, { ...blind, readOnly: true, forceShare: true });
    expect(forced.lockState).toBe("seen-only");
    await forced.close();
    const making = await failureOf(() => createFile(filename, { size: 1 }, undefined, noNative));
    expect(making.message).toMatch(writeLock);
    await writer.close();
    await (await openFile(filename, blind)).close();
  });

  test.runIf(useQemu)("must see a running qemu-io", async () => {
    const filename = freshQcow2();
    const other = await QemuIo.start("-f", "qcow2", filename);
    try {
      const failure = await failureOf(() => openFile(filename, { loadNative: noNative }));
      expect(failure.message).toMatch(writeLock);
    } finally {
      await other.stop();
    }
  });

  test("must refuse locking=on, which it cannot do", async () => {
    const filename = fresh();
    const failure = await failureOf(() =>
      openFile(filename, { locking: "on", loadNative: noNative }),
    );
    expect(failure.code).toBe("ENOTSUP");
  });
});

describe("lockSupport()", () => {
  test("must say why something is missing", async () => {
    expect(await lockSupport(noNative)).toMatchObject({
      holes: false,
      reason: "left out for this test",
    });
  });
});
