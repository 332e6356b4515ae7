/**
 * Reads that the page cache can answer at once, without a trip to a thread and back.
 *
 * Above: FileDriver. Below: preadv2(2) with RWF_NOWAIT, through native.ts.
 *
 * A thread's answer takes ten times as long as copying 4 KiB, and needs the same copy.
 * 1. Only what is in memory whole is answered here, and nothing waits for the disk. Everything else, errors
 *    and the end of the file too, is for positional-io.ts.
 * 2. Only short reads: while one copies, the program does nothing else.
 * 3. After MAX_IN_A_ROW answers one read takes the long way, so that whoever reads in a loop lets timers and
 *    others' requests have their turn.
 * 4. A file system that cannot tell what is in memory is not asked again.
 */
import { KiB } from "@blocklayer/bytes";
import type { HostFile } from "./host-file.js";
import { NATIVE_ERRNO, type NativeFs } from "./native.js";

const MAX_BYTES: number = 64 * KiB;
const MAX_IN_A_ROW = 64;

/** Answers that say no more than that this time it does not go. */
const PASSING: ReadonlySet<number> = new Set([NATIVE_ERRNO.EAGAIN, NATIVE_ERRNO.EINTR]);

/** The short way to one file's bytes. */
export class CachedReads {
  readonly #file: Pick<HostFile, "fd">;
  readonly #native: NativeFs | undefined;
  #isUseful: boolean;
  #inARow = 0;
  #count = 0;

  /** @param file - open through the page cache; undefined native calls, or a file that is not, mean never */
  constructor(file: Pick<HostFile, "fd" | "kind" | "direct">, native: NativeFs | undefined) {
    this.#file = file;
    this.#native = native;
    this.#isUseful = native !== undefined && file.kind === "regular" && !file.direct;
  }

  /** How many reads were answered. */
  get count(): number {
    return this.#count;
  }

  /** @returns whether `target` was filled; if not, it may hold anything */
  read(offset: number, target: Uint8Array): boolean {
    if (!this.#isUseful || target.length > MAX_BYTES) return false;
    if (this.#inARow === MAX_IN_A_ROW) {
      this.#inARow = 0;
      return false;
    }
    const result = this.#native?.readCached(this.#file.fd, offset, target) ?? 0;
    if (result === target.length) {
      this.#inARow++;
      this.#count++;
      return true;
    }
    if (result < 0 && !PASSING.has(-result)) this.#isUseful = false;
    return false;
  }
}
