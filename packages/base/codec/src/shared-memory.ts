/**
 * How bytes reach a worker: by reference when they are shared already, else through scratch memory.
 *
 * Above: codec-jobs. Below: SharedArrayBuffer.
 *
 * 1. Scratch belongs to one job from `take` to `give`. At most `MAX_SPARE` pieces wait for reuse.
 */

/** Scratch that nobody uses: enough for four workers with two jobs each. */
const MAX_SPARE = 8;
/** Scratch comes in multiples of this, so that one piece fits the next job too. */
const SCRATCH_UNIT_BYTES = 256 * 1024;

const spare: SharedArrayBuffer[] = [];

function takeScratch(lengthBytes: number): SharedArrayBuffer {
  const index = spare.findIndex((buffer) => buffer.byteLength >= lengthBytes);
  const found = index < 0 ? undefined : spare.splice(index, 1)[0];
  if (found !== undefined) return found;
  const units = Math.ceil(lengthBytes / SCRATCH_UNIT_BYTES);
  return new SharedArrayBuffer(units * SCRATCH_UNIT_BYTES);
}

function giveScratch(buffer: SharedArrayBuffer): void {
  spare.push(buffer);
  // The oldest leaves: sizes that are no longer asked for do not stay for ever.
  if (spare.length > MAX_SPARE) spare.shift();
}

/** The places of a job's byte ranges in shared memory. */
export class SharedSpans {
  /** The buffers that `spans` counts. */
  readonly buffers: SharedArrayBuffer[] = [];
  /** Buffer number, offset, length of each range, in the order of adding. */
  readonly spans: number[] = [];
  readonly #scratch: Uint8Array | undefined;
  #scratchUsed = 0;

  /** @param privateBytes - the sum of the lengths of all ranges that are not shared already */
  constructor(privateBytes: number) {
    if (privateBytes > 0) this.#scratch = new Uint8Array(takeScratch(privateBytes));
  }

  /** Adds a range that the worker reads. */
  addInput(bytes: Uint8Array): void {
    this.#add(bytes)?.set(bytes);
  }

  /**
   * Adds a range that the worker writes.
   *
   * @returns where it will write, if that is not the range itself
   */
  addOutput(bytes: Uint8Array): Uint8Array | undefined {
    return this.#add(bytes);
  }

  /** Gives the scratch back. The worker must be done. */
  release(): void {
    if (this.#scratch !== undefined) giveScratch(this.#scratch.buffer as SharedArrayBuffer);
  }

  #add(bytes: Uint8Array): Uint8Array | undefined {
    const { buffer } = bytes;
    if (buffer instanceof SharedArrayBuffer) {
      this.spans.push(this.#indexOf(buffer), bytes.byteOffset, bytes.length);
      return undefined;
    }
    const scratch = this.#scratch as Uint8Array;
    const start = this.#scratchUsed;
    this.#scratchUsed += bytes.length;
    this.spans.push(this.#indexOf(scratch.buffer as SharedArrayBuffer), start, bytes.length);
    return scratch.subarray(start, start + bytes.length);
  }

  #indexOf(buffer: SharedArrayBuffer): number {
    const index = this.buffers.indexOf(buffer);
    return index < 0 ? this.buffers.push(buffer) - 1 : index;
  }
}

/** How many bytes of these ranges need scratch. */
export function privateLength(ranges: readonly Uint8Array[]): number {
  let lengthBytes = 0;
  for (const range of ranges) {
    if (!(range.buffer instanceof SharedArrayBuffer)) lengthBytes += range.length;
  }
  return lengthBytes;
}
