/**
 * Memory that starts at page boundaries, for drivers that ask for aligned buffers.
 *
 * A WebAssembly memory is the one kind that a portable program knows to be page-aligned. It is handed out
 * from start to end and taken back all at once, between checks.
 */
import { alignUp } from "@blocklayer/bytes";

const PAGE_BYTES = 4096;
const WASM_PAGE_BYTES = 65536;
const REGION_BYTES = 64 * 1024 * 1024;

const regions: Uint8Array[] = [];
let regionIndex = 0;
let used = 0;

/** Zeroed bytes that start at a multiple of 4096. Valid until `releaseAlignedMemory`. */
export function alignedMemory(lengthBytes: number): Uint8Array {
  const size = alignUp(lengthBytes, PAGE_BYTES);
  let region = regions[regionIndex];
  while (region !== undefined && used + size > region.length) {
    region = regions[++regionIndex];
    used = 0;
  }
  if (region === undefined) {
    region = newRegion(Math.max(size, REGION_BYTES));
    regions.push(region);
  }
  const bytes = region.subarray(used, used + lengthBytes);
  used += size;
  bytes.fill(0);
  return bytes;
}

/** Takes back everything that was handed out. */
export function releaseAlignedMemory(): void {
  regionIndex = 0;
  used = 0;
}

function newRegion(lengthBytes: number): Uint8Array {
  const pages = Math.ceil(lengthBytes / WASM_PAGE_BYTES);
  return new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
}
