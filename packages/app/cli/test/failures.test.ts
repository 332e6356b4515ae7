/** What the outside world can do to `blk`: full disks, missing rights, locks. Always one line, never a stack. */
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Transcript } from "./support/fake-terminal.js";
import { BIN, blkProcess, outcome, startBlk, untilGrown } from "./support/process.js";
import { hasQemu, must } from "./support/qemu.js";

const MiB = 1024 * 1024;
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-failures-"));
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, "disk.raw"), randomBytes(4 * MiB));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expectOneLine({ status, stderr }: Transcript): void {
  expect(stderr.split("\n")).toHaveLength(2);
  expect(stderr).not.toMatch(/\n\s+at |internal error/);
  expect(status).toBe(1);
}

describe("convert over its own source", () => {
  test.each([
    ["raw", "source.raw", []],
    ["raw", "./source.raw", ["-W"]],
    ["raw", "source.raw", ["-n"]],
    ["qcow2", "link.raw", []],
    ["qcow2", "target.qcow2", ["-o", "data_file=source.raw"]],
    ["qcow2", "target.qcow2", ["-o", "data_file=source.raw,data_file_raw=on"]],
  ])("as %s into %s %j must be refused, and leave the source as it was", (format, target, more) => {
    const source = join(folder, "source.raw");
    const content = randomBytes(MiB);
    writeFileSync(source, content);
    rmSync(join(folder, "link.raw"), { force: true });
    symlinkSync("source.raw", join(folder, "link.raw"));
    const words = ["convert", "-f", "raw", "-O", format, ...more, "source.raw", target];
    const end = blkProcess(words, folder);
    expectOneLine(end);
    expect(end.stderr).toContain("write");
    expect(readFileSync(source).equals(content)).toBe(true);
    expect(existsSync(join(folder, "target.qcow2"))).toBe(false);
  });
});

const small = join(tmpdir(), `blocklayer-small-${process.pid}`);
const canMount = process.getuid?.() === 0 && mountSmall();

function mountSmall(): boolean {
  mkdirSync(small, { recursive: true });
  const words = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small];
  if (spawnSync("mount", words).status === 0) return true;
  rmSync(small, { recursive: true });
  return false;
}

describe.runIf(canMount)("on a full disk", () => {
  afterAll(() => {
    spawnSync("umount", [small]);
    rmSync(small, { recursive: true, force: true });
  });

  test.each([
    ["raw", []],
    ["qcow2", []],
    ["qcow2", ["-c"]],
    ["qcow2", ["-t", "writethrough"]],
    ["qcow2", ["-W", "-m", "16"]],
  ])("convert to %s %j must say so, and remove the target", (format, more) => {
    const target = join(small, "target");
    const end = blkProcess(["convert", ...more, "-O", format, "disk.raw", target], folder);
    expectOneLine(end);
    expect(end.stderr).toMatch(/^blk: .*write.*No space left on device.*; .*removed\n$/);
    expect(end.stderr).toContain(target);
    expect(existsSync(target)).toBe(false);
  });

  test("create with preallocation must say so, and leave nothing", () => {
    const target = join(small, "full.raw");
    const words = ["create", "-q", "-f", "raw", "-o", "preallocation=full", target, "4M"];
    const end = blkProcess(words, folder);
    expectOneLine(end);
    expect(end.stderr).toContain("No space left on device");
    expect(existsSync(target)).toBe(false);
  });
});

test("a file that may not grow must give one line, and be removed", () => {
  const script = 'ulimit -f 512; exec "$0" "$1" convert -O qcow2 disk.raw limited.qcow2';
  const end = outcome("bash", ["-c", script, process.execPath, BIN], folder);
  expectOneLine(end);
  expect(end.stderr).toMatch(/'limited\.qcow2': write of .*: File too large; .*removed\n$/);
  expect(existsSync(join(folder, "limited.qcow2"))).toBe(false);
});

/** Half random: each cluster is stored in about half a cluster. */
function writeCompressible(name: string, bytes: number): void {
  const content = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 65536) randomBytes(32768).copy(content, at);
  writeFileSync(join(folder, name), content);
}

/** `blk` whose files may not grow past so many KiB. */
function limited(kib: number, words: readonly string[]): Transcript {
  const script = `ulimit -f ${kib}; exec "$0" "$@"`;
  return outcome("bash", ["-c", script, process.execPath, BIN, ...words], folder);
}

