/** The same scripts through the real qemu-io and through `blk io`: output, status, guest bytes, check. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blk, type Transcript } from "./support/fake-terminal.js";
import { type IoCase, IO_CASES } from "./support/golden-io.js";
import { hasQemu, must, tool } from "./support/qemu.js";

const IMAGES = ["disk.qcow2", "small.qcow2", "top.qcow2"];

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

  test.each(IO_CASES.map((one, index) => [nameOf(one), one, index] as const))(
    "%s",
    async (_, one, index) => {
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
        stdout:
          differs?.stdout === undefined ? answer.stdout : expect.stringMatching(differs.stdout),
        stderr:
          differs?.stderr === undefined ? answer.stderr : expect.stringMatching(differs.stderr),
      });
      if (differs !== undefined) expect(got, "nothing differs: take it out").not.toEqual(answer);
      for (const image of IMAGES) {
        must("qemu-img", "check", "-q", join(ours, image));
        if (differs?.disk !== true) {
          must("qemu-img", "compare", "-q", join(theirs, image), join(ours, image));
        }
      }
      must(
        "qemu-img",
        "compare",
        "-q",
        "-f",
        "raw",
        "-F",
        "raw",
        join(theirs, "disk.raw"),
        join(ours, "disk.raw"),
      );
      rmSync(theirs, { recursive: true });
      rmSync(ours, { recursive: true });
    },
  );
});

function makeFixtures(folder: string): void {
  const home = process.cwd();
  cpSync(join(import.meta.dirname, "support"), folder, { recursive: true, filter: () => false });
  spawnSync("mkdir", ["-p", folder]);
  process.chdir(folder);
  try {
    must("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "4M");
    const small = "cluster_size=4k,extended_l2=off,refcount_bits=1";
    must("qemu-img", "create", "-q", "-f", "qcow2", "-o", small, "small.qcow2", "10M");
    must("qemu-img", "create", "-q", "-f", "raw", "disk.raw", "1536k");
    must("qemu-img", "create", "-q", "-f", "raw", "base.raw", "4M");
    must("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "base.raw");
    must("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2");
    writeFileSync(
      "pattern.bin",
      Uint8Array.from({ length: 300 }, (_, index) => index % 251),
    );
    writeFileSync("empty.bin", "");
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

/** Times and speeds are nobody's business, and neither are the words of the help. */
function masked({ status, stdout, stderr }: Transcript): Transcript {
  const text = stdout
    .replaceAll(/ops; .*? \(.*\)$/gm, "ops; TIME")
    .replaceAll(/^(\d+,1),[\d:.]+,[\d.]+,[\d.]+$/gm, "$1,TIME")
    .replaceAll(/^((?:\w+) (?:\[|off|offset).*?) -- .*$/gm, "$1 -- HELP")
    .replaceAll("qemu-io>", "blk>");
  return { status, stdout: text, stderr: stderr.replaceAll("qemu-io", "blk") };
}

function nameOf({ options, commands, image, isTyped }: IoCase): string {
  return [...options, image ?? "(no image)", isTyped ? "<" : "", commands.join("; ")].join(" ");
}
