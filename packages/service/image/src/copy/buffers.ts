/** The buffers that conversions and comparisons read into: one bounded arena for all of them. */
import { AlignedArena } from "@blocklayer/aligned-io";
import { MiB } from "@blocklayer/bytes";

/** Buffers of all copies that run at the same time, together. Whoever comes later waits. */
const COPY_ARENA_BYTES: number = 48 * MiB;

let arena: AlignedArena | undefined;

/**
 * The arena of this package. It is not the one that nodes take bounce buffers from: a copy holds its buffer while
 * the nodes below want theirs.
 */
export function copyArena(): AlignedArena {
  arena ??= new AlignedArena({ maxBytes: COPY_ARENA_BYTES });
  return arena;
}
