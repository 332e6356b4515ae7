/** The real tools, where they are installed. */
import { spawnSync } from "node:child_process";
import type { Transcript } from "./fake-terminal.js";

function versionOf(program: string): string | undefined {
  const { status, stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout.split("\n")[0] : undefined;
}

/** Whether the real qemu-img and qemu-io are here. With BLOCKLAYER_REQUIRE_QEMU=1 they must be. */
export const hasQemu: boolean =
  versionOf("qemu-img") !== undefined && versionOf("qemu-io") !== undefined;

if (!hasQemu && process.env["BLOCKLAYER_REQUIRE_QEMU"] === "1") {
  throw new Error("BLOCKLAYER_REQUIRE_QEMU=1, and qemu-img or qemu-io is not installed");
}

/** Runs one of the tools in the working directory. */
export function tool(program: "qemu-img" | "qemu-io", words: readonly string[]): Transcript {
  const { status, stdout, stderr } = spawnSync(program, words, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
  });
  return { status: status ?? -1, stdout, stderr };
}

/** Runs a tool that must succeed. */
export function must(program: "qemu-img" | "qemu-io", ...words: string[]): void {
  const { status, stderr, stdout } = tool(program, words);
  if (status !== 0) throw new Error(`${program} ${words.join(" ")}: ${stderr}${stdout}`);
}
