// The real qemu-img as a second judge of what a crash left.
import { execFile, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Violation } from "./guest-run.mjs";
import { backingContent, DATA_NAME } from "./stack.mjs";
import { BACKING_NAMES } from "./upkeep-operations.mjs";

/** One image in so many is converted as well, and compared with what we read. */
const CONVERT_EVERY = 8;
/** `qemu-img check`: 0 all is well, 3 only leaks. */
const ACCEPTED = [0, 3];
/** Corruptions: where refcounts were put off, or flags wait for a repair. */
const CORRUPT = 2;

/** Whether qemu-img is here. With BLOCKLAYER_REQUIRE_QEMU its absence is an error. */
export function hasQemuImg() {
  const isHere = spawnSync("qemu-img", ["--version"], { stdio: "ignore" }).error === undefined;
  if (!isHere && process.env.BLOCKLAYER_REQUIRE_QEMU !== undefined) {
    throw new Error("BLOCKLAYER_REQUIRE_QEMU is set, and qemu-img is not there");
  }
  return isHere;
}

export class QemuJudge {
  totals = { judged: 0, converted: 0 };
  #folder = mkdtempSync(join(tmpdir(), "blocklayer-sim-"));

  /** @param {import("./config.mjs").SimConfig} config */
  constructor(config) {
    this.config = config;
    const backing = backingContent(config);
    if (backing === undefined) return;
    for (const name of config.upkeep === undefined ? BACKING_NAMES.slice(0, 1) : BACKING_NAMES) {
      mkdirSync(dirname(join(this.#folder, name)), { recursive: true });
      writeFileSync(join(this.#folder, name), backing);
    }
  }

  /** Writes a state to a file and has it judged. @throws Violation */
  async judge(state, { bytes, snapshots = [], dirty = false, hasWrongFlags = false }) {
    const image = join(this.#folder, "crashed.qcow2");
    writeFileSync(image, state.bytes);
    if (this.config.dataFile !== undefined) {
      writeFileSync(join(this.#folder, DATA_NAME), state.bytesOf(1));
    }
    const check = await this.#run(["check", "-f", "qcow2", image]);
    const isAccepted = ACCEPTED.includes(check.status);
    if (!isAccepted && !(check.status === CORRUPT && (dirty || hasWrongFlags))) {
      throw new Violation(`qemu-img check ends with ${check.status}:\n${check.output}`);
    }
    this.totals.judged++;
    if (this.totals.judged % CONVERT_EVERY !== 1) return;
    const shown = await this.#convert(image, []);
    if (!shown.equals(bytes)) throw new Violation("qemu-img convert reads other bytes");
    const snapshot = snapshots.at(-1);
    if (snapshot !== undefined) {
      // It shows a snapshot at the length of the disk.
      const { name, bytes: expected } = snapshot;
      const found = await this.#convert(image, ["-l", `snapshot.name=${name}`]);
      const end = Math.min(expected.length, found.length);
      if (!found.subarray(0, end).equals(expected.subarray(0, end))) {
        throw new Violation(`qemu-img convert reads other bytes of snapshot '${name}'`);
      }
    }
    this.totals.converted++;
  }

  async #convert(image, words) {
    const raw = join(this.#folder, "crashed.raw");
    const all = ["convert", "-f", "qcow2", "-O", "raw", ...words, image, raw];
    const convert = await this.#run(all);
    if (convert.status !== 0) throw new Violation(`qemu-img convert: ${convert.output}`);
    return readFileSync(raw);
  }

  /** In the folder of the images: the name of a data file counts from where qemu-img runs. */
  #run(words) {
    return new Promise((resolve) => {
      const options = { maxBuffer: 2 ** 26, cwd: this.#folder };
      execFile("qemu-img", words, options, (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ status, output: `${stdout}${stderr}` });
      });
    });
  }

  dispose() {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