describe("compressed data that was gathered and cannot be written", () => {
  const lost = /data that was written is lost, and the image is incomplete: .*File too large; /;

  test.each([
    ["in the middle", 4 * MiB, 512, lost],
    // It fits the cache: the flush at the end is the first to write, and tells what it met.
    ["at the end", 65_536, 330, /write of 36864 bytes at offset 0x50000: File too large; /],
  ])("must fail the conversion, and leave no file: %s", (_, bytes, kib, message) => {
    writeCompressible("half.raw", bytes);
    const words = ["convert", "-c", "-t", "none", "-O", "qcow2", "half.raw", "lost.qcow2"];
    const end = limited(kib, words);
    expectOneLine(end);
    expect(end.stderr).toMatch(message);
    expect(end.stderr).toMatch(/the incomplete 'lost\.qcow2' was removed\n$/);
    expect(existsSync(join(folder, "lost.qcow2"))).toBe(false);
  });

  test("must leave a file that was there with the notice: nobody takes it for a disk", () => {
    writeCompressible("half.raw", 4 * MiB);
    writeFileSync(join(folder, "there.qcow2"), "");
    const words = ["convert", "-c", "-t", "none", "-O", "qcow2", "half.raw", "there.qcow2"];
    const end = limited(512, words);
    expectOneLine(end);
    expect(end.stderr).toMatch(lost);
    expect(end.stderr).toMatch(/'there\.qcow2' is incomplete\n$/);
    for (const command of ["info", "check", "map"]) {
      const next = blkProcess([command, "there.qcow2"], folder);
      expectOneLine(next);
      expect(next.stderr).toContain("'there.qcow2' is incomplete: the conversion");
    }
    if (!hasQemu) return;
    expect(outcome("qemu-img", ["info", "-f", "qcow2", "there.qcow2"], folder).status).toBe(1);
  });

  test.each(["writeback", "none", "unsafe"])(
    "must fail a conversion in place, with the cache on by option and -t %s",
    (cache) => {
      writeCompressible("half.raw", 4 * MiB);
      expect(
        blkProcess(["create", "-q", "-f", "qcow2", "in-place.qcow2", "4M"], folder).status,
      ).toBe(0);
      const target =
        "driver=qcow2,compressed-write-cache=on,file.driver=file,file.filename=in-place.qcow2";
      const words = ["convert", "-c", "-n", "-t", cache, "--target-image-opts", "half.raw", target];
      const end = limited(512, words);
      expectOneLine(end);
      expect(end.stderr).toMatch(lost);
      expect(end.stderr).toMatch(/'driver=qcow2,.*' is incomplete\n$/);
      // Never more than leaks: 3 says so, 0 that there are none.
      expect([0, 3]).toContain(blkProcess(["check", "in-place.qcow2"], folder).status);
      rmSync(join(folder, "in-place.qcow2"));
    },
  );
});

const canDropRoot =
  process.getuid?.() === 0 &&
  spawnSync("setpriv", [...dropRoot(), process.execPath, BIN, "--version"]).status === 0;

function dropRoot(): string[] {
  return ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
}

test.runIf(canDropRoot)("without the rights to a file there must be one line that says so", () => {
  writeFileSync(join(folder, "secret.raw"), "x".repeat(512), { mode: 0o600 });
  const asNobody = (...words: string[]): Transcript =>
    outcome("setpriv", [...dropRoot(), process.execPath, BIN, ...words], folder);
  const read = asNobody("info", "secret.raw");
  expectOneLine(read);
  expect(read.stderr).toBe("blk: Could not open 'secret.raw': Permission denied\n");
  const made = asNobody("convert", "-O", "raw", "disk.raw", "target.raw");
  expectOneLine(made);
  expect(made.stderr).toMatch(/'target\.raw': Permission denied\n$/);
});

describe.runIf(hasQemu)("an image that another process uses", () => {
  test("must be refused in QEMU's words, and readable with -U", async () => {
    const image = join(folder, "used.qcow2");
    must("qemu-img", "create", "-q", "-f", "qcow2", image, "1M");
    const holder = spawn("qemu-io", [image]);
    try {
      holder.stdin.write("write 0 512\n");
      await new Promise((resolve) => holder.stdout.once("data", resolve));
      for (const command of ["info", "check", "map"]) {
        const theirs = outcome("qemu-img", [command, image], folder);
        const ours = blkProcess([command, image], folder);
        const expected = theirs.stderr.replace("qemu-img", "blk").replace("\nIs", ". Is");
        expect([ours.status, ours.stderr]).toEqual([theirs.status, expected]);
        expect(blkProcess([command, "-U", image], folder).status).toBe(0);
      }
      for (const words of [["-n"], []]) {
        const end = blkProcess(["convert", ...words, "-O", "qcow2", "disk.raw", image], folder);
        expectOneLine(end);
        expect(end.stderr).toContain(`Is another process using the image [${image}]?`);
      }
      expect(blkProcess(["compare", image, image], folder).status).toBe(2);
    } finally {
      holder.stdin.end("quit\n");
      await new Promise((resolve) => holder.once("close", resolve));
    }
    expect(blkProcess(["check", image], folder).status).toBe(0);
  });

  test("must be refused by the real qemu-img while blk writes it", async () => {
    const target = join(folder, "ours.qcow2");
    const words = ["convert", "-r", "256k", "-O", "qcow2", "disk.raw", target];
    const { child, ended } = startBlk(words, folder);
    await untilGrown(target, 256 * 1024);
    const theirs = outcome("qemu-img", ["info", "-f", "qcow2", target], folder);
    child.kill("SIGTERM");
    await ended;
    expect(theirs.stderr).toContain('Failed to get shared "write" lock');
    expect(theirs.status).toBe(1);
  });
});
