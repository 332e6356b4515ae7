/**
 * What a caller is handed to write to the file.
 *
 * Above: the driver that writes it, SeqCache that makes it. Below: Entry.
 */
import { alignUp } from "@blocklayer/bytes";
import type { Entry } from "./entry.js";

/** Names one handout. Settled once, by `discard()` or `putBack()`. */
export interface FlushToken {
  readonly kind: "seqcache handout";
}

/** Bytes to be written to the file [S5]. */
export interface SeqFlush {
  readonly token: FlushToken;
  /** Where in the file the bytes go: any byte offset. */
  readonly offset: number;
  /**
   * From `offset` to the end of its cluster. It belongs to the cache and stays valid until the token is
   * settled, also when the entry is dropped meanwhile. Of an unfinished entry, bytes behind `length` may
   * turn from zeroes into data at any time; all others stay as they are.
   */
  readonly buffer: Uint8Array;
  /** How many bytes of the buffer are data; at least one. Behind them are zeroes. */
  readonly length: number;
  /** Whether nothing can be appended any more, so that the zeroes may be written too [S6]. */
  readonly finished: boolean;
}

/** A handout as the cache knows it; it is its own token. */
export class Handout implements SeqFlush {
  readonly entry: Entry;
  /** Where in the cluster the handed-out bytes end. */
  readonly end: number;
  readonly offset: number;
  readonly buffer: Uint8Array;
  readonly length: number;
  readonly finished: boolean;
  /** The cache that waits for it; undefined once settled. */
  owner: object | undefined;
  readonly kind = "seqcache handout";

  constructor(entry: Entry, owner: object) {
    const { start, end, buffer } = entry;
    this.entry = entry;
    this.owner = owner;
    this.end = end;
    this.offset = entry.clusterOffset + start;
    this.buffer = start === 0 ? buffer : buffer.subarray(start);
    this.length = end - start;
    this.finished = entry.finished;
  }

  get token(): FlushToken {
    return this;
  }
}

/**
 * How many bytes of `flush.buffer` to write [S6]. The end of a finished entry is moved up to the
 * alignment, so that a device with large blocks need not read before it writes, but never past the
 * cluster: what is behind that has another owner. An unfinished entry is written exactly, since an
 * append may follow in the block where it ends.
 *
 * @param flush - what `nextFlush()` handed out
 * @param alignmentBytes - the larger of the file's request alignment and its optimal memory alignment;
 *   a power of two
 * @param mayGrow - whether bytes may be appended before the write has ended; `false` for an unfinished entry
 *   says that the caller holds what keeps appends away
 * @example writeLength(flush, 4096) // 65536 for the 65000 last bytes of a cluster of 65536
 */
export function writeLength(
  flush: SeqFlush,
  alignmentBytes: number,
  mayGrow: boolean = !flush.finished,
): number {
  if (mayGrow) return flush.length;
  const end = alignUp(flush.offset + flush.length, alignmentBytes);
  return Math.min(flush.buffer.length, end - flush.offset);
}
