import { IoVector, type MaybePromise } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { AlignedArena, AlignedIo } from "../src/index.js";
import { StrictDevice } from "./strict-device.js";

const KiB = 1024;
const arena = new AlignedArena({ maxBytes: 4 * 1024 * KiB });

/** A content in which every byte tells where it is, near enough. */
function pattern(lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
}

function strict(lengthBytes: number, memoryAlignment = 512, maxTransfer = 64 * KiB): StrictDevice {
  return new StrictDevice(pattern(lengthBytes), {
    requestAlignment: 512,
    memoryAlignment,
    maxTransfer,
  });
}

function later(work: MaybePromise<void>): Promise<void> {
  return Promise.resolve(work);
}

describe("AlignedIo", () => {
  test("an aligned read must reach the device as it is and answer as the device does", async () => {
    const device = strict(8192);
    const io = new AlignedIo(device, arena);
    const buffer = arena.tryAllocate(4096);
    const vector = IoVector.of(buffer?.bytes ?? new Uint8Array());
    const options = { signal: new AbortController().signal };
    const answer = io.readv(4096, vector, options);
    expect(device.seen).toHaveLength(1);
    expect(device.seen[0]?.vector).toBe(vector);
    expect(device.seen[0]?.options).toBe(options);
    await device.runUntil(later(answer));
    expect(buffer?.bytes).toEqual(device.bytes.slice(4096));
    device.synchronous = true;
    expect(io.readv(0, vector)).toBeUndefined();
    expect(io.writev(0, vector)).toBeUndefined();
    expect(io.statistics).toEqual({ readModifyWrites: 0, bouncedBytes: 0, paddedBytes: 0 });
    buffer?.release();
  });

  test("with requestAlignment 1 an aligned request must return the device's own promise", async () => {
    const device = new StrictDevice(pattern(100), {
      requestAlignment: 1,
      memoryAlignment: 1,
      maxTransfer: 1000,
    });
    const own: unknown[] = [];
    const spy = {
      limits: device.limits,
      lengthBytes: 100,
      readv: (offset: number, vector: IoVector) => {
        const promise = device.readv(offset, vector);
        own.push(promise);
        return promise;
      },
      writev: (offset: number, vector: IoVector) => {
        const promise = device.writev(offset, vector);
        own.push(promise);
        return promise;
      },
    };
    const io = new AlignedIo(spy, arena);
    const read = io.readv(3, IoVector.allocate(5));
    const write = io.writev(3, IoVector.allocate(5));
    expect(read).toBe(own[0]);
    expect(write).toBe(own[1]);
    await device.runUntil(Promise.all([read, write]));
  });

  test("a read of any range must return its bytes, and zeroes past the end", async () => {
    for (const memoryAlignment of [1, 512]) {
      const device = strict(3000, memoryAlignment, 1024);
      const io = new AlignedIo(device, arena);
      for (const [offset, length] of [
        [0, 1],
        [511, 2],
        [512, 1024],
        [100, 2900],
        [2999, 1],
        [2990, 100],
        [0, 5000],
        [3000, 50],
        [512, 3072],
        [9999, 10],
      ] as const) {
        const target = new Uint8Array(length).fill(0xee);
        await device.runUntil(later(io.readv(offset, IoVector.of(target))));
        const expected = new Uint8Array(length);
        expected.set(pattern(3000).subarray(offset, offset + length));
        expect(target).toEqual(expected);
      }
    }
  });

  test("a scattered read must fill its parts in order", async () => {
    const device = strict(4096, 512, 1024);
    const io = new AlignedIo(device, arena);
    const parts = [new Uint8Array(3), new Uint8Array(700), new Uint8Array(1), new Uint8Array(900)];
    await device.runUntil(later(io.readv(700, IoVector.from(parts))));
    expect(IoVector.from(parts).toBytes()).toEqual(pattern(4096).slice(700, 2304));
  });

  test("a write of any range must change its bytes and no others", async () => {
    for (const memoryAlignment of [1, 512]) {
      const device = strict(4096, memoryAlignment, 1024);
      const io = new AlignedIo(device, arena);
      const expected = pattern(4096);
      for (const [offset, length, value] of [
        [0, 1, 1],
        [511, 2, 2],
        [512, 1024, 3],
        [100, 3900, 4],
        [1024, 512, 5],
        [700, 400, 6],
        [1023, 513, 7],
        [0, 4096, 8],
        [1, 511, 9],
      ] as const) {
        const source = new Uint8Array(length).fill(value);
        expected.set(source, offset);
        await device.runUntil(later(io.writev(offset, IoVector.of(source))));
        expect(device.bytes).toEqual(expected);
      }
    }
  });

  test("small writes at once into one block must all survive", async () => {
    for (const memoryAlignment of [1, 512]) {
      const device = strict(1024, memoryAlignment);
      const io = new AlignedIo(device, arena);
      const expected = pattern(1024);
      const writes = Array.from({ length: 64 }, (_, i) => {
        const source = new Uint8Array(16).fill(i);
        expected.set(source, i * 16);
        return later(io.writev(i * 16, IoVector.of(source)));
      });
      await device.runUntil(Promise.all(writes));
      expect(device.bytes).toEqual(expected);
      expect(io.statistics.readModifyWrites).toBe(64);
      expect(io.statistics.paddedBytes).toBe(64 * (512 - 16));
      expect(io.statistics.bouncedBytes).toBe(memoryAlignment === 1 ? 0 : 1024);
    }
  });

  test("a read-modify-write must wait for the aligned write in flight that it overlaps", async () => {
    const device = strict(1024, 1);
    const io = new AlignedIo(device, arena);
    const whole = later(io.writev(0, IoVector.of(new Uint8Array(512).fill(1))));
    const small = later(io.writev(10, IoVector.of(new Uint8Array(2).fill(2))));
    await new Promise((resolve) => setImmediate(resolve));
    expect(device.seen.map((request) => request.op)).toEqual(["write"]);
    await device.runUntil(Promise.all([whole, small]));
    const expected = pattern(1024);
    expected.fill(1, 0, 512).fill(2, 10, 12);
    expect(device.bytes).toEqual(expected);
  });

  test("an aligned write and a change must wait for the read-modify-write they overlap", async () => {
    const device = strict(2048, 1);
    const io = new AlignedIo(device, arena);
    const order: string[] = [];
    const note = (name: string) => () => void order.push(name);
    const small = later(io.writev(10, IoVector.of(new Uint8Array(2)))).then(note("small"));
    const whole = later(io.writev(0, IoVector.allocate(1024)));
    const change = later(
      io.change(0, 512, () => {
        device.bytes.fill(9, 0, 512);
        order.push("change");
      }),
    );
    const other = later(io.change(1024, 512, note("other")));
    expect(order).toEqual(["other"]);
    await device.runUntil(Promise.all([small, whole, change, other]));
    expect(order).toEqual(["other", "small", "change"]);
    expect(device.seen.map(({ lengthBytes }) => lengthBytes)).toEqual([512, 512, 1024]);
    expect(device.bytes.subarray(0, 512).every((byte) => byte === 9)).toBe(true);
  });

  test("a read-modify-write must wait for a change in flight", async () => {
    const device = strict(1024, 1);
    const io = new AlignedIo(device, arena);
    let finish = (): void => {};
    const change = io.change(0, 512, () => new Promise<void>((resolve) => (finish = resolve)));
    const small = later(io.writev(0, IoVector.of(Uint8Array.of(5))));
    await new Promise((resolve) => setImmediate(resolve));
    expect(device.seen).toHaveLength(0);
    device.bytes.fill(0, 0, 512);
    finish();
    await device.runUntil(Promise.all([change, small]));
    expect(device.bytes[0]).toBe(5);
    expect(device.bytes.subarray(1, 512).every((byte) => byte === 0)).toBe(true);
  });

  test("a long request must be cut at maxTransfer", async () => {
    const device = strict(64 * KiB, 1, 4096);
    const io = new AlignedIo(device, arena);
    const target = new Uint8Array(20000);
    await device.runUntil(later(io.readv(1000, IoVector.of(target))));
    expect(target).toEqual(pattern(64 * KiB).slice(1000, 21000));
    expect(Math.max(...device.seen.map((request) => request.lengthBytes))).toBe(4096);
  });

  test("write options must reach the device, the signal only where no memory of ours is involved", async () => {
    const device = strict(4096);
    const io = new AlignedIo(device, arena);
    const { signal } = new AbortController();
    const bytes = new Uint8Array(10);
    await device.runUntil(later(io.writev(5, IoVector.of(bytes), { signal, fua: true })));
    expect(device.seen.map(({ options }) => options)).toEqual([undefined, { fua: true }]);
  });

  test("an abort must end the wait for the lock and leave the range free", async () => {
    const device = strict(1024, 1);
    const io = new AlignedIo(device, arena);
    const controller = new AbortController();
    const first = later(io.writev(0, IoVector.of(Uint8Array.of(1))));
    const second = later(
      io.writev(1, IoVector.of(Uint8Array.of(2)), { signal: controller.signal }),
    );
    const third = later(io.writev(2, IoVector.of(Uint8Array.of(3))));
    const outcome = second.catch((error: unknown) => error);
    controller.abort();
    expect(await outcome).toMatchObject({ code: "ECANCELED" });
    await device.runUntil(Promise.all([first, third]));
    expect([...device.bytes.subarray(0, 3)]).toEqual([1, pattern(2)[1], 3]);
  });

  test("an abort between pieces must end the request, and the arena must get its memory back", async () => {
    const own = new AlignedArena({ maxBytes: 64 * KiB });
    const device = strict(256 * KiB, 512, 4096);
    const io = new AlignedIo(device, own);
    const controller = new AbortController();
    const read = later(io.readv(0, IoVector.allocate(200 * KiB), { signal: controller.signal }));
    const outcome = read.catch((error: unknown) => error);
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    // The piece that has begun is still under way, so its buffer must not be free yet.
    expect(own.usedBytes).toBeGreaterThan(0);
    expect(await device.runUntil(outcome)).toMatchObject({ code: "ECANCELED" });
    expect(own.usedBytes).toBe(0);
    expect(device.seen.length).toBeLessThan(4);
  });

  test("a failure of the device must be passed on, free the lock and give the memory back", async () => {
    const own = new AlignedArena({ maxBytes: 64 * KiB });
    const device = strict(4096);
    const io = new AlignedIo(device, own);
    for (const kind of ["read", "write"] as const) {
      device.failNext = kind;
      const write = later(io.writev(100, IoVector.of(new Uint8Array(1000))));
      await expect(device.runUntil(write)).rejects.toMatchObject({ code: "EIO" });
      expect(own.usedBytes).toBe(0);
    }
    expect(device.bytes).toEqual(pattern(4096));
    await device.runUntil(later(io.writev(100, IoVector.of(Uint8Array.of(1)))));
    expect(device.bytes[100]).toBe(1);
  });

  test("a failed aligned write must not hold up later ones", async () => {
    const device = strict(1024, 1);
    const io = new AlignedIo(device, arena);
    device.failNext = "write";
    const whole = later(io.writev(0, IoVector.allocate(512)));
    const small = later(io.writev(0, IoVector.of(Uint8Array.of(1))));
    await expect(whole).rejects.toMatchObject({ code: "EIO" });
    await device.runUntil(small);
    expect(device.bytes[0]).toBe(1);
    expect(device.bytes[1]).toBe(pattern(2)[1]);
  });

  test("a full arena must slow requests down and never stop them", async () => {
    const own = new AlignedArena({ maxBytes: 64 * KiB });
    // Somebody who waits for these very requests holds all there is.
    const held = own.tryAllocate(64 * KiB);
    expect(held).toBeDefined();
    const device = strict(256 * KiB, 512, 256 * KiB);
    const io = new AlignedIo(device, own);
    const expected = pattern(256 * KiB);
    const writes = [0, 1].map((i) => {
      const source = new Uint8Array(100 * KiB).fill(i + 1);
      expected.set(source, i * 128 * KiB + 100);
      return later(io.writev(i * 128 * KiB + 100, IoVector.of(source)));
    });
    const reads = [1, 2, 3].map(() => later(io.readv(1, IoVector.allocate(90 * KiB))));
    await device.runUntil(Promise.all([...writes, ...reads]));
    expect(Buffer.compare(device.bytes, expected)).toBe(0);
    expect(Math.max(...device.seen.map(({ lengthBytes }) => lengthBytes))).toBe(64 * KiB);
    held?.release();
    expect(own.usedBytes).toBe(0);
  });

  test("a write past the end must pad with zeroes and let the device grow", async () => {
    const device = strict(700, 512);
    const io = new AlignedIo(device, arena);
    await device.runUntil(later(io.writev(1500, IoVector.of(new Uint8Array(100).fill(7)))));
    const expected = new Uint8Array(2048);
    expected.set(pattern(700));
    expected.fill(7, 1500, 1600);
    expect(device.bytes).toEqual(expected);
  });

  test("empty requests must do nothing", () => {
    const device = strict(1024);
    const io = new AlignedIo(device, arena);
    expect(io.readv(3, IoVector.allocate(0))).toBeUndefined();
    expect(io.writev(3, IoVector.allocate(0))).toBeUndefined();
    expect(io.change(512, 0, () => expect.unreachable())).toBeUndefined();
    expect(device.seen).toHaveLength(0);
  });

  test("an offset that is no safe integer must fail an assertion", async () => {
    const io = new AlignedIo(strict(1024), arena);
    await expect(later(io.readv(-512, IoVector.allocate(512)))).rejects.toThrow("safe integer");
    await expect(later(io.writev(-1, IoVector.allocate(1)))).rejects.toThrow("safe integer");
    expect(() => io.change(1, 512, () => {})).toThrow("aligned");
  });

  test("a device that wants more than the arena has must be refused with ENOTSUP", () => {
    const heap = new AlignedArena({ maxBytes: 64 * KiB, backing: "heap" });
    expect(() => new AlignedIo(strict(1024), heap)).toThrow("memory aligned to 512");
    expect(new AlignedIo(strict(1024, 1), heap).statistics.bouncedBytes).toBe(0);
    const huge = { requestAlignment: 2 ** 20, memoryAlignment: 512, maxTransfer: 2 ** 20 };
    expect(() => new AlignedIo(new StrictDevice(new Uint8Array(0), huge), arena)).toThrow(
      "longer than a bounce buffer",
    );
  });
});
