/** The arena that all of a process share, so that its bound is one number. */
import { MiB } from "@blocklayer/bytes";
import { AlignedArena } from "./arena.js";

/** Enough for 64 requests of 1 MiB in flight. */
const SHARED_ARENA_BYTES = 64 * MiB;

let arena: AlignedArena | undefined;

/** The process-wide arena, bounded to 64 MiB. Made when first asked for; takes memory when first used. */
export function sharedArena(): AlignedArena {
  arena ??= new AlignedArena({ maxBytes: SHARED_ARENA_BYTES });
  return arena;
}
