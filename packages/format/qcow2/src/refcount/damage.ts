/**
 * Damage that makes further writing dangerous: the next write could destroy what is still good.
 *
 * Thrown by the overlap check, and where refcounts contradict the tables. Whoever catches one at the
 * driver's edge marks the image as corrupt and fails the node [C16].
 */
import { CorruptImageError } from "@blocklayer/bytes";

export class DamageError extends CorruptImageError {}
