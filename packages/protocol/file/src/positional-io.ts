/**
 * Reads and writes at a position, whole or not at all.
 *
 * Above: FileDriver. Below: Node's callback API, because a FileHandle costs three times as much per request.
 * 1. One promise per request; a second object only when the first system call was not enough.
 * 2. The promise settles only when the kernel is done with the buffers, even when the request is aborted: the
 *    caller may use them again from then on.
 * 3. A read past the end of the file gives zeroes. A write that ends short goes on until it is whole.
 */
import { assert, type IoVector } from "@blocklayer/bytes";
import { read, readv, write, writev } from "node:fs";
import { canceledError, errnoOf, fileError } from "./file-error.js";
import type { HostFile } from "./host-file.js";

/** Interrupted calls in a row before one is an error. */
const MAX_INTERRUPTIONS = 256;

type Done = (error: NodeJS.ErrnoException | null, transferred: number) => void;

/** What of a HostFile is needed here. */
export type PositionalFile = Pick<
  HostFile,
  "fd" | "filename" | "nodeName" | "direct" | "noteWritten" | "stat"
>;

/**
 * Fills `target` from `offset` on.
 *
 * @throws BlockError with the errno of the system; `ECANCELED`
 */
export function readAt(
  file: PositionalFile,
  offset: number,
  target: IoVector,
  signal?: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const wanted = target.lengthBytes;
    const done: Done = (error, transferred) => {
      if (error === null && transferred === wanted && signal === undefined) resolve();
      else
        new Transfer(file, "read", offset, target, signal, resolve, reject).on(error, transferred);
    };
    startRead(file.fd, offset, target, done);
  });
}

/**
 * Writes `source` at `offset`.
 *
 * @throws BlockError with the errno of the system; `ECANCELED`. After failure: any part may be written.
 */
export function writeAt(
  file: PositionalFile,
  offset: number,
  source: IoVector,
  signal?: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const wanted = source.lengthBytes;
    const done: Done = (error, transferred) => {
      if (error === null && transferred === wanted && signal === undefined) {
        file.noteWritten(offset, offset + wanted);
        resolve();
      } else {
        new Transfer(file, "write", offset, source, signal, resolve, reject).on(error, transferred);
      }
    };
    startWrite(file.fd, offset, source, done);
  });
}

function startRead(fd: number, offset: number, target: IoVector, done: Done): void {
  const first = target.parts[0];
  if (target.parts.length === 1 && first !== undefined) {
    read(fd, first, 0, first.length, offset, done);
  } else {
    readv(fd, target.parts, offset, done);
  }
}

function startWrite(fd: number, offset: number, source: IoVector, done: Done): void {
  const first = source.parts[0];
  if (source.parts.length === 1 && first !== undefined) {
    write(fd, first, 0, first.length, offset, done);
  } else {
    writev(fd, source.parts, offset, done);
  }
}

/** A request whose first call failed, ended short, or has a signal. */
class Transfer {
  readonly #file: PositionalFile;
  readonly #op: "read" | "write";
  readonly #offset: number;
  readonly #vector: IoVector;
  readonly #signal: AbortSignal | undefined;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;
  #done = 0;
  #interruptions = 0;

  constructor(
    file: PositionalFile,
    op: "read" | "write",
    offset: number,
    vector: IoVector,
    signal: AbortSignal | undefined,
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.#file = file;
    this.#op = op;
    this.#offset = offset;
    this.#vector = vector;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Takes the answer of one system call. */
  on(error: NodeJS.ErrnoException | null, transferred: number): void {
    if (error !== null) this.#failed(error);
    else if (transferred > 0) this.#moved(transferred);
    else if (this.#op === "read") this.#endOfFile();
    else this.#fail("ENOSPC");
  }

  #moved(transferred: number): void {
    const start = this.#offset + this.#done;
    this.#done += transferred;
    this.#interruptions = 0;
    assert(this.#done <= this.#vector.lengthBytes, "no more bytes moved than were asked for");
    if (this.#op === "write") this.#file.noteWritten(start, start + transferred);
    if (this.#signal?.aborted === true) this.#cancel();
    else if (this.#done === this.#vector.lengthBytes) this.#resolve();
    else this.#next();
  }

  #next(): void {
    const rest = this.#vector.slice(this.#done, this.#vector.lengthBytes);
    const start = this.#op === "read" ? startRead : startWrite;
    start(this.#file.fd, this.#offset + this.#done, rest, (error, n) => this.on(error, n));
  }

  #failed(error: NodeJS.ErrnoException): void {
    const errno = errnoOf(error);
    if (errno === "EINTR" || errno === "EAGAIN") {
      this.#interruptions++;
      if (this.#signal?.aborted === true) this.#cancel();
      else if (this.#interruptions <= MAX_INTERRUPTIONS) this.#next();
      else this.#fail(error);
    } else if (errno === "EINVAL" && this.#op === "read" && this.#file.direct && this.#done > 0) {
      // Past the page cache the first call ended at an unaligned end of file, and the second may not start there.
      void this.#endOfFileOr(error);
    } else {
      this.#fail(error);
    }
  }

  async #endOfFileOr(error: NodeJS.ErrnoException): Promise<void> {
    try {
      const { sizeBytes } = await this.#file.stat();
      if (sizeBytes <= this.#offset + this.#done) this.#endOfFile();
      else this.#fail(error);
    } catch (statError) {
      this.#fail(statError);
    }
  }

  #endOfFile(): void {
    this.#vector.fill(0, this.#done, this.#vector.lengthBytes);
    if (this.#signal?.aborted === true) this.#cancel();
    else this.#resolve();
  }

  #fail(cause: unknown): void {
    const known = cause === "ENOSPC" ? { code: "ENOSPC" } : cause;
    const length = this.#vector.lengthBytes;
    this.#reject(fileError(known, this.#op, this.#file, this.#offset, length));
  }

  #cancel(): void {
    this.#reject(canceledError(this.#op, this.#file, this.#signal));
  }
}
