// Steps that plans got later. They are drawn by a generator of their own and put among the others, so that a seed
// keeps the list with which it once found something.
import { Random } from "../content.mjs";
import { someRange } from "../guest-ops.mjs";

/** @typedef {import("./plan.mjs").Step} Step @typedef {import("./plan.mjs").Layer} Layer */

/** The file that compressed writes of noise take their bytes from. */
const NOISE = "noise.bin";

const JUDGE = { does: "judge" };

/**
 * The steps of a plan, with up to three more.
 *
 * @param {number} seed
 * @param {readonly Layer[]} layers - from the bottom up
 * @param {readonly Step[]} steps
 * @returns {Step[]}
 */
export function withExtraSteps(seed, layers, steps) {
  const random = new Random(seed * 2_246_822_519 + 1);
  const context = { random, images: layers.filter(({ format }) => format === "qcow2") };
  const result = [...steps];
  for (let left = random.below(4); left > 0; left--) {
    result.splice(random.below(result.length + 1), 0, ...extraSteps(context));
  }
  return result.flatMap((step) => (makesOne(step) ? [JUDGE, step] : [step]));
}

/** Whether a step has one twin take the place of the other (see twin-pair.mjs): they are compared before. */
function makesOne({ does, words }) {
  const setsAside = words?.some((word) => word.startsWith("--preallocation"));
  return does === "damage" || (does === "img" && words[0] === "resize" && setsAside);
}

function extraSteps({ random, images }) {
  const top = images.at(-1);
  const layer = random.pick(images);
  const image = `@${layer.name}`;
  const below = images.slice(0, -1);
  const die = random.below(15);
  if (die < 4) return [damageStep(random, image)];
  if (die < 5) return noiseSteps(random, top);
  if (die < 6) return [noFallbackStep(random, top)];
  if (die < 7) return intoExisting(random, top);
  if (die < 8) return [img("snapshot", random.pick(["-c", "-c", "-a", "-d"]), "s0", image)];
  if (die < 10) return snapshotSteps(random, top);
  if (die < 11) return bitmapSteps(random, top);
  // What is left is of chains; a single image gets more damage.
  if (below.length === 0) return [damageStep(random, image)];
  const lower = random.pick(below);
  if (die < 12) return [resizeBelow(random, lower)];
  if (die < 13) return mergeFrom(random, lower);
  if (die < 14) return [img("rebase", ...random.pick([[], ["-u"]]), "-b", "", `@${lower.name}`)];
  return [img("commit", "-q", ...random.pick([[], ["-d"]]), `@${lower.name}`)];
}

/** Refcounts that are too high or too low, or the dirty bit; and the repair. */
function damageStep(random, image) {
  const [what, mend] = random.pick([
    ["leak", "leaks"],
    ["leak", "all"],
    ["lost", "all"],
    ["dirty", "all"],
    ["dirty", "leaks"],
  ]);
  const words = ["check", "-q", "-r", mend, image];
  return { does: "damage", image, what, at: random.below(2 ** 20), words };
}

/** Clusters that do not get smaller by compression. */
function noiseSteps(random, { name, length, clusterBytes }) {
  const clusters = Math.floor(length / clusterBytes);
  if (clusters === 0) return [];
  const file = {
    does: "raw",
    name: NOISE,
    length: 65_536,
    seed: random.below(2 ** 20),
    noise: true,
  };
  const first = random.below(clusters);
  const count = 1 + random.below(Math.min(3, clusters - first));
  const range = { offset: first * clusterBytes, length: count * clusterBytes };
  const op = { kind: "compressed", ...range, pattern: 1, source: `@${NOISE}` };
  return [file, { does: "io", image: `@${name}`, op }];
}

/** Zeroes that must not be written as bytes. */
function noFallbackStep(random, { name, length, clusterBytes }) {
  const kind = random.pick(["zeroes", "unmap"]);
  const op = { kind, ...someRange(random, length, clusterBytes), pattern: 0, noFallback: true };
  return { does: "io", image: `@${name}`, op };
}

/** A conversion into an image that is there. */
function intoExisting(random, { length, clusterBytes }) {
  const more = random.pick([0, 512, 65_536]);
  const options = `cluster_size=${clusterBytes},compat=${random.pick(["1.1", "0.10"])}`;
  const create = ["create", "-q", "-f", "qcow2", "-o", options, "@x.qcow2", `${length + more}`];
  const flags = random.pick([[], ["-c"], ["-S", "0"], ["--target-is-zero"]]);
  return [img(...create), img("convert", ...flags, "-n", "-O", "qcow2", "@top.qcow2", "@x.qcow2")];
}

/** A snapshot that is made, departed from, gone back to, and now and then deleted. */
function snapshotSteps(random, layer) {
  const image = `@${layer.name}`;
  const steps = [img("snapshot", "-c", "s3", image)];
  for (let left = random.below(4); left > 0; left--) steps.push(changeStep(random, layer));
  steps.push(img("snapshot", "-a", "s3", image));
  if (random.below(2) === 0) steps.push(img("snapshot", "-d", "s3", image));
  return steps;
}

/** Two bitmaps, the one of the time before the other, and what can be done with them. */
function bitmapSteps(random, layer) {
  const image = `@${layer.name}`;
  const bitmap = (name, ...words) => img("bitmap", ...words, image, name);
  const end = random.pick([["--remove"], ["--clear"], ["--enable"], ["--clear", "--enable"]]);
  return [
    bitmap("b4", "--add"),
    changeStep(random, layer),
    bitmap("b4", "--disable"),
    bitmap("b5", "--add", "-g", `${2 ** (9 + random.below(9))}`),
    changeStep(random, layer),
    bitmap("b5", "--merge", "b4"),
    bitmap("b4", ...end),
    changeStep(random, layer),
  ];
}

function changeStep(random, { name, length, clusterBytes }) {
  const kind = random.pick(["write", "write", "zeroes", "unmap", "discard"]);
  const op = { kind, ...someRange(random, length, clusterBytes), pattern: 1 + random.below(255) };
  return { does: "io", image: `@${name}`, op };
}

function resizeBelow(random, { name, length }) {
  const delta = 512 * (1 + random.below(256));
  const isShorter = random.below(2) === 0 && length > 2 * delta;
  const words = isShorter ? ["--shrink"] : [];
  return img("resize", "-q", ...words, `@${name}`, `${isShorter ? "-" : "+"}${delta}`);
}

/** A bitmap of a layer below goes into one of the top. */
function mergeFrom(random, { name }) {
  const target = random.pick(["b0", "b1", "b3"]);
  return [
    img("bitmap", "--add", "-g", "4096", `@${name}`, "below"),
    { does: "io", image: `@${name}`, op: { kind: "write", offset: 0, length: 5120, pattern: 3 } },
    img("bitmap", "--add", "-g", "4096", "@top.qcow2", target),
    img("bitmap", "--merge", "below", "-b", `@${name}`, "-F", "qcow2", "@top.qcow2", target),
  ];
}

function img(...words) {
  return { does: "img", words };
}
