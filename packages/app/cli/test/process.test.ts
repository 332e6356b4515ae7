/** `blk` as a process: its name, its signals, its pipes. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { VERSION } from "../src/version.js";
import { BIN, blkProcess, outcome, startBlk, untilGrown } from "./support/process.js";
import { hasQemu } from "./support/qemu.js";

const KiB = 1024;
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-process-"));
  writeFileSync(join(folder, "disk.raw"), randomBytes(4 * KiB * KiB));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("the program must call itself blk, or what a link calls it", () => {
  const link = join(folder, "qemu-img");
  symlinkSync(BIN, link);
  expect(blkProcess(["info", "gone"], folder).stderr).toMatch(/^blk: /);
  expect(blkProcess(["info", "gone"], folder, link).stderr).toMatch(/^qemu-img: /);
  expect(blkProcess(["--version"], folder, link).stdout).toMatch(/^qemu-img version /);
  const usage = blkProcess(["info"], folder, link);
  expect(usage.stderr).toContain("Try 'qemu-img --help' for more information");
});

test("the version must be the package's", () => {
  const manifest = readFileSync(join(import.meta.dirname, "../package.json"), "utf8");
  expect(JSON.parse(manifest).version).toBe(VERSION);
  expect(blkProcess(["-V"], folder).stdout).toBe(`blk version ${VERSION} (blocklayer)\n`);
});

/** Slow enough to be caught at work: 256 KiB a second. */
const slowly = (target: string): string[] => [
  "convert",
  "-r",
  "256k",
  "-O",
  "qcow2",
  "disk.raw",
  target,
];

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "%s during a convert must leave no file and end the process by that signal",
  async (signal) => {
    const target = join(folder, `${signal}.qcow2`);
    const { child, ended } = startBlk(slowly(target), folder);
    await untilGrown(target, 256 * KiB);
    child.kill(signal);
    const end = await ended;
    expect(end).toMatchObject({ status: null, signal });
    expect(end.stderr).toBe(
      `blk: convert was interrupted; the incomplete '${target}' was removed\n`,
    );
    expect(existsSync(target)).toBe(false);
  },
);

test("SIGKILL during a convert must leave a file that is no image", async () => {
  const target = join(folder, "killed.qcow2");
  const { child, ended } = startBlk(slowly(target), folder);
  await untilGrown(target, 256 * KiB);
  child.kill("SIGKILL");
  await ended;
  expect(readFileSync(target).subarray(0, 29).toString()).toBe("blocklayer: incomplete image.");
  expect(blkProcess(["info", "-f", "qcow2", target], folder)).toMatchObject({ status: 1 });
  if (!hasQemu) return;
  const asked = outcome("qemu-img", ["info", "-f", "qcow2", target], folder);
  expect([asked.status, asked.stderr]).toEqual([1, expect.stringContaining("not in qcow2 format")]);
  expect(outcome("qemu-img", ["info", target], folder).stdout).toContain("file format: raw");
});

test("SIGKILL during a convert must leave no raw data file that passes for a disk", async () => {
  const target = join(folder, "killed-data.qcow2");
  const data = join(folder, "killed.raw");
  const [words, options] = [slowly(target), "data_file=killed.raw,data_file_raw=on"];
  const { child, ended } = startBlk(
    [...words.slice(0, 1), "-o", options, ...words.slice(1)],
    folder,
  );
  await untilGrown(target, 1);
  // The data file is as long as the disk from the start: what tells is how much of it is there.
  while (statSync(data).blocks * 512 < 256 * KiB && child.exitCode === null) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill("SIGKILL");
  await ended;
  for (const name of [target, data]) {
    expect(readFileSync(name).subarray(0, 29).toString()).toBe("blocklayer: incomplete image.");
  }
  const whole = ["convert", "-O", "qcow2", "-o", options, "disk.raw", target];
  expect(blkProcess(whole, folder)).toMatchObject({ status: 0 });
  const disk = readFileSync(join(folder, "disk.raw"));
  expect(readFileSync(data).equals(disk)).toBe(true);
});

test("a reader that goes away must end the program without a word", () => {
  const script = '{ "$0" "$1" map --output=json many.qcow2; echo "status $?" >&2; } | head -c 10';
  blkProcess(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "many.qcow2", "2M"], folder);
  const help = '{ "$0" "$1" --help; echo "status $?" >&2; } | true';
  const { stderr } = outcome("bash", ["-c", script, process.execPath, BIN], folder);
  expect(stderr).toMatch(/^status (0|141)\n$/);
  const second = outcome("bash", ["-c", `sleep 0; ${help}`, process.execPath, BIN], folder);
  expect(second.stderr).toMatch(/^status (0|141)\n$/);
});

test("a closed pipe under the progress line must not pass for a complete conversion", async () => {
  const target = join(folder, "piped.qcow2");
  const child = spawn(process.execPath, [BIN, "convert", "-p", ...slowly(target).slice(1)], {
    cwd: folder,
    stdio: ["ignore", "pipe", "inherit"],
  });
  child.stdout.destroy();
  const status = await new Promise((resolve) => child.on("close", resolve));
  expect(status).toBe(141);
  expect(existsSync(target)).toBe(false);
});

test("the bundle must hold neither the portable codec nor the commands in one file", () => {
  const bundle = join(import.meta.dirname, "../dist/bundle");
  const files = readdirSync(bundle).filter((name) => name.endsWith(".js"));
  for (const file of files) {
    expect(readFileSync(join(bundle, file), "utf8")).not.toContain("fflate");
  }
  expect(
    files.filter((name) => /^(check|compare|convert|create|info|map)-/.test(name)),
  ).toHaveLength(6);
});
