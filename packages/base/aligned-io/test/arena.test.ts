import { AssertionError } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  AlignedArena,
  type AlignedBuffer,
  type ArenaBacking,
  isMemoryAligned,
  sharedArena,
} from "../src/index.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const BACKINGS: readonly ArenaBacking[] = ["shared", "plain", "heap"];

function take(arena: AlignedArena, lengthBytes: number): AlignedBuffer {
  const buffer = arena.tryAllocate(lengthBytes);
  if (buffer === undefined) throw new Error("the arena is full");
  return buffer;
}

describe.each(BACKINGS)("AlignedArena of %s memory", (backing) => {
  test("tryAllocate() must lend buffers that overlap no other, within the bound", () => {
    const action = fc.oneof(
      fc.integer({ min: 1, max: 70 * KiB }).map((size) => ({ size, release: -1 })),
      fc.nat({ max: 100 }).map((release) => ({ size: 0, release })),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80, size: "max" }), (actions) => {
        const arena = new AlignedArena({ maxBytes: 256 * KiB, backing });
        const lent: { buffer: AlignedBuffer; mark: number }[] = [];
        let mark = 0;
        for (const { size, release } of actions) {
          if (size > 0) {
            const buffer = arena.tryAllocate(size);
            if (buffer === undefined) continue;
            expect(buffer.bytes.length).toBe(size);
            expect(isMemoryAligned(buffer.bytes, 4096)).toBe(backing !== "heap");
            mark = (mark + 1) % 256;
            buffer.bytes.fill(mark);
            lent.push({ buffer, mark });
          } else if (lent.length > 0) {
            const [gone] = lent.splice(release % lent.length, 1);
            gone?.buffer.release();
          }
          const classes = lent.map(({ buffer }) =>
            Math.max(4096, 2 ** Math.ceil(Math.log2(buffer.bytes.length))),
          );
          expect(arena.usedBytes).toBe(classes.reduce((sum, bytes) => sum + bytes, 0));
          expect(arena.usedBytes).toBeLessThanOrEqual(arena.maxBytes);
        }
        for (const { buffer, mark: expected } of lent) {
          expect(buffer.bytes.every((byte) => byte === expected)).toBe(true);
          buffer.release();
        }
        // All merged again: the longest buffer fits as often as in the beginning.
        for (let at = 0; at < arena.maxBytes; at += arena.maxBufferBytes) {
          take(arena, arena.maxBufferBytes);
        }
        expect(arena.tryAllocate(1)).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });

  test("buffers lent before the arena grew must stay valid", () => {
    const arena = new AlignedArena({ maxBytes: 32 * MiB, backing });
    const early = take(arena, 4 * KiB);
    early.bytes.fill(1);
    const later = Array.from({ length: 7 }, () => take(arena, 4 * MiB));
    later.forEach((buffer, i) => buffer.bytes.fill(i + 2));
    expect(early.bytes.length).toBe(4 * KiB);
    expect(early.bytes.every((byte) => byte === 1)).toBe(true);
    later.forEach((buffer, i) => expect(buffer.bytes.at(-1)).toBe(i + 2));
    const second = take(arena, 4 * KiB);
    second.bytes.fill(9);
    expect(early.bytes[0]).toBe(1);
    expect(isMemoryAligned(second.bytes, 4096)).toBe(backing !== "heap");
  });

  test("allocate() must wait in order of arrival while the arena is full", async () => {
    const arena = new AlignedArena({ maxBytes: 64 * KiB, backing });
    const first = take(arena, 32 * KiB);
    const second = take(arena, 32 * KiB);
    const order: string[] = [];
    const note = (name: string, wait: AlignedBuffer | Promise<AlignedBuffer>) => {
      expect(wait).toBeInstanceOf(Promise);
      return Promise.resolve(wait).then((buffer) => {
        order.push(name);
        return buffer;
      });
    };
    const large = note("large", arena.allocate(64 * KiB));
    const small = note("small", arena.allocate(1));
    expect(arena.waiting).toBe(2);
    first.release();
    expect(arena.tryAllocate(1)).toBeUndefined();
    expect(arena.waiting).toBe(2);
    second.release();
    (await large).release();
    (await small).release();
    expect(order).toEqual(["large", "small"]);
    expect(arena.usedBytes).toBe(0);
  });

  test("an aborted wait must let those behind it go on", async () => {
    const arena = new AlignedArena({ maxBytes: 64 * KiB, backing });
    const first = take(arena, 4 * KiB);
    const controller = new AbortController();
    const large = arena.allocate(64 * KiB, { signal: controller.signal });
    const small = arena.allocate(4 * KiB);
    expect(arena.waiting).toBe(2);
    const outcome = Promise.resolve(large).catch((error: unknown) => error);
    controller.abort();
    expect(await outcome).toMatchObject({ code: "ECANCELED" });
    (await small).release();
    first.release();
    expect([arena.usedBytes, arena.waiting]).toEqual([0, 0]);
    expect(() => arena.allocate(1, { signal: controller.signal })).toThrow("aborted");
  });

  test("zeroed must fill with zeroes, also for who waited", async () => {
    const arena = new AlignedArena({ maxBytes: 64 * KiB, backing });
    const dirty = take(arena, 64 * KiB);
    dirty.bytes.fill(7);
    const waited = arena.allocate(64 * KiB, { zeroed: true });
    dirty.release();
    const buffer = await waited;
    expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
    buffer.bytes.fill(7);
    buffer.release();
    expect(take(arena, 4096).bytes[0]).toBe(7);
    expect(arena.tryAllocate(4096, { zeroed: true })?.bytes[0]).toBe(0);
  });

  test("misuse must be refused", () => {
    const arena = new AlignedArena({ maxBytes: 64 * KiB, backing });
    expect(() => arena.allocate(65537)).toThrow(
      expect.objectContaining({ code: "EINVAL", length: 65537 }),
    );
    expect(() => arena.tryAllocate(65537)).toThrow("longer than the longest, 65536");
    expect(() => arena.allocate(0)).toThrow(AssertionError);
    const buffer = take(arena, 1);
    buffer.release();
    expect(() => buffer.release()).toThrow(AssertionError);
    expect(arena.usedBytes).toBe(0);
    expect(() => new AlignedArena({ maxBytes: 4096, backing })).toThrow(AssertionError);
  });
});

