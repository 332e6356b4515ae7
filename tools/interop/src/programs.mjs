// The programs that are compared: blk, within this process or as a process of its own, and QEMU's tools.
import { execFile, spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "@blocklayer/cli";

/**
 * @typedef {object} Outcome
 * @property {number} status - exit status; -1 when a signal ended it
 * @property {string} stdout
 * @property {string} stderr
 */

const cli = dirname(fileURLToPath(import.meta.resolve("@blocklayer/cli/package.json")));

/** The words that start blk as a process of its own. */
export const BLK = [process.execPath, join(cli, "bin/blk.js")];

/** Whether QEMU's tools are here. With BLOCKLAYER_REQUIRE_QEMU their absence is an error. */
export const hasQemu = isInstalled("qemu-img") && isInstalled("qemu-io");
if (!hasQemu && process.env.BLOCKLAYER_REQUIRE_QEMU !== undefined) {
  throw new Error("BLOCKLAYER_REQUIRE_QEMU is set, and qemu-img or qemu-io is not there");
}

/** @param {string} program */
export function isInstalled(program) {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).error === undefined;
}

/**
 * Runs blk within this process: what the program does, without the tenth of a second that a process costs.
 *
 * @param {...string} words
 * @returns {Promise<Outcome>}
 */
export async function tryBlk(...words) {
  let stdout = "";
  let stderr = "";
  const status = await run(words, {
    programName: "blk",
    out: (text) => (stdout += text),
    err: (text) => (stderr += text),
    signal: new AbortController().signal,
  });
  return { status, stdout, stderr };
}

/** What a program that is killed after its time is said to have said. */
export const DOES_NOT_END = "it does not end";

/**
 * Runs one of QEMU's tools.
 *
 * @param {string} program
 * @param {readonly string[]} words
 * @param {{cwd?: string, timeoutMs?: number}} [how] - what takes longer than `timeoutMs` is killed, and says so
 * @returns {Promise<Outcome>}
 */
export function tryProgram(program, words, { cwd, timeoutMs = 0 } = {}) {
  return new Promise((resolve) => {
    const options = { maxBuffer: 2 ** 28, cwd, timeout: timeoutMs, killSignal: "SIGKILL" };
    execFile(program, words, options, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      const isKilled = error?.killed === true;
      resolve({ status, stdout, stderr: isKilled ? `${stderr}${DOES_NOT_END}\n` : stderr });
    });
  });
}

/** blk to its end; anything but success is an error. Resolves to what it printed. */
export async function blk(...words) {
  return successful(`blk ${words.join(" ")}`, await tryBlk(...words));
}

/** qemu-img to its end; anything but success is an error. Resolves to what it printed. */
export async function qemuImg(...words) {
  return successful(`qemu-img ${words.join(" ")}`, await tryProgram("qemu-img", words));
}

/** qemu-io with commands on a qcow2 image. It exits with 0 whatever fails, so its output is looked at. */
export async function qemuIo(image, commands) {
  if (commands.length === 0) return;
  const words = commands.flatMap((command) => ["-c", command]);
  const outcome = await tryProgram("qemu-io", ["-f", "qcow2", ...words, image]);
  const bad = /.*(?:failed|error|invalid|can't).*/i.exec(outcome.stdout + outcome.stderr);
  if (bad !== null) throw new Error(`qemu-io on ${image}: ${bad[0]}`);
  successful(`qemu-io ${image}`, outcome);
}

function successful(what, { status, stdout, stderr }) {
  if (status !== 0) throw new Error(`${what}: ended with ${status}: ${stderr}${stdout}`);
  return stdout;
}
