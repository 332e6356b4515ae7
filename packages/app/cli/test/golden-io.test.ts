/** The same scripts through the real qemu-io and through `blk io`: output, status, guest bytes, check. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blk, type Transcript } from "./support/fake-terminal.js";
import { BLKDEBUG_CASES } from "./support/golden-blkdebug.js";
import { IO_CASES } from "./support/golden-io.js";
import type { IoCase } from "./support/io-case.js";
import { hasQemu, must, tool } from "./support/qemu.js";

/** Rules as QEMU writes them in files. */
const RULES = `# Fails the first write of data.
[inject-error]
event = "write_aio"
errno = "28"
once = "on"

[set-state]
event = "read_aio"
state = "1"
new_state = "2"
`;

/** Commands after which the disk may be another. */
const CHANGES = /^(aio_)?(w|d|t)/;
const IMAGES = ["disk", "small", "top", "third", "fourth", "two"].map((name) => `${name}.qcow2`);

describe.runIf(hasQemu)("blk io must answer as qemu-io does", () => {
  const home = process.cwd();
  let folder = "";
  let fixtures = "";

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "blocklayer-golden-io-"));
    fixtures = join(folder, "fixtures");
    makeFixtures(fixtures);
  }, 60_000);

  afterAll(() => {
    process.chdir(home);
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(
    [...IO_CASES, ...BLKDEBUG_CASES].map((one, index) => [nameOf(one), one, index] as const),
  )("%s", async (_, one, index) => {
    const theirs = join(folder, `a${index}`);
    const ours = join(folder, `b${index}`);
    for (const twin of [theirs, ours]) cpSync(fixtures, twin, { recursive: true });
    process.chdir(theirs);
    const answer = masked(qemuIo(one));
    process.chdir(ours);
    const got = masked(await blkIo(one));
    const { differs } = one;
    expect(got).toEqual({
      status: differs?.status ?? answer.status,
      stdout: differs?.stdout === undefined ? answer.stdout : expect.stringMatching(differs.stdout),
      stderr: differs?.stderr === undefined ? answer.stderr : expect.stringMatching(differs.stderr),
    });
    if (differs !== undefined) expect(got, "nothing differs: take it out").not.toEqual(answer);
    judge(one, theirs, ours);
    rmSync(theirs, { recursive: true });
    rmSync(ours, { recursive: true });
  });
});

/** What the script left behind: the images that it could reach. */
function judge({ image, commands, differs, judge }: IoCase, theirs: string, ours: string): void {
  if (!commands.some((command) => CHANGES.test(command))) return;
  const named = `${image} ${commands.join(" ")}`;
  for (const file of IMAGES.filter((one) => named.includes(one))) {
    const { status } = tool("qemu-img", ["check", join(ours, file)]);
    // Leaks are what a failure may leave behind.
    expect(judge === "check" ? [0, 3] : [0]).toContain(status);
    if (differs?.disk === true || judge === "check") continue;
    if (judge === "bytes") {
      const [their, our] = [readFileSync(join(theirs, file)), readFileSync(join(ours, file))];
      expect(Buffer.compare(our, their)).toBe(0);
    }
    must("qemu-img", "compare", "-q", join(theirs, file), join(ours, file));
  }
  if (!named.includes("disk.raw") || differs?.disk === true) return;
  const files = [join(theirs, "disk.raw"), join(ours, "disk.raw")];
  must("qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", ...files);
}

function makeFixtures(folder: string): void {
  const home = process.cwd();
  mkdirSync(folder);
  process.chdir(folder);
  try {
    must("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "4M");
    const small = "cluster_size=4k,extended_l2=off,refcount_bits=1";
    must("qemu-img", "create", "-q", "-f", "qcow2", "-o", small, "small.qcow2", "10M");
    must("qemu-img", "create", "-q", "-f", "raw", "disk.raw", "1536k");
    must("qemu-img", "create", "-q", "-f", "raw", "base.raw", "4M");
    must("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "base.raw");
    must("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2");
    must(
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      "data_file=apart.data",
      "apart.qcow2",
      "4M",
    );
    const chain = [
      ["third.qcow2", "middle.qcow2", "compat=1.1"],
      ["fourth.qcow2", "third.qcow2", "extended_l2=on"],
      ["two.qcow2", "third.qcow2", "compat=0.10"],
    ] as const;
    must("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "middle.qcow2");
    must("qemu-io", "-c", "write -z 512k 64k", "-c", "write -P 3 2M 64k", "middle.qcow2");
    for (const [name, below, options] of chain) {
      must(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        "-b",
        below,
        "-F",
        "qcow2",
        name,
      );
    }
    writeFileSync(
      "pattern.bin",
      Uint8Array.from({ length: 300 }, (_, index) => index % 251),
    );
    writeFileSync("empty.bin", "");
    writeFileSync("rules.conf", RULES);
    writeFileSync("bad.conf", '[inject-error]\nevent = "frob"\n');
    writeFileSync("worse.conf", "[inject-error]\nevent = write_aio\n");
  } finally {
    process.chdir(home);
  }
}

function wordsOf({ options, commands, isTyped, image }: IoCase): readonly string[] {
  return [
    ...options,
    ...(isTyped ? [] : commands.flatMap((command) => ["-c", command])),
    ...(image === undefined ? [] : [image]),
  ];
}

function qemuIo(one: IoCase): Transcript {
  if (!one.isTyped) return tool("qemu-io", wordsOf(one));
  const { status, stdout, stderr } = spawnSync("qemu-io", wordsOf(one), {
    encoding: "utf8",
    input: one.commands.map((command) => `${command}\n`).join(""),
  });
  return { status: status ?? -1, stdout, stderr };
}

async function blkIo(one: IoCase): Promise<Transcript> {
  async function* lines(): AsyncGenerator<string> {
    yield* one.commands;
  }
  return await blk(["io", ...wordsOf(one)], { lines });
}

/** Where every answer of `blk io` differs on purpose. Applied to both sides. */
const EVERYWHERE = {
  stdout: [
    // qemu-io fails without a word.
    /^flush failed: .*\n/gm,
  ],
  stderr: [
    // The last flush of all: qemu-io says nothing when it fails, and may end well.
    /^blk: blkdebug: flush: an injected error.*\n/gm,
  ],
};

/** Times and speeds are nobody's business, and neither are the words of the help. */
function masked({ status, stdout, stderr }: Transcript): Transcript {
  let out = stdout
    .replaceAll(/ops; .*? \(.*\)$/gm, "ops; TIME")
    .replaceAll(/^(\d+,1),[\d:.]+,[\d.]+,[\d.]+$/gm, "$1,TIME")
    .replaceAll(/^((?:\w+) (?:\[|off|offset).*?) -- .*$/gm, "$1 -- HELP")
    .replaceAll("qemu-io>", "blk>");
  let err = stderr.replaceAll("qemu-io", "blk");
  for (const pattern of EVERYWHERE.stdout) out = out.replaceAll(pattern, "");
  for (const pattern of EVERYWHERE.stderr) err = err.replaceAll(pattern, "");
  return { status, stdout: out, stderr: err };
}

function nameOf({ options, commands, image, isTyped }: IoCase): string {
  return [...options, image ?? "(no image)", isTyped ? "<" : "", commands.join("; ")].join(" ");
}
