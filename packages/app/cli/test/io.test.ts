/** `blk io` without any other program: what it refuses, what it does at the end, and as a process. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { blk } from "./support/fake-terminal.js";
import { BIN } from "./support/process.js";

const home = process.cwd();
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-io-"));
  process.chdir(folder);
});

beforeEach(async () => {
  await blk(["create", "-q", "-f", "qcow2", "disk.qcow2", "4M"]);
});

afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

const io = async (image: string, ...commands: string[]) =>
  await blk(["io", ...commands.flatMap((command) => ["-c", command]), image]);

test.each([
  ["-C", "-C"],
  ["-k", "-k"],
  ["-m", "-m"],
  ["-i native", "-i"],
  ["-T x", "-T"],
  ["--object secret,id=x", "--object"],
])("blk io %s must be refused by name", async (words, name) => {
  expect(await blk(["io", ...words.split(" "), "disk.qcow2"])).toEqual({
    status: 1,
    stdout: "",
    stderr: `blk: io: ${name} is not supported by this version\n`,
  });
});

test("two images must be one too many", async () => {
  const { status, stderr } = await blk(["io", "a", "b"]);
  expect([status, stderr]).toEqual([1, expect.stringContaining("Expecting one image file name")]);
});

test("a request that is parked in the end must be let go and be on the disk", async () => {
  const end = await io(
    "blkdebug::disk.qcow2",
    "break write_aio A",
    "aio_write -q -P 5 0 64k",
    "wait_break A",
  );
  expect(end).toEqual({
    status: 0,
    stdout: "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n",
    stderr: "",
  });
  expect((await io("disk.qcow2", "read -q -P 5 0 64k")).status).toBe(0);
  const closed = await io(
    "blkdebug::disk.qcow2",
    "break write_aio A",
    "aio_write -q -P 6 0 64k",
    "wait_break A",
    "close",
    "open disk.qcow2",
    "read -q -P 6 0 64k",
  );
  expect(closed).toMatchObject({ status: 0, stderr: "" });
});

test("wait_break for what cannot come must fail rather than wait for ever", async () => {
  expect(await io("disk.qcow2", "wait_break A")).toMatchObject({ status: 1 });
  const missed = await io(
    "blkdebug::disk.qcow2",
    "break read_aio A",
    "aio_write -q 0 1k",
    "wait_break A",
  );
  expect(missed).toEqual({
    status: 1,
    stdout: "Could not wait for request: no request runs that could be parked as 'A'\n",
    stderr: "",
  });
});

test("an interruption must let go what is parked, and end", async () => {
  const controller = new AbortController();
  const words = ["-c", "break write_aio A", "-c", "write 0 64k", "-c", "length"];
  const running = blk(["io", ...words, "blkdebug::disk.qcow2"], {
    signal: controller.signal,
    out: (text) => {
      if (text.includes("Suspended")) controller.abort();
    },
  });
  expect(await running).toMatchObject({ status: 1 });
  expect(await blk(["check", "-q", "disk.qcow2"])).toMatchObject({ status: 0 });
});

test("-s must leave the image as it was, byte for byte", async () => {
  await io("disk.qcow2", "write -q -P 1 0 128k");
  const before = readFileSync("disk.qcow2");
  const done = await blk([
    "io",
    "-s",
    "-c",
    "write -q -P 2 0 64k",
    "-c",
    "read -q -P 2 0 64k",
    "-c",
    "read -q -P 1 64k 64k",
    "-c",
    "discard -q 0 64k",
    "-c",
    "flush",
    "disk.qcow2",
  ]);
  expect(done).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(Buffer.compare(readFileSync("disk.qcow2"), before)).toBe(0);
});

test("a raw image that is only guessed must be told", async () => {
  writeFileSync("plain.img", new Uint8Array(65536));
  const { status, stderr } = await io("plain.img", "read -q 0 1k");
  expect([status, stderr]).toEqual([
    0,
    expect.stringMatching(/'plain.img' is taken as raw.*-f raw/),
  ]);
});

test("a file of rules that is none must be refused in one line", async () => {
  for (const name of ["/dev/zero", ".", "gone.conf"]) {
    const { status, stderr } = await io(`blkdebug:${name}:disk.qcow2`, "length");
    expect([status, stderr.split("\n").length]).toEqual([1, 2]);
    expect(stderr).toContain(`'${name}'`);
  }
});

test("help must name each command, and tell of one", async () => {
  const { stdout } = await blk(["io", "-c", "help"]);
  const names =
    "read readv write writev aio_read aio_write aio_flush flush discard truncate length info map " +
    "alloc close open reopen break remove_break resume wait_break help quit sleep";
  for (const name of names.split(" ")) {
    expect(stdout).toMatch(new RegExp(`^${name} .*-- \\w`, "m"));
    const one = await blk(["io", "-c", `help ${name}`]);
    expect(one.stdout).toMatch(new RegExp(`^${name} `));
  }
});

test("without -c commands must be read from the standard input, behind a prompt", () => {
  const { status, stdout } = spawnSync(process.execPath, [BIN, "io", "disk.qcow2"], {
    input: "length\nnonsense\n\nquit\nlength\n",
    encoding: "utf8",
  });
  expect([status, stdout]).toEqual([1, "blk> 4 MiB\nblk> blk> blk> "]);
});

test("a command whose request is parked must wait, and a signal must end it", async () => {
  const words = [BIN, "io", "-c", "break write_aio A", "-c", "write 0 64k", "blkdebug::disk.qcow2"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.on("data", (bytes: Buffer) => {
    if (bytes.toString().includes("Suspended")) setTimeout(() => child.kill("SIGTERM"), 200);
  });
  const signal = await new Promise((resolve) => child.on("close", (_, by) => resolve(by)));
  expect(signal).toBe("SIGTERM");
});
