/** Scratch folders and the gate in front of tests that need QEMU's tools. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe } from "vitest";
import { hasQemu } from "../src/programs.mjs";

/** A suite that needs qemu-img and qemu-io: shown as skipped where they are not. */
export const describeWithQemu: typeof describe = hasQemu
  ? describe
  : (describe.skip as typeof describe);

/** Runs a body with a folder of its own, which is gone afterwards, whatever happens. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-interop-"));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
