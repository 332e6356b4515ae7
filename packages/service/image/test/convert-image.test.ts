import { BlockError, KiB, MiB } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import {
  convertImage,
  type ConvertOptions,
  openImage,
  type UnreadableRange,
} from "../src/index.js";
import { Files } from "./support/files.js";
import { randomDisk } from "./support/random-disk.js";

async function openAll(files: Files, ...names: readonly string[]): Promise<BlockBackend[]> {
  const drivers = [files.driver, rawDriver];
  return Promise.all(
    names.map((name, index) =>
      openImage(name, { drivers, format: "raw", readOnly: index < names.length - 1 }),
    ),
  );
}

/** Converts `a` to `b`, files of one length. */
async function convert(files: Files, options: Partial<ConvertOptions> = {}) {
  const backends = await openAll(files, "a", "b");
  const [source, target] = backends as [BlockBackend, BlockBackend];
  try {
    return await convertImage({ sources: [source], target, ...options });
  } finally {
    for (const backend of backends) await backend.close();
  }
}

function filesWith(bytes: Uint8Array, targetFill = 0): Files {
  const files = new Files();
  files.put("a", bytes);
  files.put(
    "b",
    new Uint8Array(targetFill === 0 ? 0 : bytes.length).fill(targetFill),
    bytes.length,
  );
  return files;
}

/** Resolves after some turns of the event loop; which, depends on the offset. */
function jitter(_name: string, offset: number): Promise<void> {
  const turns = (offset / (64 * KiB)) % 5;
  return new Promise((resolve) => setTimeout(resolve, turns));
}

test.each([
  { name: "in order", options: {} },
  { name: "out of order", options: { outOfOrder: true } },
  { name: "with one worker", options: { parallel: 1 } },
  { name: "with 16 workers", options: { parallel: 16 } },
  { name: "with -S 0", options: { sparseSizeBytes: 0 } },
  { name: "with -S 512", options: { sparseSizeBytes: 512 } },
  { name: "with -S 64k", options: { sparseSizeBytes: 64 * KiB } },
])("convertImage() must copy every byte over a target of old data $name", async ({ options }) => {
  for (const seed of [1, 2, 3]) {
    const bytes = randomDisk(seed, 9 * MiB + 1536);
    const files = filesWith(bytes, 0xee);
    files.onRead = jitter;
    files.onWrite = jitter;
    const result = await convert(files, options);
    expect(Buffer.compare(files.get("b"), bytes)).toBe(0);
    expect(result.dataBytes + result.zeroBytes).toBe(bytes.length);
  }
});

test("convertImage() must put sources one behind the other, at any length", async () => {
  const files = new Files();
  const parts = [randomDisk(1, 3 * MiB + 512), randomDisk(2, 512), randomDisk(3, 2 * MiB)];
  for (const [index, part] of parts.entries()) files.put(`s${index}`, part);
  const whole = Buffer.concat(parts);
  files.put("b", new Uint8Array(0), whole.length + 4096);
  const backends = await openAll(files, "s0", "s1", "s2", "b");
  const target = backends.pop() as BlockBackend;
  await convertImage({ sources: backends, target, targetIsZero: true });
  expect(Buffer.compare(files.get("b").subarray(0, whole.length), whole)).toBe(0);
});

test("convertImage() must submit writes in order even when reads end in any order", async () => {
  const files = filesWith(randomDisk(4, 24 * MiB, 4 * MiB));
  const written: number[] = [];
  files.onRead = jitter;
  files.onWrite = (_name, offset) => {
    written.push(offset);
    return jitter("", offset);
  };
  await convert(files);
  expect(written.length).toBeGreaterThan(5);
  expect(written).toEqual(written.toSorted((a, b) => a - b));
});

test("convertImage() must write no zeroes into a target that is zero", async () => {
  const bytes = new Uint8Array(8 * MiB);
  bytes.fill(7, 3 * MiB, 3 * MiB + 4096);
  const files = filesWith(bytes);
  const written: [number, number][] = [];
  files.onWrite = (_name, offset, length) => void written.push([offset, length]);
  const result = await convert(files, { targetIsZero: true });
  expect(written).toEqual([[3 * MiB, 4096]]);
  expect(result).toMatchObject({ dataBytes: 4096, zeroBytes: 8 * MiB - 4096 });
});

