/** What the tests of this package share. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlockError } from "@blocklayer/bytes";
import { afterAll } from "vitest";
import type { NativeLoad } from "../src/native.js";

/** What a machine without koffi has. */
export function noNative(): Promise<NativeLoad> {
  return Promise.resolve({ reason: "left out for this test" });
}

/** A directory that goes when the tests of the file are done. */
export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "blocklayer-file-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const hasQemu = spawnSync("qemu-io", ["--version"]).status === 0;

/**
 * Whether tests that need the real qemu-io and qemu-img run: skipped where they are not, unless
 * BLOCKLAYER_REQUIRE_QEMU says that they must be.
 */
export const useQemu: boolean = hasQemu || process.env["BLOCKLAYER_REQUIRE_QEMU"] !== undefined;

/** What a tool said, and how it ended. */
export interface ToolRun {
  readonly status: number | null;
  readonly output: string;
}

/** Runs a tool to its end. */
export function run(tool: string, ...args: readonly string[]): ToolRun {
  const result = spawnSync(tool, args, { encoding: "utf8" });
  if (result.error !== undefined) throw result.error;
  return { status: result.status, output: `${result.stdout}${result.stderr}` };
}

/** A qemu-io that has a file open until it is told to stop. */
export class QemuIo {
  readonly #child: ChildProcessWithoutNullStreams;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
  }

  /** @param args - of qemu-io, without a command; resolves when the file is open */
  static async start(...args: readonly string[]): Promise<QemuIo> {
    const child = spawn("qemu-io", args);
    let said = "";
    const opened = new Promise<void>((resolve, reject) => {
      const hear = (chunk: Buffer): void => {
        said += chunk.toString();
        if (said.includes("512/512")) resolve();
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
      child.on("exit", () => reject(new Error(`qemu-io ended: ${said}`)));
      child.on("error", reject);
    });
    child.stdin.write("read 0 512\n");
    await opened;
    return new QemuIo(child);
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.stdin.end("quit\n");
    await ended;
  }
}

/** The BlockError that an action fails with, thrown or rejected. */
export async function failureOf(action: () => unknown): Promise<BlockError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
  throw new Error("the action must fail, and succeeded");
}
