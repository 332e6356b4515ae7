// Runs a command to its end and says how long it took and how much memory it held at its peak.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

/**
 * @typedef {object} Sample
 * @property {number} seconds - wall time, start to end
 * @property {number} peakMiB - high-water mark of resident memory, as far as /proc tells; else 0
 * @property {string} output
 */

/**
 * @param {readonly string[]} command
 * @returns {Promise<Sample>}
 */
export function runOnce([program, ...args]) {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let peakMiB = 0;
    const watch = setInterval(() => {
      peakMiB = Math.max(peakMiB, peakOf(child.pid));
    }, 20);
    child.stdout.on("data", (data) => (output += data));
    child.stderr.on("data", (data) => (output += data));
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearInterval(watch);
      const seconds = Number(process.hrtime.bigint() - start) / 1e9;
      if (code === 0) resolve({ seconds, peakMiB, output });
      else
        reject(new Error(`${program} ${args.join(" ")} ended with ${code ?? signal}\n${output}`));
    });
  });
}

function peakOf(pid) {
  try {
    const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return match === null ? 0 : Number(match[1]) / 1024;
  } catch {
    return 0; // it has just ended, or this system has no /proc
  }
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
