/**
 * Random requests at once, against a flat array that knows for every byte which values may be there: the
 * one from before, or that of any write that covers it. Anything else is a third value, and lost data.
 */
import { hasCode, IoVector, type MaybePromise } from "@blocklayer/bytes";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AlignedArena, AlignedIo } from "../src/index.js";
import { StrictDevice } from "./strict-device.js";

const RUNS = Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 120);
const DEVICE_BYTES = 6000;
/** Changes and some of the others lie on this grid: it fits every alignment below. */
const GRID_BYTES = 1024;
const LIMITS = [
  { requestAlignment: 512, memoryAlignment: 1, maxTransfer: 2048 },
  { requestAlignment: 512, memoryAlignment: 512, maxTransfer: 1024 },
  { requestAlignment: 1024, memoryAlignment: 4096, maxTransfer: 65536 },
  { requestAlignment: 1, memoryAlignment: 1, maxTransfer: 700 },
  { requestAlignment: 1, memoryAlignment: 512, maxTransfer: 700 },
] as const;

interface Request {
  readonly op: "read" | "write" | "change";
  readonly offset: number;
  readonly length: number;
  /** `shifted`: arena memory one byte off. */
  readonly memory: "heap" | "aligned" | "shifted";
  readonly parts: number;
  readonly aborts: boolean;
  /** Turns of the event loop before it starts, so that it meets others half done. */
  readonly delay: number;
}

const requests: fc.Arbitrary<Request> = fc
  .record({
    op: fc.constantFrom("read" as const, "write" as const, "write" as const, "change" as const),
    start: fc.nat({ max: DEVICE_BYTES - 1 }),
    size: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4000 })),
    onGrid: fc.boolean(),
    memory: fc.constantFrom("heap" as const, "aligned" as const, "shifted" as const),
    parts: fc.integer({ min: 1, max: 3 }),
    aborts: fc.nat({ max: 9 }).map((n) => n === 0),
    delay: fc.oneof(fc.constant(0), fc.nat({ max: 12 })),
  })
  .map(({ start, size, onGrid, ...rest }) => {
    const step = onGrid || rest.op === "change" ? GRID_BYTES : 1;
    // Reads may pass the end of the device; growing it has a test of its own.
    const limit = rest.op === "read" ? 2 * DEVICE_BYTES : DEVICE_BYTES - (DEVICE_BYTES % step);
    const offset = Math.min(start - (start % step), limit - step);
    const length = Math.min(Math.max(size - (size % step), step), limit - offset);
    return { ...rest, offset, length };
  });

/** What may be read at each byte while a batch of requests runs, and after it. */
class Model {
  readonly before: Uint8Array;
  readonly writers: (number[] | undefined)[] = [];
  readonly certain = new Set<number>();

  constructor(before: Uint8Array) {
    this.before = before;
  }

  addWrite({ offset, length, aborts }: Request, value: number): void {
    for (let at = offset; at < offset + length; at++) {
      (this.writers[at] ??= []).push(value);
      if (!aborts) this.certain.add(at);
    }
  }

  mayRead(at: number, value: number): boolean {
    if (at >= DEVICE_BYTES) return value === 0;
    return value === this.before[at] || this.writers[at]?.includes(value) === true;
  }

  mayRemain(at: number, value: number): boolean {
    return this.certain.has(at)
      ? this.writers[at]?.includes(value) === true
      : this.mayRead(at, value);
  }
}

function memoryFor(request: Request, arena: AlignedArena): IoVector {
  const { length, parts, memory } = request;
  if (memory === "heap") return split(new Uint8Array(length), parts);
  const shift = memory === "shifted" ? 1 : 0;
  const buffer = arena.tryAllocate(length + shift);
  return split(buffer?.bytes.subarray(shift) ?? new Uint8Array(length), parts);
}

function split(bytes: Uint8Array, parts: number): IoVector {
  const step = Math.ceil(bytes.length / parts);
  return IoVector.from(
    Array.from({ length: parts }, (_, i) => bytes.subarray(i * step, (i + 1) * step)),
  );
}

async function runBatch(
  batch: readonly Request[],
  io: AlignedIo,
  device: StrictDevice,
  firstValue: number,
): Promise<void> {
  const model = new Model(device.bytes.slice());
  const memory = new AlignedArena({ maxBytes: 65536 });
  const all = batch.map(async (request, index) => {
    const value = ((firstValue + index) % 255) + 1;
    const vector = memoryFor(request, memory);
    await turns(request.delay);
    if (request.op !== "read") {
      model.addWrite(request, value);
      vector.fill(value);
    }
    try {
      await send(io, device, request, vector, value);
    } catch (error) {
      if (!request.aborts || !hasCode(error, "ECANCELED")) throw error;
      return undefined;
    }
    return request.op === "read" ? { offset: request.offset, bytes: vector.toBytes() } : undefined;
  });
  for (const read of await device.runUntil(Promise.all(all))) {
    read?.bytes.forEach((value, i) => {
      if (!model.mayRead(read.offset + i, value)) {
        expect.unreachable(`a read saw ${value} at ${read.offset + i}`);
      }
    });
  }
  device.bytes.forEach((value, at) => {
    if (!model.mayRemain(at, value)) expect.unreachable(`byte ${at} became ${value}`);
  });
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

function send(
  io: AlignedIo,
  device: StrictDevice,
  { op, offset, length, aborts }: Request,
  vector: IoVector,
  value: number,
): MaybePromise<void> {
  const controller = new AbortController();
  const options = aborts ? { signal: controller.signal } : {};
  if (aborts) void turns(2).then(() => controller.abort());
  if (op === "read") return io.readv(offset, vector, options);
  if (op === "write") return io.writev(offset, vector, options);
  return io.change(offset, length, () => device.fill(offset, length, value), options);
}

test.each(LIMITS.map((limits) => [JSON.stringify(limits), limits] as const))(
  "AlignedIo must never produce a third value, with limits %s",
  async (_, limits) => {
    const batches = fc.array(fc.array(requests, { minLength: 1, maxLength: 8, size: "max" }), {
      minLength: 1,
      maxLength: 4,
      size: "max",
    });
    await fc.assert(
      fc.asyncProperty(batches, fc.nat(), fc.boolean(), async (list, seed, full) => {
        const arena = new AlignedArena({ maxBytes: 65536 });
        // With the arena full, every bounce goes through the reserve.
        const hog = full ? arena.tryAllocate(65536) : undefined;
        const content = Uint8Array.from({ length: DEVICE_BYTES }, (_value, i) => i % 251);
        const device = new StrictDevice(content, limits, seed);
        const io = new AlignedIo(device, arena);
        let value = seed % 1000;
        for (const batch of list) {
          await runBatch(batch, io, device, value);
          value += batch.length;
        }
        hog?.release();
        expect(arena.usedBytes).toBe(0);
      }),
      { numRuns: RUNS },
    );
  },
  120_000,
);
