/** The same command lines through the real qemu-img and through blk: status, output, messages, files. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blk, type Transcript } from "./support/fake-terminal.js";
import { makeFixtures } from "./support/fixtures.js";
import type { Difference } from "./support/golden-case.js";
import { AMEND_CASES } from "./support/golden-amend.js";
import { BENCH_CASES } from "./support/golden-bench.js";
import { BITMAP_CASES } from "./support/golden-bitmap.js";
import { CHECK_CASES } from "./support/golden-check.js";
import { COMPARE_CASES } from "./support/golden-compare.js";
import { CONVERT_CASES } from "./support/golden-convert.js";
import { CREATE_CASES } from "./support/golden-create.js";
import { INFO_CASES } from "./support/golden-info.js";
import { MAP_CASES } from "./support/golden-map.js";
import { SNAPSHOT_CASES } from "./support/golden-snapshot.js";
import { MEASURE_CASES } from "./support/golden-measure.js";
import { COMMIT_CASES, REBASE_CASES } from "./support/golden-rebase.js";
import { RESIZE_CASES } from "./support/golden-resize.js";
import { USAGE_CASES } from "./support/golden-usage.js";
import { hasQemu, must, tool } from "./support/qemu.js";

const TABLES = {
  usage: USAGE_CASES,
  create: CREATE_CASES,
  info: INFO_CASES,
  bench: BENCH_CASES,
  bitmap: BITMAP_CASES,
  check: CHECK_CASES,
  map: MAP_CASES,
  compare: COMPARE_CASES,
  convert: CONVERT_CASES,
  snapshot: SNAPSHOT_CASES,
  rebase: REBASE_CASES,
  commit: COMMIT_CASES,
  measure: MEASURE_CASES,
  resize: RESIZE_CASES,
  amend: AMEND_CASES,
};

describe.runIf(hasQemu)("blk must answer as qemu-img does", () => {
  const home = process.cwd();
  let folder = "";
  let theirs = "";
  let ours = "";

  beforeAll(() => {
    process.env["TZ"] = "UTC";
    folder = mkdtempSync(join(tmpdir(), "blocklayer-golden-"));
    theirs = join(folder, "a", "twin");
    ours = join(folder, "b", "twin");
    const made = mkdtempSync(join(folder, "fixtures-"));
    process.chdir(made);
    makeFixtures();
    for (const twin of [theirs, ours]) cpSync(made, twin, { recursive: true });
  }, 60_000);

  afterAll(() => {
    process.chdir(home);
    rmSync(folder, { recursive: true, force: true });
  });

  const all = Object.values(TABLES).flat();
  test.each(all.map((one) => [one.words.join(" "), one] as const))("%s", async (_, one) => {
    process.chdir(theirs);
    const answer = normal(tool("qemu-img", one.words), one.hidesDates);
    process.chdir(ours);
    const got = normal(await blk(one.words), one.hidesDates);
    expect(got).toEqual(expected(answer, got, one.differs));
    if (one.differs !== undefined) expect(got, "nothing differs: take it out").not.toEqual(answer);
    if (one.makes === undefined) return;
    const [theirFile, ourFile] = [join(theirs, one.makes), join(ours, one.makes)];
    expect([existsSync(theirFile), existsSync(ourFile)]).toEqual([true, true]);
    if (one.alike === "bytes") {
      expect(Buffer.compare(readFileSync(ourFile), readFileSync(theirFile))).toBe(0);
    } else {
      must("qemu-img", "compare", theirFile, ourFile);
    }
  });
});

/** Where every message of blk differs on purpose. Applied to both sides. */
const EVERYWHERE = [
  // blk says once which file could not be opened.
  { theirs: /(Could not open '[^']+': )\1/g, becomes: "$1" },
  // A message of blk is one line, and the file name tells that it is the backing file.
  { theirs: /Could not open backing file: |(?<=\n)Could not open backing image\.\n/g, becomes: "" },
  { theirs: /suffixes for\nblk: kilobytes/g, becomes: "suffixes for kilobytes" },
  { theirs: / lock\nIs another/g, becomes: " lock. Is another" },
  { theirs: /2\^64\nOptional/g, becomes: "2^64. Optional" },
  { theirs: /peta-\nand/g, becomes: "peta- and" },
  // blk says as well where in the file the broken structure stands.
  { theirs: /header(?: at host offset 0x[0-9a-f]+)?: /g, becomes: "" },
];

/** What must be equal: names of programs apart, JSON as values, text byte for byte. */
interface Answer extends Transcript {
  readonly json: unknown;
}

const DATE = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|(?<=completed in )\d+\.\d{3}(?= s)/g;

function normal({ status, stdout: printed, stderr }: Transcript, hidesDates = false): Answer {
  const stdout = hidesDates ? printed.replaceAll(DATE, "<when>") : printed;
  let message = stderr.replaceAll("qemu-img", "blk");
  for (const { theirs, becomes } of EVERYWHERE) message = message.replaceAll(theirs, becomes);
  const json = /^\s*[[{]/.test(stdout) ? JSON.parse(stdout) : undefined;
  return { status, json, stdout: stdout.replaceAll("qemu-img", "blk"), stderr: message };
}

/** qemu-img's answer, or where blk differs what it says instead. */
function expected(answer: Answer, got: Answer, differs: Difference | undefined): unknown {
  const { status, stdout, stderr, json } = answer;
  const text = json === undefined ? stdout : got.stdout; // JSON is compared as a value
  return {
    status: differs?.status ?? status,
    stderr: differs?.stderr === undefined ? stderr : expect.stringMatching(differs.stderr),
    stdout: differs?.stdout === undefined ? text : expect.stringMatching(differs.stdout),
    json: differs?.stdout === undefined ? json : got.json,
  };
}
