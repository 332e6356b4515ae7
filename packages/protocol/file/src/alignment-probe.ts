/**
 * Which offsets, lengths and addresses a file takes past the page cache.
 *
 * There is no call that tells (before Linux 6.1), so small reads are tried, as QEMU does. A file that accepts
 * what no disk accepts (a hole may be read without asking the disk) has not told anything: then 4096 is
 * assumed, which every disk of today takes.
 */
import { read } from "node:fs";
import { alignedScratch } from "./aligned-memory.js";
import { errnoOf } from "./file-error.js";

/** What is assumed when nothing can be learned, and the most that is tried. */
export const SAFE_ALIGNMENT = 4096;

const CANDIDATES: readonly number[] = [1, 512, 1024, 2048, SAFE_ALIGNMENT];

/** In bytes, both powers of two. */
export interface DirectAlignment {
  readonly request: number;
  readonly memory: number;
}

/**
 * Finds the alignments of a descriptor that was opened with O_DIRECT.
 *
 * @param fd - the descriptor
 * @param blockBytes - the device's logical block size, where it is known
 */
export async function probeDirectAlignment(
  fd: number,
  blockBytes?: number,
): Promise<DirectAlignment> {
  const request = blockBytes ?? (await firstAccepted((n) => accepts(fd, 0, n)));
  const memory = await firstAccepted((shift) => accepts(fd, shift, SAFE_ALIGNMENT));
  return { request: settle(request), memory: settle(memory) };
}

/** 1 means that the file took anything, which is no answer. */
function settle(found: number): number {
  return found === 1 ? SAFE_ALIGNMENT : found;
}

async function firstAccepted(accepted: (value: number) => Promise<boolean>): Promise<number> {
  for (const value of CANDIDATES) if (await accepted(value)) return value;
  return SAFE_ALIGNMENT;
}

function accepts(fd: number, shift: number, lengthBytes: number): Promise<boolean> {
  // `shift` 4096 is the next page: aligned, and the last thing to try.
  const target = alignedScratch(shift, lengthBytes);
  return new Promise((resolve) => {
    // Any other error is for the first real read to report.
    read(fd, target, 0, lengthBytes, 0, (error) => {
      resolve(error === null || errnoOf(error) !== "EINVAL");
    });
  });
}
