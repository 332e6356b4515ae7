// The real qemu-img as a second judge of what a crash left.
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Violation } from "./guest-run.mjs";
import { BACKING_NAME, backingContent } from "./stack.mjs";

/** One image in so many is converted as well, and compared with what we read. */
const CONVERT_EVERY = 8;
/** `qemu-img check`: 0 all is well, 3 only leaks. */
const ACCEPTED = [0, 3];

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
    const backing = backingContent(config);
    if (backing !== undefined) writeFileSync(join(this.#folder, BACKING_NAME), backing);
  }

  /** Writes a state to a file and has it judged. @throws Violation */
  async judge(state, bytes) {
    const image = join(this.#folder, "crashed.qcow2");
    writeFileSync(image, state.bytes);
    const check = await run("qemu-img", ["check", "-f", "qcow2", image]);
    if (!ACCEPTED.includes(check.status)) {
      throw new Violation(`qemu-img check ends with ${check.status}:\n${check.output}`);
    }
    this.totals.judged++;
    if (this.totals.judged % CONVERT_EVERY !== 1) return;
    const raw = join(this.#folder, "crashed.raw");
    const convert = await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", image, raw]);
    if (convert.status !== 0) throw new Violation(`qemu-img convert: ${convert.output}`);
    if (!readFileSync(raw).equals(bytes)) throw new Violation("qemu-img convert reads other bytes");
    this.totals.converted++;
  }

  dispose() {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function run(program, words) {
  return new Promise((resolve) => {
    execFile(program, words, { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ status, output: `${stdout}${stderr}` });
    });
  });
}
