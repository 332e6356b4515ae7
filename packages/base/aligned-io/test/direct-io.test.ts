/** The real thing: a file opened past the page cache, which the kernel refuses to touch unless all is aligned. */
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  read,
  readFileSync,
  rmSync,
  write,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IoVector } from "@blocklayer/bytes";
import { afterAll, describe, expect, test } from "vitest";
import { AlignedArena, type AlignedDevice, AlignedIo } from "../src/index.js";

const BLOCK = 4096;
const FILE_BYTES = 1024 * 1024;

interface DirectFile {
  readonly folder: string;
  readonly path: string;
  readonly descriptor: number;
}

/** The first place that lets a file be opened with O_DIRECT. */
function openDirect(): DirectFile | undefined {
  const direct = (constants as { O_DIRECT?: number }).O_DIRECT;
  if (direct === undefined) return undefined;
  for (const place of ["/var/tmp", tmpdir()]) {
    let folder: string;
    try {
      folder = mkdtempSync(join(place, "aligned-io-"));
    } catch {
      continue;
    }
    const path = join(folder, "direct.raw");
    try {
      const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | direct);
      return { folder, path, descriptor };
    } catch {
      rmSync(folder, { recursive: true });
    }
  }
  return undefined;
}

function transfer(
  call: typeof read | typeof write,
  descriptor: number,
  offset: number,
  vector: IoVector,
): Promise<void> {
  const [only] = vector.parts;
  return new Promise((resolve, reject) => {
    if (only === undefined || vector.parts.length > 1) return reject(new Error("one part"));
    const done = (error: Error | null, moved: number): void => {
      if (error !== null) return reject(error);
      only.fill(0, moved);
      resolve();
    };
    (call as typeof read)(descriptor, only, 0, only.length, offset, done);
  });
}

const file = openDirect();

describe.skipIf(file === undefined)("AlignedIo over a file with O_DIRECT", () => {
  // A skipped suite is still collected.
  const { descriptor, path, folder } = file ?? { descriptor: -1, path: "", folder: "" };
  const device: AlignedDevice = {
    lengthBytes: FILE_BYTES,
    limits: { requestAlignment: BLOCK, memoryAlignment: BLOCK, maxTransfer: 256 * 1024 },
    readv: (offset, target) => transfer(read, descriptor, offset, target),
    writev: (offset, source) => transfer(write, descriptor, offset, source),
  };
  const arena = new AlignedArena({ maxBytes: 8 * 1024 * 1024 });

  afterAll(() => {
    if (file === undefined) return;
    closeSync(descriptor);
    rmSync(folder, { recursive: true });
  });

  test("ordinary memory must be refused by the kernel: otherwise this suite proves nothing", async () => {
    const page = new Uint8Array(2 * BLOCK);
    const plain = IoVector.of(page.subarray(1, 1 + BLOCK));
    await expect(device.writev(0, plain)).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("arena memory must pass without a copy, before and after the arena grew", async () => {
    const io = new AlignedIo(device, arena);
    const early = arena.tryAllocate(64 * 1024);
    const grown = [1, 2].map(() => arena.tryAllocate(4 * 1024 * 1024));
    expect(grown.filter((buffer) => buffer !== undefined)).toHaveLength(1);
    for (const buffer of [early, grown[0]]) {
      const bytes = buffer?.bytes.subarray(0, 64 * 1024) ?? new Uint8Array();
      bytes.fill(0x5a);
      await io.writev(0, IoVector.of(bytes));
      bytes.fill(0);
      await io.readv(0, IoVector.of(bytes));
      expect(bytes.every((byte) => byte === 0x5a)).toBe(true);
      buffer?.release();
    }
    expect(io.statistics.bouncedBytes).toBe(0);
  });

  test("writes and reads of any range must leave the file as a flat array would be", async () => {
    const io = new AlignedIo(device, arena);
    await io.writev(0, IoVector.of(new Uint8Array(FILE_BYTES)));
    const expected = new Uint8Array(FILE_BYTES);
    const ranges = Array.from({ length: 60 }, (_, i) => ({
      offset: i * 17011,
      length: [1, 511, 4096, 5000, 13000][i % 5] ?? 1,
    }));
    await Promise.all(
      ranges.map(async ({ offset, length }, i) => {
        const source = new Uint8Array(length).fill(i + 1);
        expected.set(source, offset);
        await io.writev(offset, IoVector.of(source));
      }),
    );
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    await Promise.all(
      ranges.map(async ({ offset, length }) => {
        const target = new Uint8Array(length + 100);
        await io.readv(offset, IoVector.of(target));
        const wanted = new Uint8Array(length + 100);
        wanted.set(expected.subarray(offset, offset + length + 100));
        expect(Buffer.compare(target, wanted)).toBe(0);
      }),
    );
    expect(io.statistics.readModifyWrites).toBeGreaterThan(50);
  });
});
