/** What this machine can do for local files beyond Node: for `blk info` and for bug reports. */
import { access } from "node:fs/promises";
import { loadNative, type NativeLoad } from "./native.js";

/** What works. */
export interface LockSupport {
  /** `ofd`: QEMU's locks, both ways. `seen-only`: others' are seen, ours cannot be taken. `none`: neither. */
  readonly locks: "ofd" | "seen-only" | "none";
  /** Holes are found, and space is given back. */
  readonly holes: boolean;
  /** Why not, when something is missing. */
  readonly reason?: string;
}

/**
 * Looks what there is.
 *
 * @param load - where the native calls come from; the default is koffi
 */
export async function lockSupport(
  load: () => Promise<NativeLoad> = loadNative,
): Promise<LockSupport> {
  const loaded = await load();
  if (loaded.native !== undefined) return { locks: "ofd", holes: true };
  const listed = await access("/proc/locks").then(
    () => true,
    () => false,
  );
  return { locks: listed ? "seen-only" : "none", holes: false, reason: loaded.reason };
}