test("convertImage() must stop at the first error, say where, and leave nothing in flight", async () => {
  const files = filesWith(randomDisk(5, 32 * MiB, 8 * MiB));
  let inFlight = 0;
  let failed = false;
  files.onWrite = async (_name, offset) => {
    inFlight++;
    await jitter("", offset);
    inFlight--;
    if (offset >= 8 * MiB && !failed) {
      failed = true;
      throw new BlockError("ENOSPC", "No space left on device");
    }
  };
  const error: unknown = await convert(files).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "ENOSPC", op: "convert" });
  expect(String(error)).toMatch(/error while writing at byte \d+: .*; the target is incomplete/);
  expect(inFlight).toBe(0);
});

test("convertImage() must end, not hang, when a read in front of waiting writers fails", async () => {
  const files = filesWith(randomDisk(6, 32 * MiB, 8 * MiB));
  const written: number[] = [];
  files.onWrite = (_name, offset) => void written.push(offset);
  files.onRead = async (_name, offset) => {
    await new Promise((resolve) => setTimeout(resolve, offset === 4 * MiB ? 20 : 0));
    if (offset === 4 * MiB) throw new BlockError("EIO", "bad sector");
  };
  await expect(convert(files)).rejects.toMatchObject({ code: "EIO", offset: 4 * MiB });
  expect(Math.max(...written)).toBeLessThan(4 * MiB);
});

test("convertImage() must stop soon after an abort", async () => {
  const files = filesWith(randomDisk(7, 64 * MiB, 8 * MiB));
  const abort = new AbortController();
  let writes = 0;
  files.onWrite = () => {
    if (++writes === 3) abort.abort();
  };
  await expect(convert(files, { signal: abort.signal, parallel: 2 })).rejects.toMatchObject({
    code: "ECANCELED",
  });
  expect(writes).toBeLessThan(8);
});

test("convertImage() with salvage must lose the bad sectors only, and name them", async () => {
  const bytes = new Uint8Array(6 * MiB).fill(9);
  const files = filesWith(bytes);
  const bad = [5 * 512, 3 * MiB + 512, 6 * MiB - 512];
  files.onRead = (_name, offset, length) => {
    if (bad.some((at) => at >= offset && at < offset + length)) {
      throw new BlockError("EIO", "bad sector");
    }
  };
  const lost: UnreadableRange[] = [];
  const result = await convert(files, { salvage: true, onUnreadable: (range) => lost.push(range) });
  expect(lost.map(({ offset }) => offset).toSorted((a, b) => a - b)).toEqual(bad);
  expect(result.unreadableBytes).toBe(3 * 512);
  for (const at of bad) bytes.fill(0, at, at + 512);
  expect(Buffer.compare(files.get("b"), bytes)).toBe(0);
});

test("convertImage() must tell progress that grows to the whole", async () => {
  const files = filesWith(randomDisk(8, 9 * MiB));
  const told: number[] = [];
  await convert(files, {
    onProgress: (done, total) => {
      expect(total).toBe(9 * MiB);
      told.push(done);
    },
  });
  expect(told).toEqual(told.toSorted((a, b) => a - b));
  expect(told.at(-1)).toBe(9 * MiB);
});

test.each([
  { options: { parallel: 0 }, message: /parallel is 0/ },
  { options: { parallel: 17 }, message: /1 to 16/ },
  { options: { sparseSizeBytes: 100 }, message: /multiple of 512/ },
  { options: { sources: [] }, message: /no source/ },
  { options: { compressed: true }, message: /'raw' has no compression/ },
])("convertImage() must refuse $message", async ({ options, message }) => {
  await expect(convert(filesWith(new Uint8Array(512)), options)).rejects.toThrow(message);
});

test("convertImage() must refuse a target that is too small before it writes", async () => {
  const files = filesWith(new Uint8Array(1024).fill(1));
  files.put("b", new Uint8Array(512));
  await expect(convert(files)).rejects.toThrow(/1024 are needed/);
  expect(files.get("b").every((byte) => byte === 0)).toBe(true);
});
