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
import { basename, join } from "node:path";
import { diskContent, Random, writeSparse } from "../content.mjs";
import { qemuIoCommand } from "../guest-ops.mjs";
import { blk, tryBlk, tryProgram } from "../programs.mjs";
import { damage } from "./damage.mjs";
import { reasonToPart } from "./deliberate.mjs";
import { kindsOf } from "./kinds.mjs";
import { Looseness } from "./looseness.mjs";
import { MarkedRanges } from "./marked-ranges.mjs";
import { cutClusterEnd, diskBytes, headerOf, nonZeroSectors } from "./stale.mjs";

/** Steps take milliseconds: what takes this long does not end. */
const TIMEOUT_MS = 20_000;

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
  /** How often each kind of step ran; see kinds.mjs. @type {Map<string, {succeeded: number, refused: number}>} */
  kinds = new Map();
  /** Whether each tool went on with what the other made. */
  hasSwapped = false;
  /** How much maps may differ. */
  loose = new Looseness();
  /** Images whose clusters were compared and written by a rebase: blk does it by clusters, QEMU from 8.2 on. */
  rebased = new Set();
  /** What a guest changed since a bitmap began, by `image bitmap`. */
  marked = new MarkedRanges();
  /** The steps that were done, for a script. @type {import("./plan.mjs").Step[]} */
  done = [];
  /** Commands that were tried. @type {Set<string>} */
  #used = new Set();
  /** Clusters that were written since the image was made, by image; "all" where nobody counts. */
  #touched = new Map();
  /** Whether `x.data` belongs to an image that took the place of another. */
  #isDataAdopted = false;

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
          const { length, seed, noise } = step;
          writeSparse(
            path,
            noise ? new Random(seed).bytes(length) : diskContent(length, 65_536, seed),
          );
        }
        return;
      case "adopt": {
        const [from, to] = [this.paths(step.from), this.paths(step.to)];
        if (existsSync(from.ours) && existsSync(from.theirs)) {
          renameSync(from.ours, to.ours);
          renameSync(from.theirs, to.theirs);
          this.#isDataAdopted ||= headerOf(to.theirs).hasDataFile;
        }
        this.#touched.set(`@${step.to}`, "all");
        this.loose.afterAdoption(`@${step.from}`, `@${step.to}`);
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
      case "damage":
        return this.#damage(step);
      default:
        throw new Error(`no such step: ${step.does}`);
    }
  }

  /**
   * The bytes required follow from what is known to be zero, and that from holes in files: of those that were set aside, and
   * in clusters that are larger than those that are measured for.
   */
  #compareMeasures(ours, theirs) {
    const isExact = ![...this.done].some(({ words }) =>
      /preallocation|data_file|cluster_size=2097152/.test(`${words}`),
    );
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
    if (does !== "img" && does !== "damage") return false;
    if (words[0] === "check") return this.#used.has("bitmap") && this.#used.has("snapshot");
    return words[0] === "convert" && words.includes("-l") && this.#used.has("resize");
  }

  /** Damage is the same for both only where the files are. */
  async #damage(step) {
    const { image, what, at, words } = step;
    const { ours, theirs } = this.paths(image.slice(1));
    if (!existsSync(theirs)) return;
    this.#goOnFrom(this.theirs, this.ours);
    const isDamaged = damage(theirs, what, at);
    if (isDamaged) damage(ours, what, at);
    await this.#img({ does: "img", words });
    if (isDamaged) this.#count(step, true);
  }

  async #img(step) {
    // What a disk takes elsewhere depends on the holes of its file, too: both measure the same one.
    const folder = step.words[0] === "measure" ? this.theirs : this.ours;
    const oldLength = step.words[0] === "resize" ? this.#lengthOf(step) : 0;
    const kept = this.#isOldRebase(step) ? await diskBytes(this.#pathsOf(step).theirs) : undefined;
    const ours = await tryBlk(...step.words.map((word) => word.replace(/^@/, `${folder}/`)));
    const words = step.words.map((word) => word.replace(/^@/, ""));
    const theirs = await tryProgram("qemu-img", words, {
      cwd: this.theirs,
      timeoutMs: TIMEOUT_MS,
    });
    this.#touch(step);
    this.#used.add(words[0]);
    this.loose.afterCommand(step.words);
    if (words[0] === "rebase" && !words.includes("-u")) this.rebased.add(step.words.at(-1));
    if (words[0] === "bitmap" && ours.status === 0) this.marked.follow(step.words);
    this.#compare(step, ours, theirs);
    this.#count(step, ours.status === 0);
    if (theirs.status !== 0) await this.#afterFailure(words, theirs.stderr);
    // QEMU 7.2 shows the guest what freed clusters held, old tables too, where it sets space aside in them; blk zeroes them.
    const mayBeStale = words[0] === "resize" && words.some((word) => word.startsWith("--prealloc"));
    if (mayBeStale && ours.status === 0) this.#goOnFrom(this.ours, this.theirs);
    else if (words[0] === "resize") await this.#clearStale(step, oldLength);
    if (words[0] === "resize") this.#afterResize(step, oldLength);
    if (kept !== undefined && ours.status === 0) await this.#afterOldRebase(step, kept);
    if (words[0] === "commit" && words.includes("-b")) await this.#afterCommitPast(words);
    if (words[0] === "measure") this.#compareMeasures(ours.stdout, theirs.stdout);
  }

  /**
   * A layer that a commit passes by shows what it has itself, and below that what was committed: how much it has itself depends
   * on how much an earlier commit copied at once, which is each tool's own affair.
   */
  async #afterCommitPast(words) {
    const { ours, theirs } = this.paths("mid.qcow2");
    if (words.includes("mid.qcow2") || !existsSync(ours) || !existsSync(theirs)) return;
    if ((await diskBytes(ours)).equals(await diskBytes(theirs))) return;
    cpSync(theirs, ours);
    this.#excuse(
      "a layer that a commit passes by has as much of its own as each tool copied at once",
    );
  }

  /** The image that a step is about. */
  #pathsOf({ words }) {
    return this.paths(words.find((word) => word.startsWith("@")).slice(1));
  }

  #isOldRebase(step) {
    const { words } = step;
    if (words[0] !== "rebase" || words.includes("-u")) return false;
    const { theirs } = this.#pathsOf(step);
    return existsSync(theirs) && headerOf(theirs).version < 3;
  }

  /** In version 2 QEMU 7.2 loses zeroes that nothing holds when another backing file comes below them. */
  async #afterOldRebase(step, kept) {
    const { ours, theirs } = this.#pathsOf(step);
    if (kept.equals(await diskBytes(theirs)) || !kept.equals(await diskBytes(ours))) return;
    this.#goOnFrom(this.ours, this.theirs);
    this.#excuse("QEMU 7.2 loses zeroes of a version 2 image that gets another backing file");
  }

  /** The length of the disk that a step is about, as QEMU's twin has it. */
  #lengthOf(step) {
    const { theirs } = this.#pathsOf(step);
    return existsSync(theirs) ? headerOf(theirs).lengthBytes : 0;
  }

  #afterResize(step, oldLength) {
    const { theirs } = this.#pathsOf(step);
    if (!existsSync(theirs)) return;
    const image = `@${basename(theirs)}`;
    const { lengthBytes, clusterBytes, hasDataFile } = headerOf(theirs);
    this.marked.cut(image, lengthBytes);
    const isCut = [oldLength, lengthBytes].some((length) => length % clusterBytes !== 0);
    if (isCut) this.loose.afterCut(image, hasDataFile);
  }

  /**
   * A disk that was made shorter and longer again shows for QEMU 7.2 what the cluster that its end cut held behind it;
   * blk zeroes it.
   */
  async #clearStale(step, oldLength) {
    const { theirs } = this.#pathsOf(step);
    if (!existsSync(theirs)) return;
    const end = Math.min(this.#lengthOf(step), cutClusterEnd(theirs, oldLength));
    const stale = end > oldLength ? await nonZeroSectors(theirs, oldLength, end) : [];
    if (stale.length === 0) return;
    const commands = stale.flatMap((offset) => ["-c", `write -P 0 ${offset} 512`]);
    await tryProgram("qemu-io", ["-f", "qcow2", ...commands, theirs]);
    this.#excuse("QEMU 7.2 shows what lay behind the end of a disk that is made longer again");
  }

  /**
   * QEMU leaves leaks, with compressed clusters even corruptions, where a snapshot cannot be made since refcounts are too narrow,
   * and a target half-made where a conversion fails. blk leaves neither; of the target its users decide, so that it goes from both folders.
   */
  async #afterFailure(words, stderr) {
    // QEMU finds compressed clusters in the way of version 2 when it has expanded the zero clusters already.
    if (words[0] === "amend" && /zstd compression type and existing compressed/.test(stderr)) {
      this.#goOnFrom(this.ours, this.theirs);
    }
    if (words[0] === "snapshot") {
      const check = ["check", "-q", words.at(-1)];
      const { status } = await tryProgram("qemu-img", check, { cwd: this.theirs });
      if (status !== 0) this.#goOnFrom(this.ours, this.theirs);
    }
    if (words[0] !== "convert") return;
    const left = this.#isDataAdopted ? [] : ["x.data"];
    for (const name of ["x.qcow2", "x.raw", ...left]) {
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

  #compare(step, ours, theirs) {
    const sameEnd = (ours.status === 0) === (theirs.status === 0);
    const [our, their] = [ours.stderr.match(REASONS)?.at(-1), theirs.stderr.match(REASONS)?.at(-1)];
    if (sameEnd && (our === undefined || their === undefined || our === their)) return;
    const reason = reasonToPart({ step, ours, theirs });
    if (reason !== undefined) {
      this.#excuse(reason.why);
      if (!sameEnd) this.#goOn(reason.right);
      return;
    }
    const what = sameEnd ? "the reason of a failure" : "success";
    const about = `${what} of ${step.does === "io" ? step.op.kind : step.words[0]}`;
    const end = ({ status, stderr }) => `${status} ${stderr.trim()}`;
    throw new Difference(about, end(ours), end(theirs));
  }

  #excuse(why) {
    this.excused.set(why, (this.excused.get(why) ?? 0) + 1);
  }

  #count(step, succeeded) {
    for (const kind of kindsOf(step)) {
      const count = this.kinds.get(kind) ?? { succeeded: 0, refused: 0 };
      count[succeeded ? "succeeded" : "refused"]++;
      this.kinds.set(kind, count);
    }
  }

  /** The requests that go into one session, from a step on. */
  #sessionAt(steps, start) {
    const { image } = steps[start];
    const { theirs } = this.paths(image.slice(1));
    const { version, hasDataFile, hasBacking } = existsSync(theirs)
      ? headerOf(theirs)
      : { version: 3 };
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
      // Zeroes that must not be bytes QEMU 7.2 refuses for version 2 also where there is nothing to do, and with a raw data
      // file where that file could have them; over a backing file each asks as far down as it does (see looseness.mjs).
      if (op.noFallback && (version < 3 || hasDataFile || hasBacking)) continue;
      this.loose.afterRequest(image, op, version);
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
    const wordsAt = (folder) => {
      const commands = ops.map((op) => qemuIoCommand(op).replace("@", folder));
      return ["-f", "qcow2", ...commands.flatMap((command) => ["-c", command])];
    };
    const ours = outcomesOf(
      await tryBlk("io", ...wordsAt(`${this.ours}/`), join(this.ours, path)),
      ops,
    );
    const run = await tryProgram("qemu-io", [...wordsAt(""), path], {
      cwd: this.theirs,
      timeoutMs: TIMEOUT_MS,
    });
    const theirs = outcomesOf(run, ops);
    for (const [index, op] of ops.entries()) {
      if (ours[index].status === 0) this.marked.add(image, op);
      const step = { does: "io", image, op };
      this.#compare(step, ours[index], theirs[index]);
      this.#count(step, ours[index].status === 0);
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
