// What blk does not support yet, found out by asking it, and plans without that: they grow by themselves as blk does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryBlk } from "../programs.mjs";

/** Options of a new image that may have to wait. */
const OPTIONS = [
  "compression_type=zstd",
  "data_file=new.data",
  "extended_l2=on",
  "lazy_refcounts=on",
  "preallocation=metadata",
  "preallocation=falloc",
  "preallocation=full",
];

/** Commands that may have to wait: `@` is an image. Whether they succeed does not matter. */
const COMMANDS = new Map([
  ["amend", ["amend", "-o", "compat=1.1", "@"]],
  ["bitmap", ["bitmap", "--add", "@", "b0"]],
  ["check -r", ["check", "-r", "all", "@"]],
  ["commit", ["commit", "@"]],
  ["convert -l", ["convert", "-l", "s0", "-O", "raw", "@", "@.raw"]],
  ["measure", ["measure", "-O", "raw", "@"]],
  ["rebase", ["rebase", "-u", "-b", "", "@"]],
  ["resize", ["resize", "@", "+64k"]],
  ["resize --shrink", ["resize", "--shrink", "@", "64k"]],
  ["resize --preallocation", ["resize", "--preallocation=metadata", "@", "+64k"]],
  ["snapshot", ["snapshot", "-c", "s0", "@"]],
]);

const REFUSAL = /not supported|not in this version/i;

/**
 * The options and commands that blk refuses by name.
 *
 * @returns {Promise<ReadonlySet<string>>}
 */
export async function missingFeatures() {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-features-"));
  const image = join(folder, "image.qcow2");
  const missing = new Set();
  const tryWords = async (name, words) => {
    const { status, stderr } = await tryBlk(...words);
    if (status !== 0 && REFUSAL.test(stderr)) missing.add(name);
  };
  const create = ["create", "-q", "-f", "qcow2"];
  try {
    for (const option of OPTIONS) {
      await tryWords(option, [...create, "-o", option, join(folder, "new.qcow2"), "1M"]);
    }
    for (const [name, words] of COMMANDS) {
      await tryWords("", [...create, image, "1M"]);
      await tryWords(
        name,
        words.map((word) => word.replace(/^@/, image)),
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return missing;
}

/**
 * A plan without what is missing: options are taken out, steps that need a missing command are dropped.
 *
 * @param {import("./plan.mjs").Plan} plan
 * @param {ReadonlySet<string>} missing
 * @returns {import("./plan.mjs").Plan}
 */
export function withoutMissing({ seed, setup, steps }, missing) {
  const fitting = (list) =>
    list
      .filter((step) => !needs(step, missing))
      .map(optionsTakenOut)
      .filter(saysSomething);
  const optionsTakenOut = (step) => {
    if (step.does !== "img") return step;
    const at = step.words.indexOf("-o") + 1;
    if (at === 0) return step;
    const options = step.words[at].split(",").filter((option) => !isMissing(option, missing));
    return { ...step, words: step.words.with(at, options.join(",")) };
  };
  return { seed, setup: fitting(setup), steps: fitting(steps) };
}

/** `amend` without an option is none. */
function saysSomething({ does, words }) {
  return does !== "img" || words[0] !== "amend" || words[words.indexOf("-o") + 1] !== "";
}

function isMissing(option, missing) {
  const name = option.replace(/^data_file_raw=.*|^data_file=.*/, "data_file=new.data");
  return missing.has(name);
}

function needs(step, missing) {
  if (step.does !== "img") return false;
  const [command, ...rest] = step.words;
  if (missing.has(command)) return true;
  return rest.some((word) => missing.has(`${command} ${word.replace(/=.*/, "")}`));
}
