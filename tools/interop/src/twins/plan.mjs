// A seed becomes a plan: the images that are made, and what is then done to them, in words that both tools take.
//
// 1. One seed, one plan: what blk does not support yet is left out afterwards (features.mjs), not while drawing.
// 2. A word that begins with @ names a file of the folder that a tool works in.
// 3. Sizes are small, so that thousands of plans are run; geometries are chosen so that small disks have several L2 tables.
import { Random } from "../content.mjs";
import { someRange } from "../guest-ops.mjs";
import { withExtraSteps } from "./extra-steps.mjs";

const KIB = 1024;
const MIB = 1024 * KIB;

/**
 * @typedef {import("../guest-ops.mjs").GuestOp} GuestOp
 * @typedef {{does: "raw", name: string, length: number, seed: number, noise?: boolean}} RawStep - a raw disk with
 *   something on it, or with nothing but noise
 * @typedef {{does: "img", words: string[]}} ImgStep - qemu-img's words
 * @typedef {{does: "io", image: string, op: GuestOp}} IoStep - a guest's request
 * @typedef {{does: "adopt", from: string, to: string}} AdoptStep - a file takes another's place
 * @typedef {{does: "swap"}} SwapStep - each tool goes on with what the other made
 * @typedef {{does: "judge"}} JudgeStep - all images are compared
 * @typedef {{does: "spoil", offset: number}} SpoilStep - blk alone writes: for the test of this test; no plan has it
 * @typedef {{does: "damage", image: string, what: "leak" | "lost" | "dirty", at: number, words: string[]}} DamageStep
 *   - the twins become one, are damaged alike, and mended by the words
 * @typedef {RawStep | ImgStep | IoStep | AdoptStep | SwapStep | JudgeStep | SpoilStep | DamageStep} Step
 *
 * @typedef {object} Plan
 * @property {number} seed
 * @property {readonly Step[]} setup - makes the images; its steps are not left out when a failure is made shorter
 * @property {readonly Step[]} steps
 */

/** @typedef {{name: string, format: "qcow2" | "raw", length: number, clusterBytes: number}} Layer */

/** The lengths of disks, by cluster size. */
const LENGTHS = new Map([
  [512, [192 * KIB, 512 * KIB]],
  [4 * KIB, [768 * KIB, 3 * MIB]],
  [16 * KIB, [1 * MIB, 3 * MIB]],
  [64 * KIB, [1 * MIB, 6 * MIB]],
  [2 * MIB, [5 * MIB, 13 * MIB]],
]);

/** @param {number} seed @returns {Plan} */
export function planOf(seed) {
  const random = new Random(seed * 2_654_435_761);
  const layers = someLayers(random);
  const setup = layers.map(({ step }) => step);
  const top = layers.at(-1).layer;
  const context = { random, layers: layers.map(({ layer }) => layer), top, length: top.length };
  const steps = [];
  for (const { layer } of layers) {
    if (layer.format !== "qcow2") continue;
    const count = layer === top ? 4 + random.below(8) : 2 + random.below(5);
    for (let i = 0; i < count; i++) steps.push(guestStep(context, layer));
  }
  const wanted = steps.length + 10 + random.below(22);
  while (steps.length < wanted) steps.push(...someSteps(context));
  return { seed, setup, steps: withExtraSteps(seed, context.layers, steps) };
}

/** The chain from the bottom up; the last one is `top.qcow2`. */
function someLayers(random) {
  const { clusterBytes, length } = someGeometry(random);
  const depth = random.pick([0, 0, 0, 1, 1, 2]);
  const below = [];
  for (const name of ["base", "mid"].slice(0, depth)) {
    const layer = {
      name: `${name}.qcow2`,
      format: "qcow2",
      length: nearLength(random, length),
      clusterBytes: random.below(3) === 0 ? someGeometry(random).clusterBytes : clusterBytes,
    };
    if (below.length === 0 && random.below(2) === 0) {
      const raw = { ...layer, name: `${name}.raw`, format: "raw" };
      const seed = random.below(2 ** 20);
      below.push({ layer: raw, step: { does: "raw", name: raw.name, length: raw.length, seed } });
    } else {
      below.push({ layer, step: createStep(random, layer, below.at(-1)?.layer) });
    }
  }
  const layer = { name: "top.qcow2", format: "qcow2", length, clusterBytes };
  return [...below, { layer, step: createStep(random, layer, below.at(-1)?.layer) }];
}

