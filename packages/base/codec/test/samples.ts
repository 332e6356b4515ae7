/** Bytes to compress: of every kind that a disk holds, and the same in every run. */
import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const CLUSTER = 65536;

/** A small generator of repeatable numbers below `limit` (xorshift). */
export function randomSource(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

/** Repeats earlier parts from up to `reach` bytes back, with new bytes between: much like real data. */
export function repetitive(length: number, seed: number, reach = 40_000): Uint8Array {
  const random = randomSource(seed);
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const count = Math.min(4 + random(60), length - at);
    const back = random(Math.min(at, reach) + 1);
    if (back >= count && random(3) > 0) bytes.copyWithin(at, at - back, at - back + count);
    else for (let i = 0; i < count; i++) bytes[at + i] = random(256);
    at += count;
  }
  return bytes;
}

export function noise(length: number, seed: number): Uint8Array {
  const random = randomSource(seed);
  return Uint8Array.from({ length }, () => random(256));
}

/** The same bytes over shared memory, in the middle of a larger buffer. */
export function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length + 512), 256, bytes.length);
  copy.set(bytes);
  return copy;
}

/** Whole clusters from a sample of the files below a folder; none where there is no such folder. */
export function fileClusters(folder: string, count: number, seed: number): Uint8Array[] {
  const random = randomSource(seed);
  const clusters: Uint8Array[] = [];
  for (let tries = 0; clusters.length < count && tries < count * 20; tries++) {
    const bytes = randomFile(folder, random);
    if (bytes === undefined || bytes.length === 0) continue;
    const start = random(Math.ceil(bytes.length / CLUSTER)) * CLUSTER;
    const cluster = new Uint8Array(CLUSTER);
    cluster.set(bytes.subarray(start, start + CLUSTER));
    clusters.push(cluster);
  }
  return clusters;
}

function randomFile(folder: string, random: (limit: number) => number): Uint8Array | undefined {
  let at = folder;
  for (let depth = 0; depth < 8; depth++) {
    let entries: Dirent[];
    try {
      entries = readdirSync(at, { withFileTypes: true });
    } catch {
      return undefined;
    }
    const entry = entries[random(Math.max(entries.length, 1))];
    if (entry === undefined) return undefined;
    at = join(at, entry.name);
    if (entry.isFile()) {
      try {
        return readFileSync(at);
      } catch {
        return undefined;
      }
    }
    if (!entry.isDirectory()) return undefined;
  }
  return undefined;
}

/** Where bytes differ from what they should be, if they do; far faster on clusters than toEqual(). */
export function differenceOf(
  actual: Uint8Array | undefined,
  expected: Uint8Array,
): string | undefined {
  if (actual?.length !== expected.length) return `${actual?.length} bytes, not ${expected.length}`;
  if (Buffer.compare(actual, expected) === 0) return undefined;
  const at = expected.findIndex((byte, i) => byte !== actual[i]);
  return `byte ${at} is ${actual[at]}, not ${expected[at]}`;
}
