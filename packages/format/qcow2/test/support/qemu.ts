/** The real qemu-img as the oracle, and a scratch folder for the files that it needs. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe } from "vitest";

const run = promisify(execFile);

/** How a run of qemu-img ended. */
export interface QemuResult {
  /** Exit code; -1 when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function isInstalled(): Promise<boolean> {
  try {
    await run("qemu-img", ["--version"]);
    return true;
  } catch {
    return false;
  }
}

const installed: boolean = await isInstalled();
if (!installed && process.env["BLOCKLAYER_REQUIRE_QEMU"] !== undefined) {
  throw new Error("BLOCKLAYER_REQUIRE_QEMU is set, and qemu-img is not there");
}

/** A suite that needs qemu-img: shown as skipped where there is none. */
export const describeWithQemu: typeof describe = installed
  ? describe
  : (describe.skip as typeof describe);

/** Runs qemu-img to its end, whatever it says. */
export async function qemuImg(...args: readonly string[]): Promise<QemuResult> {
  try {
    const { stdout, stderr } = await run("qemu-img", args, {
      maxBuffer: 64 * 2 ** 20,
      timeout: 60_000,
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const failure = error as { code?: unknown; stdout?: string; stderr?: string };
    const code = typeof failure.code === "number" ? failure.code : -1;
    return { code, stdout: failure.stdout ?? "", stderr: failure.stderr ?? "" };
  }
}

/** A folder for this suite alone, gone after it. Call inside `describe`. */
export function useScratch(): (name: string) => string {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "blocklayer-qcow2-"));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });
  return (name) => join(folder, name);
}