function someGeometry(random) {
  const clusterBytes = random.pick([512, 4096, 4096, 16384, 65536, 65536, 65536, 2 * MIB]);
  const [least, most] = LENGTHS.get(clusterBytes);
  const unit = random.pick([clusterBytes, 512, 512]);
  return { clusterBytes, length: Math.floor((least + random.below(most - least)) / unit) * unit };
}

/** The same length, a shorter or a longer one. */
function nearLength(random, length) {
  if (random.below(2) === 0) return length;
  const share = random.pick([0.3, 0.8, 1.1, 1.4]);
  return Math.floor((length * share) / 512) * 512 + 512 * random.below(3);
}

/** @param {Random} random @param {Layer} layer @param {Layer | undefined} over */
function createStep(random, layer, over) {
  const options = someOptions(random, layer, over !== undefined);
  const words = ["create", "-q", "-f", "qcow2", "-o", options.join(",")];
  if (over !== undefined) words.push("-b", over.name, "-F", over.format);
  // A disk whose length is not given is as long as the one below.
  if (over === undefined || random.below(8) > 0)
    return img(...words, `@${layer.name}`, `${layer.length}`);
  layer.length = over.length;
  return img(...words, `@${layer.name}`);
}

/** Options of a new image. One that contradicts another is left in now and then: both tools must refuse it. */
function someOptions(random, { name, clusterBytes }, hasBacking) {
  const chance = (one) => random.below(one) === 0;
  const options = [`cluster_size=${clusterBytes}`];
  const isOld = chance(6);
  if (isOld) options.push("compat=0.10");
  const mayHaveNew = !isOld || chance(40);
  if (mayHaveNew && chance(2)) options.push(`refcount_bits=${random.pick([1, 2, 4, 8, 32, 64])}`);
  if (mayHaveNew && chance(4)) options.push("compression_type=zstd");
  if (mayHaveNew && chance(4)) options.push("lazy_refcounts=on");
  if (mayHaveNew && clusterBytes >= 16 * KIB && chance(4)) options.push("extended_l2=on");
  if (mayHaveNew && chance(7)) {
    options.push(`data_file=${name.replace("qcow2", "data")}`);
    if (!hasBacking && chance(2)) options.push("data_file_raw=on");
  }
  if ((!hasBacking || chance(30)) && chance(7)) {
    options.push(`preallocation=${random.pick(["metadata", "metadata", "falloc", "full"])}`);
  }
  return options;
}

/** What happens next: most of it is a guest at work. */
function someSteps(context) {
  const { random } = context;
  const die = random.below(100);
  if (die < 56) return [guestStep(context, context.top)];
  if (die < 64) return [bitmapStep(random)];
  if (die < 73) return [snapshotStep(random)];
  if (die < 80) return [resizeStep(context)];
  if (die < 83) return [amendStep(random)];
  if (die < 86) return [rebaseStep(context)];
  if (die < 89) return [commitStep(context)];
  if (die < 93) return convertSteps(context);
  if (die < 95)
    return [
      img(
        "check",
        ...random.pick([
          ["-r", "leaks"],
          ["-r", "all"],
        ]),
        "@top.qcow2",
      ),
    ];
  if (die < 96)
    return [img("measure", "--output=json", "-O", random.pick(["qcow2", "raw"]), "@top.qcow2")];
  if (die < 98) return [{ does: "swap" }];
  return [{ does: "judge" }];
}

/** A request to a layer. Where the disk was made shorter than the plan thinks, both tools must refuse it. */
function guestStep({ random, top, length }, layer) {
  const { clusterBytes } = layer;
  const lengthBytes = layer === top ? length : layer.length;
  const pattern = 1 + random.below(255);
  const die = random.below(20);
  const image = `@${layer.name}`;
  if (die < 4 && lengthBytes >= clusterBytes) {
    const clusters = Math.floor(lengthBytes / clusterBytes);
    const first = random.below(clusters);
    const count = 1 + random.below(Math.min(4, clusters - first));
    const [offset, bytes] = [first * clusterBytes, count * clusterBytes];
    return { does: "io", image, op: { kind: "compressed", offset, length: bytes, pattern } };
  }
  const kinds = [
    "write",
    "write",
    "write",
    "write",
    "zeroes",
    "unmap",
    "unmap",
    "discard",
    "discard",
  ];
  const kind = die === 19 ? "flush" : random.pick(kinds);
  const op = { kind, ...someRange(random, lengthBytes, clusterBytes), pattern };
  if (kind === "write" && random.below(8) === 0) op.fua = true;
  return { does: "io", image, op };
}

const NAMES = ["b0", "b1", "b2"];

