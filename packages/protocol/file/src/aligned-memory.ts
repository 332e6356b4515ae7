/**
 * Page-aligned memory without native code: a WebAssembly.Memory starts on a page of the machine.
 *
 * Each Memory reserves gigabytes of address space, so this file makes one for the whole process, of fixed size.
 */
import { KiB, MiB } from "@blocklayer/bytes";

const WASM_PAGE_BYTES: number = 64 * KiB;

/** The most zeroes that one write takes. */
export const ZERO_BUFFER_BYTES: number = MiB;

/** Scratch behind the zeroes, for whoever probes alignments. */
const SCRATCH_BYTES: number = WASM_PAGE_BYTES;

let memory: WebAssembly.Memory | undefined;

function bytesOf(): Uint8Array {
  const pages = (ZERO_BUFFER_BYTES + SCRATCH_BYTES) / WASM_PAGE_BYTES;
  memory ??= new WebAssembly.Memory({ initial: pages, maximum: pages });
  return new Uint8Array(memory.buffer);
}

/** Up to a mebibyte of page-aligned zeroes. Requires: nobody writes to them. */
export function alignedZeroes(lengthBytes: number): Uint8Array {
  return bytesOf().subarray(0, Math.min(lengthBytes, ZERO_BUFFER_BYTES));
}

/**
 * Page-aligned scratch memory, shared by all: what is read into it may be overwritten at any await.
 *
 * @param shift - how far from the start of a page it begins
 */
export function alignedScratch(shift: number, lengthBytes: number): Uint8Array {
  return bytesOf().subarray(ZERO_BUFFER_BYTES + shift, ZERO_BUFFER_BYTES + shift + lengthBytes);
}
