/** Names that are no UTF-8, through the real programs: each keeps its bytes, and is no other's. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BIN } from "./support/process.js";
import { hasQemu } from "./support/qemu.js";

/** `$img` and `$io` are the program; names are made by the shell, since Node would spoil them. */
const NAMES = `
base=$(printf 'b\\377se\\351.raw'); one=$(printf 's\\377\\303'); two=$(printf 's\\377\\304')
bits=$(printf 'm\\376'); data=$(printf 'd\\377'); next=$(printf 'z\\200')`;
/** The base, and beside it the file that a reader would open who replaces what is no UTF-8. */
const MAKE = `
truncate -s 1M "$base" "$(printf 'b\\357\\277\\275se\\357\\277\\275.raw')"
qemu-io -f raw -c 'write -P 7 0 1M' "$base"`;
/** Every step, and whose answer is compared. */
const STEPS = `
$img create -q -f qcow2 -b "$base" -F raw top.qcow2
$io -c 'read -q -P 7 0 1M' top.qcow2 || echo another file
$img snapshot -c "$one" top.qcow2
$img snapshot -c "$two" top.qcow2
$img snapshot -d "$one" top.qcow2
$img bitmap --add top.qcow2 "$bits"
$img bitmap --add top.qcow2 plain
$img bitmap --remove top.qcow2 plain
$img snapshot -l top.qcow2
$img convert --bitmaps -O qcow2 top.qcow2 flat.qcow2
$img info flat.qcow2
$img create -q -f qcow2 -o data_file="$data" apart.qcow2 1M
$img info apart.qcow2
$img rebase -u -b "$next" -F raw top.qcow2
$img info top.qcow2`;

describe.runIf(hasQemu)("names that are no UTF-8", () => {
  let folder = "";

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "blocklayer-odd-names-"));
  });

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Everything that the steps say, a byte a character. */
  function outcome(name: string, img: string, io: string): string {
    const cwd = join(folder, name);
    mkdirSync(cwd);
    const programs = `img="${img}"; io="${io}"`;
    const script = `${programs}${NAMES}${MAKE} >&2 || exit 1${STEPS}`.replaceAll(
      "\nqemu-io",
      " && qemu-io",
    );
    const { stdout, stderr } = spawnSync("sh", ["-c", script], {
      cwd,
      encoding: "latin1",
      env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
    });
    return `${stdout}${stderr}`
      .replaceAll(/^wrote .*\n.*ops.*\n/gm, "")
      .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "DATE")
      .replaceAll(/disk size: .*/g, "disk size")
      .replaceAll("qemu-img:", "blk:");
  }

  test("must be kept, shown and followed byte for byte, as by qemu-img", {
    timeout: 120_000,
  }, () => {
    const theirs = outcome("theirs", "qemu-img", "qemu-io");
    const ours = outcome("ours", `${process.execPath} ${BIN}`, `${process.execPath} ${BIN} io`);
    expect(ours).toBe(theirs);
    expect(ours).not.toContain("another file");
    expect(ours).toContain("data file: d\xff");
    expect(ours).toContain("backing file: z\x80\n");
    expect(ours).toContain("name: m\xfe\n");
    const [their, our] = ["theirs", "ours"].map((name) =>
      readdirSync(join(folder, name), { encoding: "buffer" }).map((one) => one.toString("latin1")),
    );
    expect(our?.sort()).toEqual(their?.sort());
  });
});