function bitmapStep(random) {
  const name = random.pick(NAMES);
  const other = random.pick(NAMES);
  const granularity = ["-g", `${2 ** (9 + random.below(9))}`];
  const add = ["--add", ...random.pick([[], granularity]), ...random.pick([[], [], ["--disable"]])];
  const action = random.pick([
    add,
    add,
    add,
    ["--remove"],
    ["--clear"],
    ["--enable"],
    ["--disable"],
    ["--merge", other],
    ["--disable", "--merge", other, "--enable"],
  ]);
  return img("bitmap", ...action, "@top.qcow2", name);
}

function snapshotStep(random) {
  const action = random.pick(["-c", "-c", "-c", "-a", "-a", "-d"]);
  return img("snapshot", action, random.pick(["s0", "s1", "s2"]), "@top.qcow2");
}

function resizeStep(context) {
  const { random, top } = context;
  const unit = random.pick([top.clusterBytes, 512, 512, 64 * KIB]);
  const delta = unit * (1 + random.below(Math.max(2, Math.floor(top.length / unit / 4))));
  const isShorter = random.below(5) < 2 && context.length > delta + top.clusterBytes;
  context.length += isShorter ? -delta : delta;
  const preallocation = ["metadata", "metadata", "falloc", "full"];
  const mode =
    isShorter || random.below(5) > 0 ? [] : [`--preallocation=${random.pick(preallocation)}`];
  // Without --shrink both must refuse it; the plan goes on as if they had not.
  const shrink = isShorter && random.below(12) > 0 ? ["--shrink"] : [];
  const sizes = [`${context.length}`, `${isShorter ? "-" : "+"}${delta}`];
  return img("resize", "-q", ...shrink, ...mode, "@top.qcow2", random.pick(sizes));
}

function amendStep(random) {
  const options = random.pick([
    ["compat=0.10"],
    ["compat=1.1"],
    ["compat=1.1"],
    ["lazy_refcounts=on"],
    ["lazy_refcounts=off"],
    [`refcount_bits=${random.pick([1, 2, 4, 8, 16, 32, 64])}`],
    [`refcount_bits=${random.pick([8, 16, 64])}`, "compat=1.1"],
    ["data_file_raw=off"],
  ]);
  return img("amend", "-q", "-o", options.join(","), "@top.qcow2");
}

function rebaseStep({ random, layers }) {
  const below = random.pick(layers.slice(0, -1).concat(undefined));
  const onto = below === undefined ? ["-b", ""] : ["-b", below.name, "-F", below.format];
  return img("rebase", ...random.pick([[], [], ["-u"]]), ...onto, "@top.qcow2");
}

function commitStep({ random, layers }) {
  const base = random.pick([undefined, undefined, ...layers.slice(0, -1)]);
  const words = ["-q", ...random.pick([[], [], ["-d"]])];
  if (base !== undefined) words.push("-b", base.name);
  return img("commit", ...words, "@top.qcow2");
}

/** A copy in another form; now and then it takes the place of the original. */
function convertSteps({ random, top, layers }) {
  if (random.below(4) === 0) {
    const there = img("convert", ...source(random), "-O", "raw", "@top.qcow2", "@x.raw");
    const name = "x.qcow2";
    const options = someOptions(random, { name, clusterBytes: top.clusterBytes }, false).join(",");
    const back = img("convert", "-f", "raw", "-O", "qcow2", "-o", options, "@x.raw", `@${name}`);
    return [there, back, ...adopted(random)];
  }
  const { clusterBytes } = someGeometry(random);
  const below = random.below(4) === 0 ? layers.at(-2) : undefined;
  const options = someOptions(random, { name: "x.qcow2", clusterBytes }, below !== undefined);
  const from = source(random);
  const words = ["convert", ...from];
  if (random.below(4) === 0) words.push("-c");
  if (random.below(4) === 0) words.push("-S", random.pick(["0", "4k", "64k"]));
  if (random.below(4) === 0) words.push("--bitmaps");
  if (below !== undefined) words.push("-B", below.name, "-F", below.format);
  words.push("-O", "qcow2", "-o", options.join(","), "@top.qcow2", "@x.qcow2");
  return [img(...words), ...adopted(random)];
}

/** The disk as it is, or as it was at a snapshot. */
function source(random) {
  return random.below(5) === 0 ? ["-l", random.pick(["s0", "s1", "s2"])] : [];
}

function adopted(random) {
  return random.below(3) === 0 ? [{ does: "adopt", from: "x.qcow2", to: "top.qcow2" }] : [];
}

function img(...words) {
  return { does: "img", words };
}
