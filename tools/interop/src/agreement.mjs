// What blk and qemu-img must say alike about one and the same file.
import { dirname } from "node:path";
import { tryBlk, tryProgram } from "./programs.mjs";

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {unknown} [value] - the JSON that was printed
 * @property {string} [stdout] - what was printed instead
 * @property {string} [stderr]
 */

/**
 * Every question on which the two disagree; none when all is well.
 *
 * Left out of the comparison: `compressed` of a map, which qemu-img prints from 8.2 on; `actual-size` of an info when it
 * differs, since the host changes it between two looks; and "reads as zero" of a mapped cluster: QEMU looks for holes of the host's file under
 * it when the file takes less space than its refcounts say, and that is up to the host.
 *
 * @param {string} image
 * @returns {Promise<{about: string, blk: unknown, qemu: unknown}[]>}
 */
export async function disagreements(image) {
  const answers = await answersAbout(image);
  return answers.filter(({ blk, qemu }) => !isSame(blk, qemu));
}

/**
 * What both say about an image, ready to be compared.
 *
 * @param {string} image
 * @returns {Promise<{about: "map" | "info" | "check", blk: Answer, qemu: Answer}[]>}
 */
export async function answersAbout(image) {
  // QEMU looks for an external data file where it runs, blk where the image is: this makes it one place.
  const where = { cwd: dirname(image) };
  const found = [];
  for (const question of ["map", "info", "check"]) {
    const words = [question, "--output=json", image];
    const blk = comparable(await tryBlk(...words));
    let qemu = comparable(await tryProgram("qemu-img", words, where));
    if (question === "info" && !isSame(blk, qemu)) {
      qemu = comparable(await tryProgram("qemu-img", words, where));
      if (blk.value !== undefined) blk.value["actual-size"] = qemu.value?.["actual-size"];
    }
    found.push({ about: question, blk, qemu });
  }
  return found;
}

/** Whether two answers are the same. */
export function isSame(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** JSON with what may differ taken out, and the fields in order of name. */
function comparable({ status, stdout, stderr }) {
  let value;
  try {
    value = JSON.parse(stdout);
  } catch {
    return { status, stdout, stderr };
  }
  if (Array.isArray(value)) return { status, value: comparableMap(value) };
  return { status, value: sorted(value) };
}

/** A map with mapped neighbours joined, whether they read as zero or not. */
function comparableMap(entries) {
  const joined = [];
  for (const { compressed: _, ...entry } of entries) {
    const isMapped = entry.data && entry.offset !== undefined;
    if (isMapped) entry.zero = false;
    const last = joined.at(-1);
    const follows =
      isMapped &&
      last?.data &&
      last.depth === entry.depth &&
      last.offset + last.length === entry.offset;
    if (follows) last.length += entry.length;
    else joined.push(sorted(entry));
  }
  return joined;
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key])]),
  );
}

/**
 * qemu-img's verdict on an image: `undefined` when its check finds neither corruption nor leak.
 *
 * @param {string} image
 */
export async function checkComplaint(image) {
  const { status, stdout, stderr } = await tryProgram("qemu-img", ["check", image]);
  return status === 0 ? undefined : `${status}: ${stdout}${stderr}`;
}

/**
 * The verdicts of both tools' `compare`; empty when both find the same bytes.
 *
 * @param {string} a
 * @param {string} b
 */
export async function compareComplaints(a, b) {
  const words = ["compare", "-q", a, b];
  const theirs = await tryProgram("qemu-img", words);
  const ours = await tryBlk(...words);
  return [
    ...(theirs.status === 0 ? [] : [`qemu-img compare: ${theirs.status} ${theirs.stderr}`]),
    ...(ours.status === 0 ? [] : [`blk compare: ${ours.status} ${ours.stderr}`]),
  ];
}
