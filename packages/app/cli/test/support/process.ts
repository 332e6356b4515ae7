/** The program as a process of its own: what bin/blk.js starts. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Transcript } from "./fake-terminal.js";

export const BIN: string = join(import.meta.dirname, "../../bin/blk.js");

/** Runs `blk` to its end. */
export function blkProcess(words: readonly string[], cwd: string, bin: string = BIN): Transcript {
  return outcome(process.execPath, [bin, ...words], cwd);
}

/** Runs any program to its end. */
export function outcome(program: string, words: readonly string[], cwd: string): Transcript {
  const { status, stdout, stderr } = spawnSync(program, words, { cwd, encoding: "utf8" });
  return { status: status ?? -1, stdout, stderr };
}

/** A `blk` that runs, and how it ends. */
export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<{ status: number | null; signal: string | null; stderr: string }>;
}

export function startBlk(words: readonly string[], cwd: string): Running {
  const child = spawn(process.execPath, [BIN, ...words], { cwd });
  let stderr = "";
  child.stderr.on("data", (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  const ended = new Promise<{ status: number | null; signal: string | null; stderr: string }>(
    (resolve) => child.on("close", (status, signal) => resolve({ status, signal, stderr })),
  );
  return { child, ended };
}

/** Waits until a file is there and has this many bytes. */
export async function untilGrown(path: string, bytes: number): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (existsSync(path) && statSync(path).size >= bytes) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${path} did not grow to ${bytes} bytes`);
}
