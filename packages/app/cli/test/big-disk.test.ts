/** Every command over disks of 64 TiB that hold a few clusters: what is not there costs nothing. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { blk } from "./support/fake-terminal.js";
import { hasQemu, tool } from "./support/qemu.js";

const LAST = 64 * 2 ** 40 - 65_536;
/** For all of a test's commands. One step for each of a thousand million clusters takes longer. */
const MAX_CPU_MS = 10_000;

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

describe("blk over 64 TiB", () => {
  const home = process.cwd();
  let folder = "";

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "blocklayer-big-disk-"));
    process.chdir(folder);
    await ok("create -q -f qcow2 disk.qcow2 64T");
    await io("disk.qcow2", "write -P 1 0 64k", "write -P 2 32T 64k", `write -P 3 ${LAST} 64k`);
    await ok("create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2");
    await io("top.qcow2", "write -P 4 1T 64k", "write -P 5 50T 4k");
  });

  afterAll(() => {
    process.chdir(home);
    rmSync(folder, { recursive: true, force: true });
  });

  async function ok(line: string): Promise<string> {
    const words = line.split(" ").map((word) => (word === "''" ? "" : word));
    const { status, stdout, stderr } = await blk(words);
    expect({ line, status, stderr }).toEqual({ line, status: 0, stderr: "" });
    return stdout;
  }

  async function io(filename: string, ...commands: readonly string[]): Promise<void> {
    const words = commands.flatMap((command) => ["-c", command]);
    const { status, stdout } = await blk(["io", "-f", "qcow2", ...words, filename]);
    expect({ status, isBad: /failed|error/i.test(stdout) }).toEqual({ status: 0, isBad: false });
  }

  async function cpuMsOf(work: () => Promise<void>): Promise<number> {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  }

  const CONTENT = [
    "read -P 1 0 64k",
    "read -P 0 64k 64k",
    "read -P 4 1T 64k",
    "read -P 2 32T 64k",
    "read -P 5 50T 4k",
    `read -P 3 ${LAST} 64k`,
  ];

  test("info, map, check and measure must pass over what is not there", async () => {
    const cpuMs = await cpuMsOf(async () => {
      expect(await ok("info top.qcow2")).toContain("virtual size: 64 TiB (70368744177664 bytes)");
      expect((await ok("map disk.qcow2")).trim().split("\n")).toHaveLength(4);
      expect(await ok("check top.qcow2")).toContain("2/1073741824 = 0.00% allocated");
      await ok("measure -O qcow2 top.qcow2");
      await ok("measure -O qcow2 --size 64T");
    });
    expect(cpuMs).toBeLessThan(MAX_CPU_MS);
  });

  test("convert, compare and rebase must copy and compare what is there", async () => {
    const cpuMs = await cpuMsOf(async () => {
      await ok("convert -O qcow2 top.qcow2 flat.qcow2");
      await ok("convert -c -O qcow2 top.qcow2 packed.qcow2");
      await ok("compare top.qcow2 flat.qcow2");
      await ok("compare flat.qcow2 packed.qcow2");
      await ok("create -q -f qcow2 -b disk.qcow2 -F qcow2 alone.qcow2");
      await io("alone.qcow2", "write -P 4 1T 64k", "write -P 5 50T 4k");
      await ok("rebase -b '' alone.qcow2");
      for (const one of ["flat.qcow2", "packed.qcow2", "alone.qcow2"]) {
        await io(one, ...CONTENT);
        await ok(`check -q ${one}`);
      }
    });
    expect(cpuMs).toBeLessThan(MAX_CPU_MS);
  });

  test("commit, snapshot, bitmap, amend and resize must change what is there", async () => {
    const cpuMs = await cpuMsOf(async () => {
      await ok("convert -O qcow2 disk.qcow2 base.qcow2");
      await ok("create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2");
      await io("over.qcow2", "write -P 4 1T 64k", "write -P 5 50T 4k");
      await ok("commit -q over.qcow2");
      await io("base.qcow2", ...CONTENT);
      await ok("snapshot -c s base.qcow2");
      await ok("bitmap --add -g 16M base.qcow2 b");
      await ok("bitmap --remove base.qcow2 b");
      await ok("amend -o refcount_bits=8 base.qcow2");
      await ok("resize -q base.qcow2 +64T");
      await ok("resize -q --shrink base.qcow2 2T");
      await io("base.qcow2", "read -P 4 1T 64k");
      await ok("check -q base.qcow2");
    });
    expect(cpuMs).toBeLessThan(MAX_CPU_MS);
  });

  test.each(["create -f qcow2 -o cluster_size=2M none.qcow2 8P", "resize disk.qcow2 8P"])(
    "a disk behind 2^53 - 1 must be refused by its size: %s",
    async (line) => {
      const { status, stderr } = await blk(line.split(" "));
      expect({ status, stderr }).toMatchObject({
        status: 1,
        stderr: expect.stringContaining("more than 8 PiB - 1"),
      });
    },
  );

  test.runIf(hasQemu)("must say what qemu-img says", async () => {
    for (const words of [
      "map --output=json disk.qcow2",
      "measure --output=json -O qcow2 disk.qcow2",
      "check --output=json disk.qcow2",
      "measure --output=json -O qcow2 --size 2P",
    ]) {
      const theirs: unknown = JSON.parse(tool("qemu-img", words.split(" ")).stdout);
      expect({ words, says: JSON.parse(await ok(words)) as unknown }).toEqual({
        words,
        says: theirs,
      });
    }
  });
});
