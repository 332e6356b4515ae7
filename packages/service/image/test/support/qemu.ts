/** The real qemu-img, as the oracle of the interop tests. */
import { execFileSync, spawnSync } from "node:child_process";

/** Whether there is a qemu-img. */
export const isQemuInstalled: boolean = spawnSync("qemu-img", ["--version"]).status === 0;

if (!isQemuInstalled && process.env["BLOCKLAYER_REQUIRE_QEMU"] !== undefined) {
  throw new Error("BLOCKLAYER_REQUIRE_QEMU is set, and there is no qemu-img");
}

/** Runs qemu-img in a folder. */
export function qemuImg(folder: string, ...words: readonly string[]): string {
  return execFileSync("qemu-img", words, { cwd: folder, encoding: "utf8" });
}

/** The same, when its exit code or messages count. */
export function tryQemuImg(
  folder: string,
  ...words: readonly string[]
): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync("qemu-img", words, {
    cwd: folder,
    encoding: "utf8",
  });
  return { status, output: stdout + stderr };
}

/** Runs qemu-io commands on an image. */
export function qemuIo(folder: string, image: string, ...commands: readonly string[]): string {
  const words = commands.flatMap((command) => ["-c", command]);
  return execFileSync("qemu-io", [...words, image], { cwd: folder, encoding: "utf8" });
}