describe("AlignedArena", () => {
  test("the best memory must be taken, and the bound be whole longest buffers", () => {
    const arena = new AlignedArena({ maxBytes: 9 * MiB });
    expect([arena.backing, arena.alignment]).toEqual(["shared", 4096]);
    expect([arena.maxBytes, arena.maxBufferBytes]).toEqual([8 * MiB, 4 * MiB]);
    expect(take(arena, 1).bytes.buffer).toBeInstanceOf(SharedArrayBuffer);
  });

  test("a runtime without SharedArrayBuffer must get plain memory, and one without WebAssembly the heap", () => {
    const scope = globalThis as { SharedArrayBuffer?: unknown; WebAssembly?: unknown };
    const { SharedArrayBuffer: shared, WebAssembly: wasm } = scope;
    try {
      delete scope.SharedArrayBuffer;
      expect(new AlignedArena({ maxBytes: MiB }).backing).toBe("plain");
      delete scope.WebAssembly;
      const arena = new AlignedArena({ maxBytes: MiB });
      expect([arena.backing, arena.alignment]).toEqual(["heap", 1]);
      expect(() => new AlignedArena({ maxBytes: MiB, backing: "plain" })).toThrow(
        "no plain memory",
      );
    } finally {
      scope.SharedArrayBuffer = shared;
      scope.WebAssembly = wasm;
    }
  });

  test("sharedArena() must be one arena of 64 MiB", () => {
    expect(sharedArena()).toBe(sharedArena());
    expect(sharedArena().maxBytes).toBe(64 * MiB);
  });
});

describe("isMemoryAligned()", () => {
  test("must know the memory of arenas, and nothing of other memory but alignment 1", () => {
    const { bytes } = take(new AlignedArena({ maxBytes: MiB }), 8192);
    expect(isMemoryAligned(bytes, 4096)).toBe(true);
    expect(isMemoryAligned(bytes, 8192)).toBe(false);
    expect(isMemoryAligned(bytes.subarray(512), 512)).toBe(true);
    expect(isMemoryAligned(bytes.subarray(512), 1024)).toBe(false);
    expect(isMemoryAligned(bytes.subarray(1), 1)).toBe(true);
    expect(isMemoryAligned(new Uint8Array(4096), 2)).toBe(false);
    expect(isMemoryAligned(new Uint8Array(4096), 1)).toBe(true);
  });
});
