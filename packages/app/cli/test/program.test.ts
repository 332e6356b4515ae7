/** Transcripts of whole command lines, in this process and without any other program. */
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { UsageError } from "../src/command-line.js";
import { describeError } from "../src/describe-error.js";
import { infoText } from "../src/output/info-text.js";
import { percentText } from "../src/output/percent.js";
import { blk } from "./support/fake-terminal.js";

const home = process.cwd();
let folder = "";

beforeAll(async () => {
  process.env["TZ"] = "UTC";
  folder = mkdtempSync(join(tmpdir(), "blocklayer-program-"));
  process.chdir(folder);
  const disk = new Uint8Array(1024 * 1024).fill(7, 0, 65536).fill(9, 262144, 262144 + 4096);
  writeFileSync("disk.raw", disk);
  await blk(["convert", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
});

afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

test("create, convert, compare, check and map must agree on one disk", async () => {
  expect(await blk(["create", "-f", "qcow2", "new.qcow2", "1M"])).toEqual({
    status: 0,
    stderr: "",
    stdout:
      "Formatting 'new.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1048576 lazy_refcounts=off refcount_bits=16\n",
  });
  const packed = await blk(["convert", "-c", "-O", "qcow2", "disk.raw", "packed.qcow2"]);
  expect(packed).toEqual({ status: 0, stdout: "", stderr: "" });
  const same = await blk(["compare", "disk.raw", "packed.qcow2"]);
  expect(same).toEqual({ status: 0, stdout: "Images are identical.\n", stderr: "" });
  const other = await blk(["compare", "disk.raw", "new.qcow2"]);
  expect(other).toEqual({ status: 1, stdout: "Content mismatch at offset 0!\n", stderr: "" });
  const checked = await blk(["check", "--output=json", "packed.qcow2"]);
  expect(checked.status).toBe(0);
  expect(JSON.parse(checked.stdout)).toMatchObject({ "compressed-clusters": 2, "check-errors": 0 });
  const mapped = await blk(["map", "--output=json", "disk.qcow2"]);
  expect(JSON.parse(mapped.stdout)).toMatchObject([
    { start: 0, length: 65536, data: true },
    { start: 65536, length: 196608, zero: true },
    { start: 262144, length: 65536, data: true },
    { start: 327680, zero: true },
  ]);
  const human = await blk(["map", "packed.qcow2"]);
  expect([human.status, human.stderr]).toEqual([
    1,
    "blk: File contains external, encrypted or compressed clusters.\n",
  ]);
});

test("info must print one image as qemu-img does", async () => {
  const { stdout, status } = await blk(["info", "disk.qcow2"]);
  expect(status).toBe(0);
  expect(stdout.replace(/disk size: .*/, "disk size: …")).toBe(
    `image: disk.qcow2
file format: qcow2
virtual size: 1 MiB (1048576 bytes)
disk size: …
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
`,
  );
});

test("infoText() must list snapshots in qemu-img's columns", () => {
  const text = infoText({
    filename: "s.qcow2",
    format: "qcow2",
    "virtual-size": 4194304,
    "actual-size": 593920,
    "dirty-flag": false,
    snapshots: [
      {
        id: "1",
        name: "first",
        "vm-state-size": 0,
        "date-sec": 1795387017,
        "date-nsec": 0,
        "vm-clock-sec": 3661,
        "vm-clock-nsec": 5_000_000,
        icount: 0,
      },
    ],
  });
  expect(text).toContain(`Snapshot list:
ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT
1         first                 0 B 2026-11-22 22:36:57 01:01:01.005          0
`);
});

test.each([
  [3.125, "3.12"],
  [1.5625, "1.56"],
  [9.375, "9.38"],
  [100, "100.00"],
  [0, "0.00"],
])("percentText() must print %d as C does", (percent, text) => {
  expect(percentText(percent)).toBe(text);
});

test("an aborted convert must say so and leave nothing", async () => {
  const controller = new AbortController();
  controller.abort();
  const words = ["convert", "-O", "qcow2", "disk.raw", "stopped.qcow2"];
  const end = await blk(words, { signal: controller.signal });
  expect(end.status).toBe(1);
  expect(end.stderr.split("\n")).toHaveLength(2);
  expect(existsSync("stopped.qcow2")).toBe(false);
});

test("a convert that is refused must not touch the file that is there", async () => {
  writeFileSync("precious.qcow2", "precious");
  for (const words of [
    ["-o", "cluster_size=3", "disk.raw"],
    ["-o", "nothing=1", "disk.raw"],
    ["-m", "99", "disk.raw"],
    ["gone.raw"],
    ["-o", "size=4k", "disk.raw"],
  ]) {
    const end = await blk(["convert", "-O", "qcow2", ...words, "precious.qcow2"]);
    expect([words, end.status]).toEqual([words, 1]);
    expect(readFileSync("precious.qcow2", "utf8")).toBe("precious");
  }
});

test("convert --compression-level must make smaller images, and be a level of the type", async () => {
  let state = 1;
  const next = (): number => (state = (state * 48_271) % 2_147_483_647);
  const words = Array.from({ length: 40_000 }, () => ((next() % 900) ** 2 % 977).toString(36));
  writeFileSync("words.raw", words.join(" ").padEnd(131_072, "z").slice(0, 131_072));
  for (const type of ["zlib", "zstd"]) {
    const sizes: number[] = [];
    for (const level of ["1", "9"]) {
      const options = ["-c", "--compression-level", level, "-o", `compression_type=${type}`];
      const end = await blk(["convert", ...options, "-O", "qcow2", "words.raw", "level.qcow2"]);
      expect(end).toEqual({ status: 0, stdout: "", stderr: "" });
      sizes.push(readFileSync("level.qcow2").length);
      const same = await blk(["compare", "words.raw", "level.qcow2"]);
      expect(same.stdout).toBe("Images are identical.\n");
    }
    expect(sizes[0]).toBeGreaterThan(sizes[1] as number);
  }
  writeFileSync("precious.qcow2", "precious");
  const invalid = "Invalid compression level specified. It is a number from";
  for (const [options, message] of [
    ["-c --compression-level 10", `${invalid} 1 to 9, the levels of compression_type=zlib`],
    ["-c --compression-level 0 -o compression_type=zstd", `${invalid} 1 to 22`],
    ["-c --compression-level 23 -o compression_type=zstd", `${invalid} 1 to 22`],
    ["-c --compression-level x", `${invalid} 1 to 9, the levels of compression_type=zlib`],
    ["--compression-level 3", "--compression-level has no effect without -c"],
  ] as const) {
    const end = await blk([
      "convert",
      ...options.split(" "),
      "-O",
      "qcow2",
      "words.raw",
      "precious.qcow2",
    ]);
    expect(end).toEqual({ status: 1, stdout: "", stderr: `blk: ${message}\n` });
    expect(readFileSync("precious.qcow2", "utf8")).toBe("precious");
  }
  // A target that is there has its own type.
  const there = ["convert", "-n", "-c", "--compression-level", "12", "-O", "qcow2", "words.raw"];
  await blk(["create", "-f", "qcow2", "-o", "compression_type=zlib", "there.qcow2", "1M"]);
  expect(await blk([...there, "there.qcow2"])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("compression type 'zlib' has levels 1 to 9") as string,
  });
  await blk(["create", "-f", "qcow2", "-o", "compression_type=zstd", "there.qcow2", "1M"]);
  expect(await blk([...there, "there.qcow2"])).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("check must end with 2 for errors and 63 for a format without checks", async () => {
  writeFileSync("cut.qcow2", readFileSync("disk.qcow2"));
  truncateSync("cut.qcow2", 0x50000);
  expect((await blk(["check", "cut.qcow2"])).status).toBe(2);
  expect(await blk(["check", "disk.raw"])).toEqual({
    status: 63,
    stdout: "",
    stderr: "blk: This image format does not support checks\n",
  });
});

test("what this version does not do must be refused by name", async () => {
  for (const words of ["dd if=a", "bench -n a", "bench -i io_uring a"]) {
    const { status, stderr } = await blk(words.split(" "));
    expect([words, status, stderr]).toEqual([
      words,
      1,
      expect.stringMatching(/not supported by this version/),
    ]);
  }
});

test("bench must refuse a depth of 0, with which no request would ever begin", async () => {
  const { status, stderr } = await blk(["bench", "-d", "0", "disk.qcow2"]);
  expect([status, stderr]).toEqual([1, "blk: Invalid queue depth specified\n"]);
});

test("help must name every command", async () => {
  const { stdout, status } = await blk(["--help"]);
  expect(status).toBe(0);
  for (const name of [
    "check",
    "compare",
    "convert",
    "create",
    "info",
    "map",
    "measure",
    "resize",
  ]) {
    expect(stdout).toMatch(new RegExp(`^  ${name} `, "m"));
    expect((await blk([name, "--help"])).stdout).toBe(stdout);
  }
});

test("describeError() must keep the stack of a bug, and only of a bug", () => {
  expect(describeError(new TypeError("x is not a function"))).toMatch(
    /please report.*\n.*TypeError/s,
  );
  const both = Object.assign(new Error(""), {
    error: new Error("b"),
    suppressed: new UsageError("a"),
  });
  expect(describeError(both)).toBe("a");
  const gone = Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT" });
  expect(describeError(gone)).toBe("ENOENT: no such file");
});
