// Two folders with the same images: blk works in one, QEMU's tools in the other, step by step.
//
// 1. A step must succeed for both, or fail for both, and for the same reason as far as both name one.
// 2. Requests that follow each other go into one process of qemu-io, and one opening of blk's.
// 3. What QEMU itself cannot do right it is not asked to (see `mayCompress`).
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { diskContent, writeSparse } from "../content.mjs";
import { qemuIoCommand } from "../guest-ops.mjs";
import { blk, tryBlk, tryProgram } from "../programs.mjs";
import { reasonToPart } from "./deliberate.mjs";
import { MarkedRanges } from "./marked-ranges.mjs";

/** Steps take milliseconds: what takes this long does not end. */
const TIMEOUT_MS = 60_000;

/** A step at which the twins part, or a question that is answered differently. */
export class Difference extends Error {
  /**
   * @param {string} about - what kind of difference; stays the same while the list is made shorter
   * @param {unknown} ours
   * @param {unknown} theirs
   */
  constructor(about, ours, theirs) {
    super(`${about}\n  blk:  ${show(ours)}\n  QEMU: ${show(theirs)}`);
    this.about = about;
  }
}

function show(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 1500 ? `${text.slice(0, 1500)}…` : text;
}

/** Reasons that both tools may name, as the C library words them. */
const REASONS =
  /Input\/output error|No space left on device|Invalid argument|Operation not supported|Operation not permitted|No such file or directory|File exists|File too large|Device or resource busy|Permission denied/g;

export class TwinPair {
  /** Folders: what blk works in, what QEMU works in. */
  ours;
  theirs;
  /** How often a reason of deliberate.mjs was used. @type {Map<string, number>} */
  excused = new Map();
  /** Whether each tool went on with what the other made. */
  hasSwapped = false;
  /** Images whose clusters may be allocated otherwise; see `mapForm` in judge.mjs. */
  loose = new Set();
  /** What a guest changed since a bitmap began, by `image bitmap`. */
  marked = new MarkedRanges();
  /** The steps that were done, for a script. @type {import("./plan.mjs").Step[]} */
  done = [];
  /** Whether zeroes in parts of clusters may be flags for one tool and bytes for the other; see judge.mjs. */
  #zeroesAreLoose = false;
  /** Commands that were tried. @type {Set<string>} */
  #used = new Set();
  /** Clusters that were written since the image was made, by image; "all" where nobody counts. */
  #touched = new Map();

  /** @param {string} folder */
  constructor(folder) {
    this.ours = join(folder, "a");
    this.theirs = join(folder, "b");
    mkdirSync(this.ours);
    mkdirSync(this.theirs);
  }

  /**
   * Does steps up to the next one that is for others (`judge`).
   *
   * @param {readonly import("./plan.mjs").Step[]} steps
   * @returns {Promise<void>}
   * @throws Difference
   */
  async follow(steps) {
    for (let at = 0; at < steps.length; ) {
      const step = steps[at];
      if (step.does === "io") {
        const session = this.#sessionAt(steps, at);
        at += session.taken;
        if (session.ops.length > 0) await this.#guest(step.image, session.ops);
        continue;
      }
      at++;
      await this.#one(step);
    }
  }

  /** Paths of a file in both folders. */
  paths(name) {
    return { ours: join(this.ours, name), theirs: join(this.theirs, name) };
  }

  async #one(step) {
    if (this.#isBeyondQemu(step)) return;
    this.done.push(step);
    switch (step.does) {
      case "raw":
        for (const path of Object.values(this.paths(step.name))) {
          writeSparse(path, diskContent(step.length, 65_536, step.seed));
        }
        return;
      case "adopt": {
        const [from, to] = [this.paths(step.from), this.paths(step.to)];
        if (existsSync(from.ours) && existsSync(from.theirs)) {
          renameSync(from.ours, to.ours);
          renameSync(from.theirs, to.theirs);
        }
        this.#touched.set(`@${step.to}`, "all");
        this.loose.add(`@${step.to}`);
        this.marked.forget(`@${step.to}`);
        return;
      }
      case "swap":
        this.hasSwapped = true;
        [this.ours, this.theirs] = [this.theirs, this.ours];
        return;
      case "spoil":
        await blk("io", "-c", `write -P 1 ${step.offset} 512`, this.paths("top.qcow2").ours);
        return;
      case "img":
        return this.#img(step);
      default:
        throw new Error(`no such step: ${step.does}`);
    }
  }

