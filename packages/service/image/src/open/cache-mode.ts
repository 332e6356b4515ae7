/** The five cache modes of qemu-img (`-t`, `-T`), taken apart into what they mean. */
import { BlockError } from "@blocklayer/bytes";

/** What a cache mode says. */
export interface CacheMode {
  readonly name: CacheModeName;
  /** Past the page cache of the host (`O_DIRECT`). */
  readonly direct: boolean;
  /** Flushes are not passed on to the disk. Fast, and unsafe in a power cut. */
  readonly noFlush: boolean;
  /** Every write is on the disk before it is answered. */
  readonly writethrough: boolean;
}

export type CacheModeName = "none" | "writeback" | "writethrough" | "directsync" | "unsafe";

const MODES: readonly CacheMode[] = [
  { name: "none", direct: true, noFlush: false, writethrough: false },
  { name: "writeback", direct: false, noFlush: false, writethrough: false },
  { name: "writethrough", direct: false, noFlush: false, writethrough: true },
  { name: "directsync", direct: true, noFlush: false, writethrough: true },
  { name: "unsafe", direct: false, noFlush: true, writethrough: false },
];

/**
 * Reads a cache mode. `off` is an old word for `none`.
 *
 * @throws BlockError `EINVAL` for any other word
 * @example parseCacheMode("none").direct // true
 */
export function parseCacheMode(text: string): CacheMode {
  const name = text === "off" ? "none" : text;
  const mode = MODES.find((candidate) => candidate.name === name);
  if (mode !== undefined) return mode;
  const known = MODES.map((candidate) => candidate.name).join(", ");
  throw new BlockError("EINVAL", `cache mode '${text}' is unknown; known are: ${known}`);
}
