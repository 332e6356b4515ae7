/** `convert -l … --bitmaps` beside qemu-img, where the image's disk got another length since the snapshot. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiB } from "@blocklayer/bytes";
import { openImage } from "@blocklayer/image";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DRIVERS } from "../src/registry.js";
import { blk } from "./support/fake-terminal.js";
import { hasQemu, must } from "./support/qemu.js";

describe.runIf(hasQemu)("convert -l with --bitmaps", () => {
  const home = process.cwd();
  let folder = "";

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "blocklayer-snapshot-bitmaps-"));
    process.chdir(folder);
    must("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "2M");
    must("qemu-io", "-c", "write -P 1 1M 64k", "disk.qcow2");
    must("qemu-img", "snapshot", "-c", "short", "disk.qcow2");
    must("qemu-img", "resize", "-q", "disk.qcow2", "8M");
    must("qemu-io", "-c", "write -P 2 7M 64k", "disk.qcow2");
    must("qemu-img", "snapshot", "-c", "long", "disk.qcow2");
    must("qemu-img", "snapshot", "-a", "short", "disk.qcow2");
    must("qemu-img", "resize", "-q", "disk.qcow2", "4M");
    must("qemu-img", "bitmap", "--add", "-g", "4k", "disk.qcow2", "records");
    // Dirty on both sides of the shorter disk's end.
    must(
      "qemu-io",
      "-c",
      "write 64k 8k",
      "-c",
      "write 2040k 16k",
      "-c",
      "write 3M 1M",
      "disk.qcow2",
    );
    must("qemu-img", "bitmap", "--add", "--disable", "disk.qcow2", "idle");
    must("qemu-img", "bitmap", "--merge", "records", "disk.qcow2", "idle");
  }, 60_000);

  afterAll(() => {
    process.chdir(home);
    rmSync(folder, { recursive: true, force: true });
  });

  /** A copy has the snapshot's length here, and the image's in qemu-img's copy. */
  test.each([
    ["short", 2 * MiB],
    ["long", 8 * MiB],
  ])("a bitmap must say of snapshot %s what it says in qemu-img's copy", async (name, length) => {
    const words = ["convert", "-l", name, "--bitmaps", "-O", "qcow2", "disk.qcow2"];
    must("qemu-img", ...words, "theirs.qcow2");
    expect(await blk([...words, "ours.qcow2"])).toEqual({ status: 0, stdout: "", stderr: "" });
    must("qemu-img", "check", "ours.qcow2");
    const ours = await bitmapsOf("ours.qcow2", length);
    expect(ours).toEqual(await bitmapsOf("theirs.qcow2", length));
    expect(ours).toMatchObject([{ name: "records" }, { name: "idle" }]);
    expect(ours[0]?.ranges[0]).toEqual({ offset: 65536, lengthBytes: 8192 });
  });

  test("a target of another length than the snapshot must be refused, as by qemu-img", async () => {
    must("qemu-img", "create", "-q", "-f", "qcow2", "roomy.qcow2", "10M");
    const words = ["convert", "-n", "-l", "short", "--bitmaps", "-O", "qcow2", "disk.qcow2"];
    const { status, stderr } = await blk([...words, "roomy.qcow2"]);
    expect(status).toBe(1);
    expect(stderr).toContain("Bitmaps are of different sizes");
    expect(() => must("qemu-img", ...words, "roomy.qcow2")).toThrow("different sizes");
  });

  /** What the bitmaps of an image say of the disk's first bytes. */
  async function bitmapsOf(filename: string, lengthBytes: number) {
    const disk = await openImage(filename, { drivers: DRIVERS, readOnly: true });
    try {
      const bitmaps = [];
      for (const bitmap of (await disk.bitmaps?.list()) ?? []) {
        const all = (await disk.bitmaps?.dirtyRanges(bitmap.name, 0, 1000)) ?? [];
        const ranges = all
          .filter(({ offset }) => offset < lengthBytes)
          .map((one) => ({
            offset: one.offset,
            lengthBytes: Math.min(one.lengthBytes, lengthBytes - one.offset),
          }));
        bitmaps.push({ ...bitmap, ranges });
      }
      return bitmaps;
    } finally {
      await disk.close();
    }
  }
});