  /** The bytes required follow from what is known to be zero, and that from holes in files that were set aside. */
  #compareMeasures(ours, theirs) {
    const isExact = ![...this.done].some(({ words }) => /preallocation|data_file/.test(`${words}`));
    const form = (text) => text.split("\n").filter((line) => isExact || !line.includes("required"));
    if (form(ours).join() !== form(theirs).join()) {
      throw new Difference("the output of measure", ours, theirs);
    }
  }

  /**
   * What QEMU 7.2 does wrong, so that it cannot be asked: `check -r` drops all snapshots of an image that has bitmaps, too;
   * a snapshot of a disk that had another length is converted with the length of today.
   */
  #isBeyondQemu({ does, words }) {
    if (does !== "img") return false;
    if (words[0] === "check") return this.#used.has("bitmap") && this.#used.has("snapshot");
    return words[0] === "convert" && words.includes("-l") && this.#used.has("resize");
  }

  async #img(step) {
    // What a disk takes elsewhere depends on the holes of its file, too: both measure the same one.
    const folder = step.words[0] === "measure" ? this.theirs : this.ours;
    const ours = await tryBlk(...step.words.map((word) => word.replace(/^@/, `${folder}/`)));
    const words = step.words.map((word) => word.replace(/^@/, ""));
    const theirs = await tryProgram("qemu-img", words, {
      cwd: this.theirs,
      timeoutMs: TIMEOUT_MS,
    });
    this.#touch(step);
    this.#used.add(words[0]);
    if (/(^|,)-[bB],|extended_l2=on/.test(`${words}`)) this.#zeroesAreLoose = true;
    this.#loosen(step.words);
    if (words[0] === "bitmap" && ours.status === 0) this.marked.follow(step.words);
    this.#compare(step, ours, theirs);
    if (theirs.status !== 0) await this.#afterFailure(words);
    // QEMU 7.2 shows the guest what freed clusters held, old tables too, where it sets space aside in them; blk zeroes them.
    const mayBeStale = words[0] === "resize" && words.some((word) => word.startsWith("--prealloc"));
    if (mayBeStale && ours.status === 0) this.#goOnFrom(this.ours, this.theirs);
    if (words[0] === "measure") this.#compareMeasures(ours.stdout, theirs.stdout);
  }

  /**
   * QEMU leaves leaks, with compressed clusters even corruptions, where a snapshot cannot be made since refcounts are too narrow,
   * and a target half-made where a conversion fails. blk leaves neither; of the target its users decide, so that it goes from both folders.
   */
  async #afterFailure(words) {
    if (words[0] === "snapshot") {
      const check = ["check", "-q", words.at(-1)];
      const { status } = await tryProgram("qemu-img", check, { cwd: this.theirs });
      if (status !== 0) this.#goOnFrom(this.ours, this.theirs);
    }
    if (words[0] !== "convert") return;
    for (const name of ["x.qcow2", "x.raw", "x.data"]) {
      for (const path of Object.values(this.paths(name))) rmSync(path, { force: true });
    }
  }

  #goOn(right) {
    if (right === "ours") this.#goOnFrom(this.ours, this.theirs);
    else this.#goOnFrom(this.theirs, this.ours);
  }

  /** One twin becomes a copy of the other. */
  #goOnFrom(source, target) {
    for (const name of new Set([...readdirSync(source), ...readdirSync(target)])) {
      const [from, to] = [join(source, name), join(target, name)];
      if (!existsSync(from)) rmSync(to);
      // What is the same keeps its holes.
      else if (!existsSync(to) || !readFileSync(from).equals(readFileSync(to))) cpSync(from, to);
    }
    this.hasSwapped = true;
  }

  /** What is made from an image, or from a disk, has its clusters where its maker likes. */
  #loosen(words) {
    const images = words.filter((word) => word.startsWith("@"));
    const below = words.flatMap((word, at) =>
      /^-[bB]$/.test(words[at - 1] ?? "") ? [`@${word}`] : [],
    );
    if (words[0] === "convert") this.loose.add(images.at(-1));
    if (words.some((word) => word.startsWith("--preallocation"))) this.loose.add(images.at(-1));
    if (!["commit", "rebase"].includes(words[0])) return;
    for (const image of [...images, ...below]) this.loose.add(image);
    if (words[0] === "commit")
      for (const image of ["@mid.qcow2", "@base.qcow2"]) this.loose.add(image);
  }

  #compare(step, ours, theirs) {
    const sameEnd = (ours.status === 0) === (theirs.status === 0);
    const [our, their] = [ours.stderr.match(REASONS)?.at(-1), theirs.stderr.match(REASONS)?.at(-1)];
    if (sameEnd && (our === undefined || their === undefined || our === their)) return;
    const reason = reasonToPart({ step, ours, theirs });
    if (reason !== undefined) {
      this.excused.set(reason.why, (this.excused.get(reason.why) ?? 0) + 1);
      if (!sameEnd) this.#goOn(reason.right);
      return;
    }
    const what = sameEnd ? "the reason of a failure" : "success";
    const about = `${what} of ${step.does === "io" ? step.op.kind : step.words[0]}`;
    const end = ({ status, stderr }) => `${status} ${stderr.trim()}`;
    throw new Difference(about, end(ours), end(theirs));
  }

  /** The requests that go into one session, from a step on. */
  #sessionAt(steps, start) {
    const { image } = steps[start];
    const ops = [];
    let at = start;
    for (; at < steps.length; at++) {
      const step = steps[at];
      if (step.does !== "io" || step.image !== image) break;
      const { op } = step;
      if (op.kind === "compressed") {
        if (!this.#mayCompress(image, op)) continue;
        // QEMU 7.2 goes on appending to a compressed cluster that was freed meanwhile, within one opening.
        if (ops.some(({ kind }) => kind !== "compressed")) break;
      }
      if ((op.kind === "zeroes" || op.kind === "unmap") && this.#zeroesAreLoose)
        this.loose.add(image);
      this.#touchRange(image, op);
      this.done.push(step);
      ops.push(op);
    }
    return { ops, taken: at - start };
  }

  /** QEMU 7.2 refuses to compress over what is there, so that it is asked only where nothing was ever written. */
  #mayCompress(image, op) {
    const touched = this.#touched.get(image) ?? new Set();
    return touched !== "all" && clustersOf(op).every((cluster) => !touched.has(cluster));
  }

  #touchRange(image, op) {
    if (op.kind === "flush") return;
    const touched = this.#touched.get(image) ?? new Set();
    if (touched !== "all") for (const cluster of clustersOf(op)) touched.add(cluster);
    this.#touched.set(image, touched);
  }

  /** After these words nobody knows what is where. */
  #touch({ words }) {
    if (["bitmap", "check", "measure"].includes(words[0])) return;
    const isNew = words[0] === "create" && !words.some((word) => word.includes("preallocation"));
    for (const word of words) {
      if (word.startsWith("@")) this.#touched.set(word, isNew ? new Set() : "all");
    }
  }

  /** One session of a guest. */
  async #guest(image, ops) {
    const path = image.slice(1);
    const words = ["-f", "qcow2", ...ops.flatMap((op) => ["-c", qemuIoCommand(op)])];
    const ours = outcomesOf(await tryBlk("io", ...words, join(this.ours, path)), ops);
    const run = await tryProgram("qemu-io", [...words, path], {
      cwd: this.theirs,
      timeoutMs: TIMEOUT_MS,
    });
    const theirs = outcomesOf(run, ops);
    for (const [index, op] of ops.entries()) {
      if (ours[index].status === 0) this.marked.add(image, op);
      this.#compare({ does: "io", image, op }, ours[index], theirs[index]);
    }
  }
}

/** Clusters, of the smallest size there is. */
function clustersOf({ offset, length }) {
  const first = Math.floor(offset / 512);
  const last = Math.floor((offset + length - 1) / 512);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/**
 * What became of each request of a session, from its output: a line each, save for a flush that succeeds.
 *
 * @returns {import("../programs.mjs").Outcome[]}
 */
function outcomesOf({ status, stdout, stderr }, ops) {
  const failed = (text) => ({ status: 1, stdout: "", stderr: text });
  if (stderr !== "") return ops.map(() => failed(`${status} ${stdout}${stderr}`));
  const lines = stdout.split("\n").filter((line) => /^(wrote|discard) \d|failed: /.test(line));
  return ops.map(({ kind }) => {
    const isQuiet = kind === "flush" && !lines[0]?.startsWith("flush failed");
    const line = isQuiet ? "wrote" : lines.shift();
    if (line === undefined) throw new Error(`a session said too little: ${stdout}`);
    return line.includes("failed: ") ? failed(line) : { status: 0, stdout: "", stderr: "" };
  });
}
